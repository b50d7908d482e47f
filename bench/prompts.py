"""What a name costs in prompt tokens, counted by Qwen's own vocabulary: the worker's prompt beside the reference's.

dashscope carries the byte pairs of the first Qwen, with its tokenizer: those of Qwen3 are the same 151,643, and split
text alike. Only `<think>` and `</think>`, of the chat template, are tokens in Qwen3 alone.
"""

from importlib.util import find_spec
from typing import Any

from bench.topics import SHOWN, showing
from worker.firm import Firm, Topic
from worker.naming.prompt import INSTRUCTIONS, prompt
from worker.topics.discovery import SHOWN as SHOWN_BY_WORKER

REFERENCE_SENTENCES = 50
"""The reference shows up to so many sentences, and repeats its instructions after them."""

CACHE_BLOCK = 16
"""vLLM's prefix cache knows whole blocks of so many tokens."""

# Qwen3's chat template, as its tokenizer_config.json has it for a system's and a user's message.
_TEMPLATE = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_NO_THINKING = 4
"""Tokens by which the template ends with thinking off: <think>, an empty line, </think>, an empty line."""


def available() -> bool:
    return find_spec("dashscope") is not None and find_spec("tiktoken") is not None


def tokens(firms: list[Firm]) -> list[dict[str, Any]]:
    """Prompt tokens a topic, and those of them that come after what all prompts share, which vLLM computes once."""
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
    """Mean tokens of a prompt, and of what the cache does not hold of it."""
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
