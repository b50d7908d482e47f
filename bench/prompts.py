"""Counts the prompt tokens per topic with Qwen's vocabulary, for the worker's prompt and the reference's.

dashscope contains the tokenizer of the first Qwen. Qwen3 has the same 151,643 byte pairs and splits text in the same
way; only `<think>` and `</think>`, of the chat template, are tokens only in Qwen3.
"""

from importlib.util import find_spec
from typing import Any

from bench.topics import SHOWN, showing
from worker.firm import Firm, Topic
from worker.naming.prompt import INSTRUCTIONS, prompt
from worker.topics.discovery import SHOWN as SHOWN_BY_WORKER

REFERENCE_SENTENCES = 50
"""The maximum number of sentences in the reference's prompt, which repeats its instructions after them."""

CACHE_BLOCK = 16
"""The prefix cache of vLLM stores whole blocks of this many tokens."""

# Qwen3's chat template for a system and a user message, from its tokenizer_config.json.
_TEMPLATE = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_NO_THINKING = 4
"""Tokens at the end of the template without thinking: <think>, an empty line, </think>, an empty line."""


def available() -> bool:
    return find_spec("dashscope") is not None and find_spec("tiktoken") is not None


def tokens(firms: list[Firm]) -> list[dict[str, Any]]:
    """Prompt tokens per topic, and those after the common prefix of all prompts, which vLLM caches."""
    found = {count: showing(firms, count) for count in SHOWN}
    prompts = {_name(count): [prompt(topic) for _, topic in found[count]] for count in SHOWN}
    prompts["reference"] = [_reference_prompt(firm, topic) for firm, topic in found[SHOWN_BY_WORKER]]
    counted = {name: _count(asked) for name, asked in prompts.items()}
    return [
        {
            "prompt": name,
            "topics": len(prompts[name]),
            "tokens/topic": round(every),
            "uncached/topic": round(uncached),
            "uncached, of the reference's": round(uncached / counted["reference"][1], 3),
        }
        for name, (every, uncached) in counted.items()
    ]


def _name(count: int) -> str:
    return "all sentences" if count == max(SHOWN) else f"{count} sentences"


def _count(prompts: list[list[dict[str, str]]]) -> tuple[float, float]:
    """The mean number of tokens of a prompt, and of those that are not cached."""
    from dashscope.tokenizers import get_tokenizer  # pyright: ignore[reportMissingImports]

    encode = get_tokenizer("qwen-turbo").encode
    encoded = [encode(_TEMPLATE.format(system["content"], user["content"])) for system, user in prompts]
    every = sum(map(len, encoded)) / len(encoded) + _NO_THINKING
    shared = next((n for n, tokens in enumerate(zip(*encoded, strict=False)) if len(set(tokens)) > 1), 0)
    return every, every - shared // CACHE_BLOCK * CACHE_BLOCK


def _reference_prompt(firm: Firm, topic: Topic) -> list[dict[str, str]]:
    text_of = {sentence.sentence_id: sentence.raw_text for sentence in firm.sentences}
    shown = "\n".join(f"- {text_of[sentence_id]}" for sentence_id in topic.sentence_ids[:REFERENCE_SENTENCES])
    user = f"Keywords: {', '.join(topic.keywords)}\n\nSentences:\n{shown}\n\n{INSTRUCTIONS}"
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": user}]
