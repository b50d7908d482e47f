"""Writes sample earnings calls with known topics, in the layout of a prefetch.

The calls are composed of the sentences of `local.samples.topics`: each firm talks about its own mix of topics, in
prepared remarks and in answers to questions, with an operator's lines and boilerplate in between. The same arguments
always give the same files.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from contract.prefetch import SENTENCE_COLUMNS
from local.samples.topics import (
    CLOSING,
    FIRST_NAMES,
    HAND_OVER,
    NEXT_QUESTION,
    OPENING,
    QUESTIONS,
    SECOND_NAMES,
    STOP_WORDS,
    THANKS,
    TOPICS,
)

MAX_FIRMS = 100_000
FIRMS_PER_CHUNK = 200
TOPICS_PER_FIRM = 6
SILENT_EVERY = 12
"""Every n-th firm has a call without content, as in real quarters: the worker skips it and records the reason."""

_Line = tuple[str, str]
"""The type of speaker and the sentence."""

_CHOICE = re.compile(r"\[([^\]]+)\]")
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True)
class Sample:
    firms: int
    sentences: int
    chunks: int


def write(directory: Path, quarter: str, firms: int = 12) -> Sample:
    """Write the calls of `firms` made-up firms in `quarter` into `directory`: chunks, then the manifest.

    Raises:
        ValueError: if `firms` is not between 1 and MAX_FIRMS.
    """
    if not 1 <= firms <= MAX_FIRMS:
        raise ValueError(f"{firms} is not a valid number of firms: give 1 to {MAX_FIRMS}")
    directory.mkdir(parents=True, exist_ok=True)
    chunks = {
        f"chunk_{number:04d}.parquet": range(start, min(start + FIRMS_PER_CHUNK, firms))
        for number, start in enumerate(range(0, firms, FIRMS_PER_CHUNK))
    }
    sentences = sum(_write_chunk(directory / name, quarter, members) for name, members in chunks.items())
    manifest = {
        "quarter": quarter,
        "created_at": f"{_call_date(quarter, 0).isoformat()}T00:00:00Z",
        "n_firms": firms,
        "n_chunks": len(chunks),
        "chunk_sizes": {name: len(members) for name, members in chunks.items()},
        "firm_to_chunk": {firm_id(number): name for name, members in chunks.items() for number in members},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return Sample(firms, sentences, len(chunks))


def firm_id(number: int) -> str:
    """The id of a sample firm, counted from 0: `S00001` is the first."""
    return f"S{number + 1:05d}"


def topics_of(quarter: str, number: int) -> list[str]:
    """The topics of a sample firm's call, in the order of its prepared remarks; empty if the call has no content."""
    if (number + 1) % SILENT_EVERY == 0:
        return []
    # A firm keeps its business from quarter to quarter, and one of its topics changes each time.
    lasting = random.Random(f"firm {number}").sample(sorted(TOPICS), TOPICS_PER_FIRM)  # noqa: S311 - not for secrets
    others = sorted(set(TOPICS) - set(lasting))
    lasting[-1] = random.Random(f"firm {number} in {quarter}").choice(others)  # noqa: S311 - not for secrets
    return lasting


def _write_chunk(path: Path, quarter: str, members: range) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in SENTENCE_COLUMNS.items()])
    rows = [row for number in members for row in _rows(quarter, number)]
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return len(rows)


def _rows(quarter: str, number: int) -> Iterator[dict[str, Any]]:
    firm, name, day = firm_id(number), _firm_name(number), _call_date(quarter, number)
    transcript = f"{firm}-{day:%Y%m%d}"
    for position, (speaker, text) in enumerate(_call(quarter, number, name)):
        yield {
            "firm_id": firm,
            "firm_name": name,
            "permno": 90_000 + number,
            "gvkey": f"{number + 1:06d}",
            "transcript_id": transcript,
            "earnings_call_date": day,
            "sentence_id": f"{firm}_{transcript}_{position:04d}",
            "raw_text": text,
            "cleaned_text": " ".join(word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS),
            "speaker_type": speaker,
            "position": position,
            "quarter": quarter,
        }


def _call(quarter: str, number: int, firm_name: str) -> Iterator[_Line]:
    """The lines of one call."""
    dice = random.Random(f"call of firm {number} in {quarter}")  # noqa: S311 - not for secrets
    topics = topics_of(quarter, number)
    for speaker, text in OPENING:
        yield speaker, text.format(firm=firm_name)
    if not topics:
        yield from CLOSING
        return

    # Each of a topic's sentences is used once: most in the prepared remarks, the rest in an answer.
    dealt = {topic: dice.sample(TOPICS[topic], len(TOPICS[topic])) for topic in topics}
    for place, topic in enumerate(topics):
        if place == len(topics) // 2:
            yield HAND_OVER
        for template in dealt[topic][: dice.randint(7, 9)]:
            yield "Executive", _sentence(template, dice)
    for topic in topics:
        yield NEXT_QUESTION
        yield "Analyst", dice.choice(QUESTIONS).format(topic=topic.lower())
        yield THANKS
        for template in dealt[topic][9:]:
            yield "Executive", _sentence(template, dice)
    yield from CLOSING


def _sentence(template: str, dice: random.Random) -> str:
    """Fill in a template's choices and figures."""
    text = _CHOICE.sub(lambda choice: dice.choice(choice[1].split("|")), template)
    text = re.sub(r"\{p\}", lambda _: f"{dice.randint(2, 40)}%", text)
    text = re.sub(r"\{m\}", lambda _: f"${dice.randint(3, 900)} million", text)
    return re.sub(r"\{c\}", lambda _: str(dice.randint(3, 60)), text)


def _firm_name(number: int) -> str:
    """A unique name: two words, and a number once all pairs of words are used."""
    round_, place = divmod(number, len(FIRST_NAMES))
    first, second = FIRST_NAMES[place], SECOND_NAMES[(place + round_) % len(SECOND_NAMES)]
    again = round_ // len(SECOND_NAMES)
    return f"{first} {second}" if again == 0 else f"{first} {second} {again + 1}"


def _call_date(quarter: str, number: int) -> date:
    """A working day in the second or third month of the quarter."""
    start = date(int(quarter[:4]), 3 * int(quarter[-1]) - 1, 1)
    day = start + timedelta(days=number * 7 % 45)
    weekend = day.isoweekday() > 5
    return day + timedelta(days=8 - day.isoweekday()) if weekend else day
