"""The fake vLLM, and the load balancer in front of it or of a real server."""
