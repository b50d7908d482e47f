"""Generates docs/configuration.md from the settings.

`python -m components.configuration_page > docs/configuration.md` writes it again.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

from components.setting_types import Change
from components.settings import KEYS, SECTIONS, Section

INTRODUCTION = """\
# Configuration

The keys of a stack's config, `Pulumi.<stack>.yaml`, each with the prefix `ftm:`. `Pulumi.prod.yaml` is a commented
example. A value that is wrong, or that the account cannot fulfil, stops `pulumi preview` with a sentence that names the
key and what is allowed, before anything is created.

This page is generated: `python -m components.configuration_page > docs/configuration.md`.

## Setting a value

Edit `Pulumi.<stack>.yaml`, or use Pulumi's CLI:

| kind of key | command |
|---|---|
| text, number, true or false | `pulumi config set ftm:mapConcurrency 10` |
| list: one command for each item | `pulumi config set --path 'ftm:vllmInstanceTypes[0]' g6e.xlarge` |
| ARN of a secret ({secrets}) | `pulumi config set --plaintext ftm:llmApiKeySecretArn arn:aws:secretsmanager:...` |
| back to the default | `pulumi config rm ftm:mapConcurrency` |

The CLI takes a key with "secret" in its name for a secret itself, and refuses it in plain text without `--plaintext`.
The secret stays in Secrets Manager; its ARN may be read by anybody.

## What a change does

The last column says what happens to a deployed stack when the key changes and `pulumi up` is run:

- **{in_place}**: AWS changes the resource, and nothing is interrupted.
- **{restarts}**: a new task replaces the running one, if vLLM is scaled above zero. Jobs wait for it, and continue.
- **{next_run}**: jobs and executions that have started keep the old value. Batches that a run starts after the
  deployment already use the new one.
- **{refused}**: the preview stops with the steps to take, and nothing changes.
"""


def document() -> str:
    """The text of docs/configuration.md."""
    introduction = INTRODUCTION.format(
        secrets=", ".join(f"`{key}`" for key in KEYS if "Secret" in key),
        in_place=Change.IN_PLACE,
        restarts=Change.RESTARTS_VLLM,
        next_run=Change.NEXT_RUN,
        refused=Change.REFUSED,
    )
    return "\n".join([introduction, *(line for section in SECTIONS.values() for line in _section(section))])


def _section(section: type[Section]) -> Iterator[str]:
    yield f"## {(section.__doc__ or '').strip().removesuffix('.')}"
    yield ""
    yield "| key | type | default | what it is for | what changing it does |"
    yield "|---|---|---|---|---|"
    properties = cast(dict[str, dict[str, Any]], section.model_json_schema()["properties"])
    for key in section.config_keys():
        schema = properties[key]
        default = "" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"
        change = f"{schema['change']} ({schema['note']})" if schema["note"] else schema["change"]
        yield f"| `{key}` | {_kind(schema)} | {default} | {schema['description']} | {change} |"
    yield ""


def _kind(schema: dict[str, Any]) -> str:
    """The type in words, with its limits."""
    variants = cast(list[dict[str, Any]], schema.get("anyOf", [schema]))
    (variant,) = [one for one in variants if one["type"] != "null"]
    words = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list"}
    limits = [f"{word} {variant[name]}" for name, word in (("minimum", "from"), ("maximum", "to")) if name in variant]
    return " ".join([words[variant["type"]], *limits])


if __name__ == "__main__":
    print(document(), end="")
