"""A themes run: where its objects are in the bucket, and its record, which is both checkpoint and result."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

from contract import ContractError
from contract.fallbacks import Fallback, parse_fallbacks

State = Literal["running", "complete", "failed"]

_RUN_KEY = re.compile(r"themes/([^/]+)/run=(\d{8}_\d{6})/")


@dataclass(frozen=True)
class ThemesRef:
    """One themes run."""

    range: str
    """A quarter, or a range such as `2021Q2..2021Q4`."""
    run: str
    """The id of the themes run, such as `20230405_101500`."""

    @property
    def prefix(self) -> str:
        return f"{themes_prefix(self.range)}run={self.run}/"

    @property
    def themes_key(self) -> str:
        """One row per theme."""
        return f"{self.prefix}themes.parquet"

    @property
    def theme_topics_key(self) -> str:
        """One row per topic that is in a theme."""
        return f"{self.prefix}theme_topics.parquet"

    @property
    def record_key(self) -> str:
        return f"{self.prefix}record.json"


def themes_prefix(range_: str) -> str:
    """The common prefix of the keys of a range's themes runs."""
    return f"themes/{range_}/"


def themes_runs(keys: Iterable[str]) -> set[tuple[str, str]]:
    """Range and id of the themes runs that these keys belong to."""
    return {(match[1], match[2]) for key in keys if (match := _RUN_KEY.match(key))}


class ThemeName(TypedDict):
    """The name and summary that the LLM gave a theme."""

    name: str
    summary: str
    model: str


@dataclass
class ThemesRecord:
    """`themes/{range}/run={run}/record.json`."""

    ref: ThemesRef
    quarter_runs: dict[str, str]
    """Quarter to the run whose topics were clustered."""
    state: State = "running"
    error: str = ""
    topics: int = 0
    """Topics of these runs."""
    themes: int = 0
    names: dict[str, ThemeName] = field(default_factory=dict[str, ThemeName])
    """Names by the LLM, by what identifies a theme: a hash of its topics."""
    fallbacks: dict[str, Fallback] = field(default_factory=dict[str, Fallback])
    """Why the other themes have their keywords instead of a name."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    updated_at: str = ""

    def to_json(self) -> bytes:
        record = {
            "range": self.ref.range,
            "run": self.ref.run,
            "quarter_runs": self.quarter_runs,
            "state": self.state,
            "error": self.error,
            "topics": self.topics,
            "themes": self.themes,
            "names": self.names,
            "fallbacks": {kind: vars(fallback) for kind, fallback in self.fallbacks.items()},
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "updated_at": self.updated_at,
        }
        return json.dumps(record, ensure_ascii=False).encode()


def parse_themes_record(body: bytes) -> ThemesRecord:
    """Read the record of a themes run.

    Raises:
        ContractError: when it is anything else.
    """
    try:
        record = json.loads(body)
        state = record["state"]
        if state not in ("running", "complete", "failed"):
            raise ValueError(f"state is {state!r}")
        return ThemesRecord(
            ref=ThemesRef(str(record["range"]), str(record["run"])),
            quarter_runs={str(quarter): str(run) for quarter, run in record["quarter_runs"].items()},
            state=state,
            error=str(record["error"]),
            topics=int(record["topics"]),
            themes=int(record["themes"]),
            names={key: _name(name) for key, name in record["names"].items()},
            fallbacks=parse_fallbacks(record["fallbacks"]),
            prompt_tokens=int(record["tokens"]["prompt"]),
            completion_tokens=int(record["tokens"]["completion"]),
            updated_at=str(record["updated_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(f"the themes record is not one of ftm's: {type(error).__name__}: {error}") from error


def _name(record: Mapping[str, Any]) -> ThemeName:
    return cast(ThemeName, {key: str(record[key]) for key in ThemeName.__annotations__})
