"""vLLM's memory arithmetic, by which `pulumi preview` refuses a model that does not fit the GPU.

vLLM takes a share of the GPU's memory for weights, working memory and the KV cache. The KV cache's size in tokens
determines how many requests run at once.
"""

from dataclasses import dataclass
from math import floor

GIB = 2**30

MEMORY_UTILISATION = 0.90
"""vLLM's share of the GPU's memory (`--gpu-memory-utilization`). The default of 0.92 leaves a smaller reserve."""

WORKING_GIB = 1.8
"""An allowance for activations, CUDA graphs and the CUDA context; docs/adr/0002 has the resulting table."""

KV_BYTES = 2
"""The KV cache is 16-bit for every precision of the weights, as `--kv-cache-dtype` is not given."""

ECS_SHARE_OF_HOST = 0.94
"""The share of an instance's memory that ECS can place; kernel and agent use the rest."""


@dataclass(frozen=True)
class Architecture:
    """A model's dimensions, from its `config.json` on the Hugging Face hub."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    tied_embeddings: bool = False
    normed_heads: bool = True
    """Whether each head's query and key are normalised, as in Qwen3 but not in Llama."""

    @property
    def layer_parameters(self) -> int:
        """Parameters of all linear layers, which quantisation makes smaller."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def other_parameters(self) -> int:
        """Embeddings and norms, which stay 16-bit in every precision."""
        embeddings = (1 if self.tied_embeddings else 2) * self.vocabulary * self.hidden
        norms = self.layers * (2 * self.hidden + (2 * self.head_dim if self.normed_heads else 0)) + self.hidden
        return embeddings + norms

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES


@dataclass(frozen=True)
class Precision:
    """How the weights of linear layers are stored."""

    name: str
    bytes_per_weight: float


BF16 = Precision("bf16", 2)
FP8 = Precision("FP8", 1)
"""One byte per weight; block scales add less than 0.1 %."""
AWQ = Precision("AWQ", 0.5 + 2.5 / 128)
"""Four bits per weight, and for each group of 128 a 16-bit scale and a 4-bit zero (from the checkpoint's config)."""


@dataclass(frozen=True)
class Model:
    architecture: Architecture
    precision: Precision

    @property
    def weights_gib(self) -> float:
        layers = self.architecture.layer_parameters * self.precision.bytes_per_weight
        return (layers + self.architecture.other_parameters * 2) / GIB


@dataclass(frozen=True)
class Gpu:
    name: str
    usable_gib: float
    """Total memory as CUDA reports it, which is less than in the data sheet; the smallest value observed."""
    bf16: bool = True
    """Compute capability 8.0 or later. Earlier GPUs need `--dtype half`, and vLLM has no FP8 kernel for them."""


@dataclass(frozen=True)
class Instance:
    gpu: Gpu
    host_gib: int


# config.json of Qwen/Qwen3-8B, Qwen/Qwen3-4B, Qwen/Qwen3-14B and meta-llama/Llama-3.1-8B on the Hugging Face hub.
_QWEN3_4B = Architecture(36, 2560, 32, 8, 128, 9728, 151_936, tied_embeddings=True)
_QWEN3_8B = Architecture(36, 4096, 32, 8, 128, 12_288, 151_936)
_QWEN3_14B = Architecture(40, 5120, 40, 8, 128, 17_408, 151_936)
_LLAMA_31_8B = Architecture(32, 4096, 32, 8, 128, 14_336, 128_256, normed_heads=False)

MODELS = {
    "Qwen/Qwen3-4B": Model(_QWEN3_4B, BF16),
    "Qwen/Qwen3-4B-FP8": Model(_QWEN3_4B, FP8),
    "Qwen/Qwen3-4B-AWQ": Model(_QWEN3_4B, AWQ),
    "Qwen/Qwen3-8B": Model(_QWEN3_8B, BF16),
    "Qwen/Qwen3-8B-FP8": Model(_QWEN3_8B, FP8),
    "Qwen/Qwen3-8B-AWQ": Model(_QWEN3_8B, AWQ),
    "Qwen/Qwen3-14B": Model(_QWEN3_14B, BF16),
    "Qwen/Qwen3-14B-FP8": Model(_QWEN3_14B, FP8),
    "Qwen/Qwen3-14B-AWQ": Model(_QWEN3_14B, AWQ),
    "meta-llama/Llama-3.1-8B": Model(_LLAMA_31_8B, BF16),
    "meta-llama/Llama-3.1-8B-Instruct": Model(_LLAMA_31_8B, BF16),
}

# torch.cuda.get_device_properties().total_memory of these cards, from vLLM's logs.
T4 = Gpu("T4", 14.56, bf16=False)
A10G = Gpu("A10G", 22.06)
L4 = Gpu("L4", 22.03)
L40S = Gpu("L40S", 44.39)

# Families by GPU, and host memory in GiB by size, from AWS's instance type pages. Sizes with several GPUs are left out:
# the task uses one GPU, and the others would be paid for and idle.
_FAMILIES = {
    "g4dn": (T4, {"xlarge": 16, "2xlarge": 32, "4xlarge": 64, "8xlarge": 128, "16xlarge": 256}),
    "g5": (A10G, {"xlarge": 16, "2xlarge": 32, "4xlarge": 64, "8xlarge": 128, "16xlarge": 256}),
    "g6": (L4, {"xlarge": 16, "2xlarge": 32, "4xlarge": 64, "8xlarge": 128, "16xlarge": 256}),
    "g6e": (L40S, {"xlarge": 32, "2xlarge": 64, "4xlarge": 128, "8xlarge": 256, "16xlarge": 512}),
}
INSTANCES = {
    f"{family}.{size}": Instance(gpu, host_gib)
    for family, (gpu, sizes) in _FAMILIES.items()
    for size, host_gib in sizes.items()
}


@dataclass(frozen=True)
class Fit:
    """A model in a GPU's memory."""

    model: Model
    gpu: Gpu
    utilisation: float = MEMORY_UTILISATION

    @property
    def cache_gib(self) -> float:
        """Memory left for the KV cache; negative when the weights alone are too large."""
        return self.gpu.usable_gib * self.utilisation - self.model.weights_gib - WORKING_GIB

    @property
    def cache_tokens(self) -> int:
        return max(0, floor(self.cache_gib * GIB / self.model.architecture.kv_bytes_per_token))

    def requests_at_once(self, tokens_per_request: int) -> int:
        return self.cache_tokens // tokens_per_request

    def refusal(self, max_model_len: int) -> str | None:
        """Why vLLM would not start, with the arithmetic in one sentence; None if it starts."""
        if self.model.precision is FP8 and not self.gpu.bf16:
            return f"FP8 weights need a GPU of compute capability 8.0 or later, which the {self.gpu.name} is not"
        memory = (
            f"the {self.gpu.name}'s {self.gpu.usable_gib:.2f} GiB x {self.utilisation:.2f} "
            f"- {self.model.weights_gib:.2f} GiB of weights ({self.model.precision.name}) "
            f"- {WORKING_GIB} GiB of working memory = {self.cache_gib:.2f} GiB"
        )
        if self.cache_gib <= 0:
            return f"{memory}, which leaves no KV cache"
        if self.cache_tokens < max_model_len:
            kib = self.model.architecture.kv_bytes_per_token / 1024
            return (
                f"{memory} of KV cache, at {kib:.0f} KiB a token {self.cache_tokens:,} tokens, "
                f"fewer than the {max_model_len:,} of one request of vllmMaxModelLen"
            )
        return None
