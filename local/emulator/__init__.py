"""The embedded AWS: moto, with Lambda handlers and Batch jobs as real processes. It knows nothing of ftm."""
