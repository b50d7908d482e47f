"""`ftm`, the operator's command line: thin commands over services over rendering."""

__version__ = "0.1.0"
"""The project's version. `ftm --version` reads it here: the metadata of the installed package takes longer to read."""
