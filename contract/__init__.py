"""What the rooms agree on: quarters, the bucket's layout, the records that pass between them, environment names.

Standard library only: this package travels in the Lambda zip, in the worker's image and in the operator's CLI.
"""


class ContractError(ValueError):
    """A quarter, a manifest or a progress record that is not what the contract says; the text is for a person."""
