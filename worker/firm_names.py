"""Whether a text identifies its firm. The worker rejects such names of topics, and `ftm compare` counts them."""

import re
from collections.abc import Collection
from itertools import takewhile

LEGAL_FORMS = frozenset(
    """
    ab ag co companies company corp corporation gmbh holding holdings inc incorporated limited llc lp ltd nv plc sa se
    the
    """.split()  # noqa: SIM905
)

_GENERIC = frozenset(
    """
    advanced american bank best central consolidated east eastern first general global great international national new
    north northern pacific public south southern standard states strategic united universal us west western
    """.split()  # noqa: SIM905
)
"""Common first words of firms' names: they identify the firm only together with the words that follow."""

_FIRST_WORD = re.compile(r"\W+([^\W\d_]+)")


def identifying_words(firm_name: str) -> str:
    """The words that identify a firm, in lower case: `toro` of The Toro Company, `american eagle` of American Eagle
    Outfitters; empty for an empty name."""
    words = re.findall(r"\w+", firm_name.lower())
    if words and words[0] == "the":
        del words[0]
    words = [*words[:1], *takewhile(lambda word: word not in LEGAL_FORMS, words[1:])]
    positions = (number for number, word in enumerate(words, 1) if len(word) > 2 and word not in _GENERIC)
    return " ".join(words[: next(positions, len(words))])


def contains_name(text: str, name: str, names: Collection[str] = ()) -> bool:
    """Whether a text contains a name, which is given in lower case.

    A single word in lower case has its common meaning (a gap is not Gap), and so has the first word of "Sporting goods"
    if both words are among `names`.
    """
    pattern = r"\b" + r"[\W_]+".join(map(re.escape, name.split())) + r"\b"
    for match in re.finditer(pattern, text, re.IGNORECASE) if name else ():
        following = _FIRST_WORD.match(text[match.end() :])
        common = match.start() == 0 and following and following[1] in names
        if " " in name or not (match[0][0].islower() or common):
            return True
    return False


def contains_ticker(text: str, firm_id: str) -> bool:
    """Whether a text contains the firm's id as a word; ids that are numbers or single letters are not recognised."""
    if len(firm_id) < 2 or not any(character.isalpha() for character in firm_id):
        return False
    return re.search(rf"\b{re.escape(firm_id)}\b", text) is not None
