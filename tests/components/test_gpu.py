"""The memory arithmetic, compared with figures that vLLM reported."""

import pytest

from components import gpu
from components.gpu import A10G, L4, L40S, MODELS, T4, Fit


@pytest.mark.parametrize(
    ("model", "parameters", "gib"),
    [
        # Parameters from the model cards, weights from the safetensors indexes.
        ("Qwen/Qwen3-4B", 4_022_468_096, 7.49),
        ("Qwen/Qwen3-8B", 8_190_735_360, 15.26),
        ("Qwen/Qwen3-8B-FP8", 8_190_735_360, 8.79),
        ("Qwen/Qwen3-8B-AWQ", 8_190_735_360, 5.68),
        ("Qwen/Qwen3-14B", 14_768_307_200, 27.51),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, 14.96),
    ],
)
def test_the_size_of_the_weights_is_computed_from_the_architecture(model: str, parameters: int, gib: float) -> None:
    shape = MODELS[model].architecture
    assert shape.layer_parameters + shape.other_parameters == parameters
    assert MODELS[model].weights_gib == pytest.approx(gib, abs=0.005)


def test_kv_bytes_per_token() -> None:
    assert MODELS["Qwen/Qwen3-8B"].architecture.kv_bytes_per_token == 147_456
    assert MODELS["meta-llama/Llama-3.1-8B"].architecture.kv_bytes_per_token == 131_072


@pytest.mark.parametrize(
    ("model", "card", "utilisation", "tokens"),
    [
        # Thousands of tokens with the smallest usable memory of each card, calculated by hand for the decision record.
        ("Qwen/Qwen3-8B", A10G, 0.90, 20.4),
        ("Qwen/Qwen3-8B", A10G, 0.92, 23.6),
        ("Qwen/Qwen3-8B", L4, 0.90, 20.2),
        ("Qwen/Qwen3-8B", L4, 0.92, 23.4),
        ("Qwen/Qwen3-8B", L40S, 0.90, 167),
        ("Qwen/Qwen3-8B", L40S, 0.92, 173),
        ("Qwen/Qwen3-8B-FP8", A10G, 0.90, 67.5),
        ("Qwen/Qwen3-8B-AWQ", A10G, 0.90, 90.1),
    ],
)
def test_the_size_of_the_cache(model: str, card: gpu.Gpu, utilisation: float, tokens: float) -> None:
    assert Fit(MODELS[model], card, utilisation).cache_tokens / 1000 == pytest.approx(tokens, rel=0.005)


def test_the_full_context_of_the_model_is_rejected_on_24_gb_with_the_arithmetic() -> None:
    assert Fit(MODELS["Qwen/Qwen3-8B"], A10G).refusal(40_960) == (
        "the A10G's 22.06 GiB x 0.90 - 15.26 GiB of weights (bf16) - 1.8 GiB of working memory = 2.80 GiB of KV cache, "
        "at 144 KiB a token 20,371 tokens, fewer than the 40,960 of one request of vllmMaxModelLen"
    )
    assert Fit(MODELS["Qwen/Qwen3-8B"], L40S).refusal(40_960) is None
    assert Fit(MODELS["Qwen/Qwen3-8B-FP8"], L4).refusal(40_960) is None


def test_weights_larger_than_the_gpu_are_rejected() -> None:
    refusal = Fit(MODELS["Qwen/Qwen3-14B"], L4).refusal(1024)
    assert refusal
    assert "leaves no KV cache" in refusal


def test_fp8_weights_need_a_newer_gpu_than_the_t4() -> None:
    refusal = Fit(MODELS["Qwen/Qwen3-4B-FP8"], T4).refusal(1024)
    assert refusal
    assert "compute capability 8.0" in refusal
    assert Fit(MODELS["Qwen/Qwen3-4B-AWQ"], T4).refusal(4096) is None


def test_concurrent_requests_fill_the_cache_but_do_not_exceed_it() -> None:
    fit = Fit(MODELS["Qwen/Qwen3-8B"], A10G)
    assert fit.requests_at_once(1024) == 19
    assert fit.requests_at_once(1024) * 1024 <= fit.cache_tokens < (fit.requests_at_once(1024) + 1) * 1024
