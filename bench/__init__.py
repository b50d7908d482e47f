"""Measures the cost and the quality of the worker: `python -m bench [FOLDER]`."""
