"""Is the naming good, and is vLLM fast? Tools that measure; each runs as a process of its own."""
