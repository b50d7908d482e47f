"""Builds a tiny Qwen3 with random weights, its tokenizer and its chat template, in a folder.

Run it with vLLM's interpreter: `python tiny_qwen3.py FOLDER`. Its answers are meaningless, but vLLM serves it like
Qwen3-8B: it has the same architecture and the same template with its option for thinking.
"""

import sys
from pathlib import Path

# Installed only in vLLM's environment.
import torch  # pyright: ignore[reportMissingImports]
from tokenizers import (  # pyright: ignore[reportMissingImports]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # pyright: ignore[reportMissingImports]
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 2048
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
TEXT = """
You name topics found in earnings calls, for a financial researcher who compares many companies. Answer with a JSON
object of two strings, name and summary. Revenue, gross margin, operating expenses, free cash flow, net interest income,
backlog, bookings, freight, inflation, currency, pricing, volume, capacity, inventory, customers, suppliers, regulation,
clinical trials, drilling, crude oil prices, dividend, repurchase, acquisition, integration, guidance, headwinds.
"""


def build(folder: Path) -> None:
    """Write the model, about a megabyte."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    _speak_ascii(model, tokenizer)
    model.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.add_tokens([f"<|unused_{n}|>" for n in range(VOCABULARY - tokenizer.get_vocab_size())])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _speak_ascii(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Without this, random bytes would form letters of three tokens each, and answers longer than any limit."""
    with torch.no_grad():
        for token in range(VOCABULARY):
            text = tokenizer.decode([token])
            if not all((character.isalpha() and character.isascii()) or character in ' "' for character in text):
                model.lm_head.weight[token] = 0


if __name__ == "__main__":
    build(Path(sys.argv[1]))
