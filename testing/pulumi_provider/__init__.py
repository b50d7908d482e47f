"""The provider `aws` for Pulumi's real engine: it makes resources in the embedded AWS.

`server` speaks the engine's protocol, `rules` knows what AWS cannot change in place and what it refuses to delete, and
`deletes` removes resources from the embedded AWS.
"""
