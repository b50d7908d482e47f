"""Quarters are written as the year and Q1 to Q4: `2023Q1`; ranges of them as `2022Q1..2023Q4`."""

import re

from contract import ContractError

MAX_QUARTERS = 200
"""The maximum number of quarters in a range, fifty years: a longer range is a typing error."""

_QUARTER = re.compile(r"(19|20)\d\dQ[1-4]")
_NOTATIONS = re.compile(r"(\d{4})Q?([1-4])|(?:Q([1-4])|([1-4])Q)(\d{4})|Q?([1-4])")


def check_quarter(text: object) -> str:
    """Return `text` if it is a quarter.

    Raises:
        ContractError: with a sentence that says what a quarter looks like.
    """
    if isinstance(text, str) and _QUARTER.fullmatch(text):
        return text
    raise ContractError(f"{text!r} is not a quarter: write the year and Q1 to Q4, such as 2023Q1")


def read_quarter(text: str) -> str | None:
    """`2016Q2` from the usual notations in data, such as `2016-Q2`, `Q2 2016` or `20162`; `Q2` from `2`, which does not
    give the year; None from any other text."""
    found = _NOTATIONS.fullmatch(re.sub(r"[\s_./-]", "", text.upper()))
    if not found:
        return None
    year, number = found[1] or found[5] or "", found[2] or found[3] or found[4] or found[6]
    return f"{year}Q{number}"


def quarters_of(text: str) -> list[str]:
    """The quarters of a range such as `2022Q1..2023Q4`, or the one of `2022Q1`.

    Raises:
        ContractError: when an end is not a quarter, or the range runs backwards or is absurdly long.
    """
    first, separator, last = text.partition("..")
    start, end = _number(first), _number(last if separator else first)
    if end < start:
        raise ContractError(f"{text} runs backwards: write {last}..{first}")
    if end - start >= MAX_QUARTERS:
        raise ContractError(f"{text} has {end - start + 1} quarters: a range has at most {MAX_QUARTERS}")
    return [f"{number // 4}Q{number % 4 + 1}" for number in range(start, end + 1)]


def quarter_before(quarter: str) -> str:
    """The quarter before: `2022Q4` of `2023Q1`."""
    number = _number(quarter) - 1
    return f"{number // 4}Q{number % 4 + 1}"


def _number(quarter: str) -> int:
    year, _, part = check_quarter(quarter).partition("Q")
    return int(year) * 4 + int(part) - 1
