"""Defines words and lines of text in any script, for topic discovery and naming."""

import re
import unicodedata

# Vowels of Hindi and Thai, and accents that follow their letter: for `re`, a word ends before them. Ideographs and
# Hangul, between and after these ranges, have none.
_SCRIPTS = (*range(0x300, 0x3100), *range(0xA600, 0xAC00))
_MARKS = "".join(c for c in map(chr, _SCRIPTS) if unicodedata.category(c) in ("Mn", "Mc"))
_WORD = re.compile(rf"\w+(?:[{_MARKS}]+\w*)*")
_LETTERS = re.compile(rf"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{{2,}}|[^\W\d_](?:[^\W\d_]|[{_MARKS}]){{2,}}")
_ASCII_LETTERS = re.compile(r"[a-z]{3,}")

_KEPT_CONTROL = {"\n": " ", "\r": " ", "\t": " "}

MAX_LETTERS = 40
"""Twice the longest word in 42,000 real sentences; longer ones are addresses, or clauses without spaces."""


def all_words(text: str) -> list[str]:
    """The words and figures of a text, in lower case."""
    return _WORD.findall(text.lower())


def plain_words(text: str) -> list[str]:
    """The words without figures of three letters or more, in Chinese, Japanese and Korean of two; in lower case."""
    lower = text.lower()
    pattern = _ASCII_LETTERS if lower.isascii() else _LETTERS
    return [word for word in pattern.findall(lower) if len(word) <= MAX_LETTERS]


def one_line(text: str) -> str:
    """The text on one line, without control characters and without the marks that separate messages of a chat."""
    kept = (_KEPT_CONTROL.get(c, c) for c in text if c in _KEPT_CONTROL or unicodedata.category(c)[0] != "C")
    return " ".join("".join(kept).split()).replace("<|", "< |")
