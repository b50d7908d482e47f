"""The provider `aws` for Pulumi's real engine: it creates resources in the embedded AWS.

`server` implements the engine's protocol, `rules` defines what AWS cannot change in place and what it refuses to
delete, and `deletes` removes resources from the embedded AWS.
"""
