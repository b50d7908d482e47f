"""Measures how closely a text is related to the sentences of its topic, from 0 to 1, by the stems of its words.

A good name need not repeat the sentences: "Labor cost inflation" labels sentences on wages. So a word counts if the
sentences contain it or another word of the same concept, or if it abbreviates or spells out one of their words.
Only English is measured.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

from worker.vocabulary import CONCEPTS, FUNCTION_WORDS, stem, weight_of
from worker.words import all_words

_AMPERSAND = re.compile(r"\b(\w{1,2})\s?&\s?(\w)\b")
"""R&D, SG&A and M&A are one word each."""
SIGN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""A letter of Chinese, Japanese or Korean."""
_HYPHEN = re.compile(r"\b(e|non|re)-|-(?=(?:off|out|back|up|down)s?\b)", re.IGNORECASE)
"""So are e-commerce, non-performing and charge-offs."""
_FOREIGN = """
als auch das dei del della der die dos een ein eine el en het il la las le les los mit na och para por que
sie um una und une van von voor yang dan untuk wir zu
"""
_FOREIGN_WORDS = frozenset(_FOREIGN.split())
_FOREIGN_SHARE = 0.06
"""Of a text's words or letters; English text has almost none."""
_PREFIX = 5
_MAIN_KEYWORDS = 3
_OFTEN = 0.4
"""The share of the sentences that contain a main word."""
_SAID = (0.0, 0.5, 1.0)
"""The value of a word that is in no sentence, in one, or in more."""
_CONCEPT_SAID = (0.0, 0.3, 0.4, 0.7)
"""The value of a word whose concept is in no sentence, in one, in two, or in more. Tuned on good names and on names of
other topics."""

_CACHED_TEXTS = 1024
"""A topic's sentences and keywords are compared several times with each answer."""


@lru_cache(_CACHED_TEXTS)
def english_words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; R&D and e-commerce are one word each."""
    return tuple(all_words(_HYPHEN.sub(r"\1", _AMPERSAND.sub(r"\1\2", text))))


@lru_cache(_CACHED_TEXTS)
def content_stems(text: str) -> tuple[str, ...]:
    """The stems of the words that carry meaning, each once, in their order."""
    words = [word for word in english_words(text) if word not in FUNCTION_WORDS]
    return tuple(dict.fromkeys(stem(word) for word in words if len(word) > 1 and not word.isdigit()))


@cache
def concepts_of(one: str) -> frozenset[int]:
    """The numbers of the concepts that a stem belongs to."""
    return frozenset(number for number, concept in enumerate(CONCEPTS) if one in concept)


def is_english(text: str) -> bool:
    """Whether a text is in English, as far as its letters and frequent words show."""
    letters = [character for character in text if character.isalpha()]
    words = all_words(text)
    foreign_letters = sum(not letter.isascii() for letter in letters)
    foreign_words = sum(word in _FOREIGN_WORDS for word in words)
    return foreign_letters <= _FOREIGN_SHARE * len(letters) and foreign_words <= _FOREIGN_SHARE * len(words)


class Relation:
    """The words and concepts of some sentences and their keywords, to which texts are compared."""

    def __init__(self, sentences: list[str], keywords: list[str]) -> None:
        texts = [*sentences, *keywords, *keywords]  # at least two sentences have a keyword
        self.english = is_english(" ".join(sentences))
        self.signs = frozenset(SIGN.findall(" ".join(texts)))
        """The letters of Chinese, Japanese and Korean in the sentences and keywords."""
        self._stems: Counter[str] = Counter()
        self._concepts: Counter[int] = Counter()
        self._words: set[str] = set()
        initials: set[str] = set()
        for text in texts:
            stems = content_stems(text)
            words = english_words(text)
            self._stems.update(stems)
            specific = [one for one in stems if weight_of(one) == 1]
            self._concepts.update({concept for one in specific for concept in concepts_of(one)})
            self._words.update(words)
            initials.update(abbreviation for abbreviation, _ in _abbreviations(words))
        self.initials = frozenset(initials)
        """The initials of every three or four words in a row, which may be their abbreviation."""
        said = Counter(one for sentence in sentences for one in content_stems(sentence))
        self._prefixes: Counter[str] = Counter()
        for one, count in self._stems.items():
            if len(one) >= _PREFIX:
                self._prefixes[one[:_PREFIX]] = max(count, self._prefixes[one[:_PREFIX]])

        often = {one for one, count in said.items() if count >= max(2, _OFTEN * len(sentences))}
        self._main = often | {one for keyword in keywords[:_MAIN_KEYWORDS] for one in content_stems(keyword)}

    def has_main_word(self, text: str) -> bool:
        """Whether a specific word of the text is a main word of the topic."""
        return any(one in self._main and weight_of(one) == 1 for one in content_stems(text))

    def of(self, text: str) -> float:
        """The weighted share of the text's words that the topic confirms; 0 when none of them has a weight."""
        words = english_words(text)
        abbreviated = {
            word for initials, spelled in _abbreviations(words) if initials in self._words for word in spelled
        }
        abbreviated |= {word for word in words if len(word) > 2 and word in self.initials}
        spelled_out = set(map(stem, abbreviated))
        total = confirmed = 0.0
        for one in content_stems(text):
            weight = weight_of(one)
            total += weight
            confirmed += weight * (_SAID[-1] if one in spelled_out else self._support(one))
        return confirmed / total if total else 0.0

    def _support(self, one: str) -> float:
        direct = self._stems[one] or (self._prefixes[one[:_PREFIX]] if len(one) >= _PREFIX else 0)
        related = max((self._concepts[concept] for concept in concepts_of(one)), default=0)
        return max(_SAID[min(direct, 2)], _CONCEPT_SAID[min(related, 3)])


def _abbreviations(words: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """The initials of three or four words in a row, with the words."""
    runs = [words[start : start + length] for length in (3, 4) for start in range(len(words) - length + 1)]
    return [("".join(word[0] for word in run), run) for run in runs]
