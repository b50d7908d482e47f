"""Runs the Pulumi program in process and creates its resources in the embedded AWS."""
