"""What the worker costs and what it is worth, measured: `python -m bench [FOLDER]`."""
