"""Checks of a name's content: it must not be vacuous, repeat itself, or mention a person or place that the
call does not."""

import re

from worker.naming.relation import SIGN, Relation, concepts_of, content_stems, is_english
from worker.vocabulary import (
    ACRONYMS,
    BROAD,
    DIRECTIONS,
    KNOWN_NAMES,
    VACUOUS,
    VACUOUS_ELSEWHERE,
    VACUOUS_SIGNS,
    stem,
    weight_of,
)
from worker.words import all_words

# Calibrated on real topics, with their own names and with those of other topics: see tests/worker/test_validation.py.
_RELATED = 0.38
_SUMMARY_RELATED = 0.28
_NAME_IN_SUMMARY = 0.15
"""How closely a name must be related to its own summary; of 170 good answers, the least is .20."""
_CERTAINLY_RELATED = 0.45
_INFORMATIVE_WORDS = 4
"""The minimum number of specific words in a summary that is compared with its name."""
_MAX_REPEATED = 0.3
"""The maximum share of repeated runs of three words; good summaries repeat none or one."""
_MONTHS = "january february march april may june july august september october november december"
_VACUOUS_SIGNS = re.compile("|".join(sorted(VACUOUS_SIGNS, key=len, reverse=True)))
_TOKEN = re.compile(r"[^\W\d_][\w&]+(?:[.-][^\W_]\w*)*")
_SENTENCE_END = re.compile(r"[.!?:;]\s+$|^$|[\"“(]$")


def is_vacuous(name: str) -> bool:
    """Whether a name consists of words that fit any company, such as "Business update" or "Customers"."""
    if not _beside_vacuous_signs(name) or all(word in VACUOUS_ELSEWHERE for word in all_words(name)):
        return True
    stems = content_stems(name)
    if any(weight_of(one) == 1 for one in stems) or not is_english(name):
        return False
    broad = sum(one in BROAD for one in stems)
    if any(one in DIRECTIONS for one in stems):
        return not broad
    return broad < 2 or any(one in VACUOUS for one in stems) or " and " in name.lower()


def loops(text: str) -> bool:
    """Whether a text repeats itself, in any script."""
    words = all_words(text)
    units = words if len(words) > 1 and max(map(len, words)) < 20 else list("".join(words))
    runs = list(zip(units, units[1:], units[2:], strict=False))
    return len(runs) > 2 and 1 - len(set(runs)) / len(runs) > _MAX_REPEATED


def is_unrelated(name: str, summary: str, relation: Relation) -> bool:
    """Whether a name or its summary is unrelated to the topic's sentences, or the name to its summary.

    A name in Chinese, Japanese or Korean must share a letter with sentences in these languages; languages other than
    English are not judged.
    """
    if not relation.english or not is_english(name):
        letters = set(SIGN.findall(_beside_vacuous_signs(name)))
        return bool(letters and relation.signs) and letters.isdisjoint(relation.signs)
    informative = sum(weight_of(one) == 1 for one in content_stems(summary)) >= _INFORMATIVE_WORDS
    if informative and relation.of(summary) < _SUMMARY_RELATED:
        return True
    if informative and Relation([summary, summary], []).of(name) < _NAME_IN_SUMMARY:
        return True
    return relation.of(name) < _RELATED and not relation.has_main_word(name)


def is_copied(name: str, examples: tuple[str, ...], relation: Relation) -> bool:
    """Whether a name is one of the prompt's examples and the sentences are hardly about it."""
    stems = set(content_stems(name))
    copied = any(stems == set(content_stems(example)) for example in examples)
    return copied and relation.english and relation.of(name) < _CERTAINLY_RELATED


def name_from_elsewhere(text: str, relation: Relation, call_words: frozenset[str]) -> str:
    """The first company, person or place in an English text that the call does not mention; empty if there is none.

    Args:
        call_words: all words of the call, in lower case.
    """
    if not is_english(text) or text.isupper():
        return ""
    tokens = list(_TOKEN.finditer(text))
    inner = [token[0] for token in tokens[1:] if len(token[0]) > 3]
    titled = len(inner) > 0 and sum(word[0].isupper() for word in inner) > 0.6 * len(inner)
    for token in tokens:
        word = token[0]
        lower = word.lower()
        if not any(character.isupper() for character in word) or _is_known(lower, call_words | relation.initials):
            continue
        capital_says_nothing = titled or _SENTENCE_END.search(text[: token.start()])
        possessive = text[token.end() : token.end() + 2] in ("'s", "’s")
        marked = any(character.isupper() for character in word[1:])
        if lower in KNOWN_NAMES or marked or possessive or not capital_says_nothing:
            return word
    return ""


def _beside_vacuous_signs(name: str) -> str:
    """The letters and digits of a name without vacuous words in Chinese, Japanese and Korean."""
    return "".join(character for character in _VACUOUS_SIGNS.sub("", name) if character.isalnum())


def _is_known(lower: str, words: frozenset[str]) -> bool:
    """Whether a word is in the call, or in the general vocabulary of finance."""
    parts = all_words(lower)
    if lower.replace(".", "").replace("&", "") in ACRONYMS:
        return True
    if all(part in words or part in ACRONYMS or part in _MONTHS.split() for part in parts):
        return True
    return all(_has_form(part, words) for part in parts)


def _has_form(word: str, words: frozenset[str]) -> bool:
    """Whether the call has a form of the word ("Chinese", "China"), or it is a common word of finance."""
    if word in words or (len(word) > 3 and any(other.startswith(word[:4]) for other in words)):
        return True
    concepts = concepts_of(stem(word))
    if word in KNOWN_NAMES:
        return any(not concepts.isdisjoint(concepts_of(stem(other))) for other in words)
    return bool(concepts) or weight_of(stem(word)) < 1
