"""Quarters are written as the year and Q1 to Q4: `2023Q1`."""

import re

from contract import ContractError

_QUARTER = re.compile(r"(19|20)\d\dQ[1-4]")


def check_quarter(text: object) -> str:
    """Return `text` if it is a quarter.

    Raises:
        ContractError: with a sentence that says what a quarter looks like.
    """
    if isinstance(text, str) and _QUARTER.fullmatch(text):
        return text
    raise ContractError(f"{text!r} is not a quarter: write the year and Q1 to Q4, such as 2023Q1")
