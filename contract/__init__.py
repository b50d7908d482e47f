"""What the other packages agree on: quarters and runs, the bucket's layout and records, environment-variable names.

Standard library only: this package is part of the Lambda zip, of the worker's image and of the operator's CLI.
"""


class ContractError(ValueError):
    """A quarter, a run id, a manifest or a record is not valid; the text is a sentence for the operator."""
