"""The provider `aws` for Pulumi's real engine: it creates resources in the embedded AWS.

`server` implements the engine's protocol, `rules` defines what AWS cannot change in place and what it refuses to
delete, `updates` changes resources in the embedded AWS, and `deletes` removes them from it.
"""
