"""The stack's config as one typed, validated model.

An empty string, an empty list and 0 stand for "not given".
`python -m components.settings` prints docs/configuration.md.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from components import gpu
from components.naming import fit
from contract import resource_names as names
from contract.run import DEFAULT_MIN_NAMED_SHARE

LOG_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653)
"""Days that CloudWatch Logs offers."""


class SettingsError(ValueError):
    """A setting that cannot be, in one sentence for a person."""


def _matching(pattern: str, allowed: str) -> AfterValidator:
    """Accept "" and what `pattern` matches; `allowed` says in words what that is."""

    def check(value: str) -> str:
        if value and not re.fullmatch(pattern, value):
            raise ValueError(f"it should be {allowed}")
        return value

    return AfterValidator(check)


def _each(check: AfterValidator) -> AfterValidator:
    return AfterValidator(lambda values: [cast(Callable[[str], str], check.func)(value) for value in values])


def _parse_list(value: object) -> object:
    """Pulumi hands an array over as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it should be a list") from None


def _arn(service: str, resource: str, example: str) -> AfterValidator:
    return _matching(
        rf"arn:aws[a-z-]*:{service}:[a-z0-9-]*:\d{{12}}:{resource}",
        f"an ARN such as arn:aws:{example}",
    )


_ROLE = _arn("iam", r"role/[\w+=,.@/-]+", "iam::123456789012:role/name")
_PROFILE = _arn("iam", r"instance-profile/[\w+=,.@/-]+", "iam::123456789012:instance-profile/name")
_SECRET = _arn("secretsmanager", r"secret:.+", "secretsmanager:us-east-1:123456789012:secret:name-AbCdEf")
_BUCKET_NAME = _matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket")
_INSTANCE_TYPE = _matching(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)?", "instance types or families, such as g6.xlarge or m7i")

_STACK_NAME = "lower-case letters and digits in words separated by single hyphens, at most 64 characters"

RoleArn = Annotated[str, _ROLE]
ProfileArn = Annotated[str, _PROFILE]
SecretArn = Annotated[str, _SECRET]
BucketName = Annotated[str, _BUCKET_NAME]
InstanceTypes = Annotated[list[str], BeforeValidator(_parse_list), _each(_INSTANCE_TYPE)]
SubnetIds = Annotated[list[str], BeforeValidator(_parse_list), _each(_matching(r"subnet-[0-9a-f]+", "ids of subnets"))]


class Settings(BaseModel):
    """One stack's settings. Each field is a key of the project `ftm` in camelCase; its description is its manual."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    stack: Annotated[str, _matching(r"(?=.{1,64}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", _STACK_NAME)] = Field(exclude=True)

    # The run
    map_concurrency: int = Field(5, ge=1, le=40, description="Batches of a quarter that run at once.")
    checkpoint_interval: int = Field(25, ge=1, le=10_000, description="Firms between two checkpoints of a batch.")
    min_named_percent: int = Field(
        round(DEFAULT_MIN_NAMED_SHARE * 100),
        ge=0,
        le=100,
        description="A run fails when the LLM named a smaller share of its topics.",
    )

    # vLLM
    vllm_enabled: bool = Field(
        True, description="Run vLLM; without it the worker calls the hosted API with the key of llmApiKeySecretArn."
    )
    vllm_model: str = Field("Qwen/Qwen3-8B", min_length=1, description="The model's id on the Hugging Face hub.")
    vllm_served_model_name: str = Field("", description="The name that requests use. Not given: vllmModel.")
    vllm_image: Annotated[
        str, _matching(r"\S+(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})", "an image with a version or a digest")
    ] = Field("vllm/vllm-openai:v0.32.0", min_length=1, description="vLLM's image, pinned to a version or a digest.")
    vllm_instance_types: InstanceTypes = Field(
        ["g6.xlarge", "g5.xlarge", "g6.2xlarge", "g5.2xlarge"],
        min_length=1,
        description="GPU instance types in order of preference. The model must fit the smallest GPU among them.",
    )
    vllm_min_instances: int = Field(0, ge=0, le=20, description="GPU instances that always run.")
    vllm_max_instances: int = Field(2, ge=1, le=20, description="The most that `ftm vllm scale` may ask for.")
    vllm_on_demand_instances: int = Field(
        0, ge=0, le=20, description="The first so many GPU instances are on-demand ones, which are not interrupted."
    )
    vllm_root_volume_gib: int = Field(
        120, ge=80, le=1000, description="The GPU instances' disk: system, image (about 25 GiB) and model."
    )
    vllm_memory_mib: int = Field(
        0, ge=0, description="The container's memory. Not given: the smallest host's, less 2 GiB for the system."
    )
    vllm_max_model_len: int = Field(
        4096, ge=512, le=131_072, description="Tokens of the longest prompt and its answer together."
    )
    vllm_tokens_per_request: int = Field(
        1024, ge=128, le=131_072, description="Tokens of a usual prompt and its answer: what concurrency is sized by."
    )
    vllm_max_num_seqs: int = Field(
        0, ge=0, le=1024, description="Requests that vLLM works on at once. Not given: what the KV cache holds."
    )
    vllm_certificate_arn: Annotated[
        str, _arn("acm", r"certificate/[\w-]+", "acm:us-east-1:123456789012:certificate/1234abcd-...")
    ] = Field("", description="An ACM certificate: the load balancer then speaks HTTPS only.")
    vllm_hostname: Annotated[str, _matching(r"[a-z0-9-]+(\.[a-z0-9-]+)+", "a DNS name")] = Field(
        "", description="The certificate's name; point it at the load balancer with a DNS alias."
    )
    llm_max_concurrent: int = Field(
        0, ge=0, le=1024, description="Requests in flight from one batch. Not given: the KV cache's share of one batch."
    )
    llm_api_key_secret_arn: SecretArn = Field(
        "", description="A secret whose value is the LLM's API key; vLLM then asks for it, and the worker sends it."
    )
    hugging_face_token_secret_arn: SecretArn = Field(
        "", description="A secret whose value is a Hugging Face token, for a model that asks for one."
    )

    # Batch
    batch_instance_types: InstanceTypes = Field(
        ["c7i", "c7a", "c6i", "c6a", "m7i", "m7a", "m6i", "m6a"],
        min_length=1,
        description="Instance families or types of the batch jobs; the more, the rarer an interruption.",
    )
    topic_embedding_model: str = Field(
        "",
        description="A sentence-transformers model, such as all-MiniLM-L6-v2, that finds topics in the place of LSA; "
        "the worker's image then needs the extra `embeddings`.",
    )
    batch_gpus: int = Field(0, ge=0, le=1, description="GPUs of a batch job: 1 where an embedding model is used.")
    batch_vcpus: int = Field(2, ge=1, le=96, description="vCPUs of a batch job.")
    batch_memory_mib: int = Field(3500, ge=512, le=393_216, description="Memory of a batch job.")
    batch_max_vcpus: int = Field(32, ge=1, le=5000, description="vCPUs that all batch jobs may take together.")
    batch_timeout_hours: int = Field(12, ge=1, le=168, description="An attempt of a batch job is ended after this.")
    worker_image_tag: Annotated[str, _matching(r"[\w][\w.-]{0,127}", "an image tag")] = Field(
        "v1", min_length=1, description="The tag that `make push` gave the worker's image in the stack's repository."
    )

    # Things that exist already, and are used instead of being created
    bucket_name: BucketName = Field("", description="An existing bucket of this account and region.")
    vpc_id: Annotated[str, _matching(r"vpc-[0-9a-f]+", "a VPC's id")] = Field(
        "", description="An existing VPC. Not given: the account's default VPC."
    )
    subnet_ids: SubnetIds = Field(
        [], description="Subnets of vpcId with a way out to the internet, in two availability zones at least."
    )
    worker_image: Annotated[str, _matching(r"\S+", "an image's URI")] = Field(
        "", description="An existing worker image by URI; no repository is created then."
    )
    sns_topic_arn: Annotated[str, _arn("sns", r"[\w-]+", "sns:us-east-1:123456789012:topic")] = Field(
        "", description="An existing SNS topic that is told how each run ended."
    )
    kms_key_arn: Annotated[str, _arn("kms", r"key/[\w-]+", "kms:us-east-1:123456789012:key/1234abcd-...")] = Field(
        "",
        description="An existing KMS key for the bucket, the logs, the repository and the functions' environment; "
        "its policy must admit CloudWatch Logs. Not given: AWS's own keys.",
    )
    access_logs_bucket: BucketName = Field(
        "", description="An existing bucket for the access logs of the load balancer and of the bucket."
    )
    vllm_instance_profile_arn: ProfileArn = Field("", description="The GPU instances' profile.")
    vllm_execution_role_arn: RoleArn = Field("", description="ECS's role to start vLLM.")
    batch_instance_profile_arn: ProfileArn = Field("", description="The batch instances' profile.")
    batch_execution_role_arn: RoleArn = Field("", description="ECS's role to start batch jobs.")
    batch_job_role_arn: RoleArn = Field("", description="The worker's own role.")
    functions_role_arn: RoleArn = Field("", description="The four functions' role.")
    state_machine_role_arn: RoleArn = Field("", description="The state machine's role.")

    # The house's rules
    log_retention_days: int = Field(365, description=f"Days that logs are kept, one of {LOG_RETENTIONS}.")
    deletion_protection: bool = Field(
        False, description="Protect bucket and load balancer from deletion; `pulumi destroy` leaves the bucket's data."
    )

    @classmethod
    def load(cls, stack: str, read: Callable[[str], str | None], given: Iterable[str] = ()) -> Self:
        """Read the settings of `stack`.

        Args:
            read: Gives a key's value as Pulumi keeps it, or None.
            given: All keys of the stack's config, such as `ftm:vllmModel`, so that a mistyped one is noticed.

        Raises:
            SettingsError: naming each wrong key, its value and what is allowed.
        """
        known = {f"{names.PROJECT}:{key}" for key in cls.config_keys()}
        for key in given:
            if key.startswith(f"{names.PROJECT}:") and key not in known:
                (near, *_) = [*get_close_matches(key, known, n=1), "docs/configuration.md"]
                raise SettingsError(f"{key} is not a setting: see {near}")
        raw = {key: value for key in cls.config_keys() if (value := read(key)) is not None}
        try:
            return cls.model_validate({"stack": stack, **raw})
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from None

    @classmethod
    def config_keys(cls) -> list[str]:
        """The keys that a stack's config may hold, without their prefix `ftm:`."""
        return [to_camel(name) for name in cls.model_fields if name != "stack"]

    @property
    def prefix(self) -> str:
        return names.prefix(self.stack)

    def name(self, rest: str, limit: int = 64) -> str:
        """The name of a resource of this stack: `ftm-vllm-alb`, shortened where AWS allows only `limit` characters."""
        return fit(f"{self.prefix}-{rest}", limit)

    @property
    def tags(self) -> dict[str, str]:
        return {"Project": names.PROJECT, "Stack": self.stack, "ManagedBy": "pulumi"}

    @property
    def min_named_share(self) -> float:
        return self.min_named_percent / 100

    @property
    def served_model_name(self) -> str:
        return self.vllm_served_model_name or self.vllm_model

    @property
    def vllm_container_mib(self) -> int:
        smallest_host = min(gpu.INSTANCES[kind].host_gib for kind in self.vllm_instance_types)
        return self.vllm_memory_mib or (smallest_host - 2) * 1024

    @property
    def vllm_needs_half(self) -> bool:
        """Whether a GPU of the group cannot compute in bf16."""
        return not all(gpu.INSTANCES[kind].gpu.bf16 for kind in self.vllm_instance_types)

    @cached_property
    def vllm_fit(self) -> gpu.Fit | None:
        """The model in the group's smallest GPU; None when the model is unknown."""
        model = gpu.MODELS.get(self.vllm_model)
        if model is None:
            return None
        smallest = min((gpu.INSTANCES[kind].gpu for kind in self.vllm_instance_types), key=lambda card: card.usable_gib)
        return gpu.Fit(model, smallest)

    @property
    def vllm_seqs(self) -> int:
        """Requests that vLLM works on at once: `--max-num-seqs`."""
        if self.vllm_max_num_seqs:
            return self.vllm_max_num_seqs
        # An unknown model gets what one of the smallest known fits holds; a guess, and said to be one by `warnings`.
        return self.vllm_fit.requests_at_once(self.vllm_tokens_per_request) if self.vllm_fit else 16

    @property
    def llm_concurrency(self) -> int:
        """Requests in flight from one batch: all batches together send what the KV cache holds, and no more."""
        return self.llm_max_concurrent or max(1, self.vllm_seqs // self.map_concurrency)

    def warnings(self) -> list[str]:
        """What is allowed, and yet worth a second look."""
        found: list[str] = []
        if self.vllm_enabled and self.vllm_fit is None:
            found.append(
                f"ftm:vllmModel {self.vllm_model!r} is not a model whose memory ftm knows: "
                f"whether it fits {', '.join(self.vllm_instance_types)} shows when vLLM starts"
            )
        if not self.vllm_enabled and not self.llm_api_key_secret_arn:
            found.append("ftm:vllmEnabled is false and ftm:llmApiKeySecretArn is not given: the hosted API needs a key")
        if self.batch_max_vcpus < self.map_concurrency * self.batch_vcpus:
            found.append(
                f"ftm:batchMaxVcpus {self.batch_max_vcpus} holds fewer than the ftm:mapConcurrency "
                f"{self.map_concurrency} jobs of {self.batch_vcpus} vCPUs: the others wait in the queue"
            )
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._check_run(), *self._check_network()]
        if self.vllm_enabled:
            problems += self._check_vllm()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _check_run(self) -> list[str]:
        problems: list[str] = []
        if self.log_retention_days not in LOG_RETENTIONS:
            problems.append(f"ftm:logRetentionDays is {self.log_retention_days}: it should be one of {LOG_RETENTIONS}")
        if self.batch_max_vcpus < self.batch_vcpus:
            problems.append(
                f"ftm:batchMaxVcpus is {self.batch_max_vcpus}: it should be at least the "
                f"ftm:batchVcpus of one job, {self.batch_vcpus}"
            )
        if self.batch_gpus:
            without = [kind for kind in self.batch_instance_types if not re.match(r"(g\d|gr\d|p\d)", kind)]
            if without:
                problems.append(
                    f"ftm:batchInstanceTypes holds {', '.join(without)}, without a GPU, but ftm:batchGpus is 1: "
                    "it should hold GPU families only, such as g4dn, g5, g6"
                )
        return problems

    def _check_network(self) -> list[str]:
        if bool(self.vpc_id) != bool(self.subnet_ids):
            return ["ftm:vpcId and ftm:subnetIds belong together: give both, or neither for the default VPC"]
        return []

    def _check_vllm(self) -> list[str]:
        problems: list[str] = []
        if bool(self.vllm_certificate_arn) != bool(self.vllm_hostname):
            problems.append("ftm:vllmCertificateArn and ftm:vllmHostname belong together: HTTPS needs both")
        for key, value in (
            ("vllmMinInstances", self.vllm_min_instances),
            ("vllmOnDemandInstances", self.vllm_on_demand_instances),
        ):
            if value > self.vllm_max_instances:
                problems.append(
                    f"ftm:{key} is {value}: it should be at most ftm:vllmMaxInstances, {self.vllm_max_instances}"
                )
        unknown = [kind for kind in self.vllm_instance_types if kind not in gpu.INSTANCES]
        if unknown:
            problems.append(
                f"ftm:vllmInstanceTypes holds {', '.join(unknown)}: each should have one GPU that ftm knows, "
                f"such as g4dn.xlarge, g5.xlarge, g6.xlarge or g6e.xlarge"
            )
            return problems
        if self.vllm_fit and (refusal := self.vllm_fit.refusal(self.vllm_max_model_len)):
            problems.append(
                f"ftm:vllmModel {self.vllm_model} does not fit {', '.join(self.vllm_instance_types)}: {refusal}"
            )
        elif self.vllm_seqs < 1:
            problems.append(
                f"ftm:vllmTokensPerRequest is {self.vllm_tokens_per_request}: it should be at most the "
                f"{self.vllm_fit.cache_tokens if self.vllm_fit else 0} tokens that the KV cache holds"
            )
        smallest_host = min(gpu.INSTANCES[kind].host_gib for kind in self.vllm_instance_types)
        most = int(smallest_host * 1024 * gpu.ECS_SHARE_OF_HOST)
        if self.vllm_container_mib > most:
            problems.append(
                f"ftm:vllmMemoryMib is {self.vllm_container_mib}: it should be at most {most}, "
                f"what ECS can place on the smallest host's {smallest_host} GiB"
            )
        return problems


def _sentence(detail: ErrorDetails) -> str:
    message = re.sub(r"^(Input|String|List) should", "it should", detail["msg"].removeprefix("Value error, "))
    if not detail["loc"]:
        return message
    key, value = str(detail["loc"][0]), detail["input"]
    where = "the stack's name" if key == "stack" else f"ftm:{key}"
    return f"{where} is {value!r}: {message}"


def document() -> str:
    """docs/configuration.md: every key, from the model."""
    lines = [
        "# Configuration",
        "",
        "The keys of a stack's config, `Pulumi.<stack>.yaml`, each with the prefix `ftm:`. `Pulumi.prod.yaml` is a",
        "complete example. An empty string, an empty list and 0 mean: not given. A wrong value stops `pulumi preview`",
        "with a sentence that names the key and what is allowed.",
        "",
        "This page is made from `components/settings.py`: `python -m components.settings > docs/configuration.md`.",
        "",
        "| key | type | default | what it is for |",
        "|---|---|---|---|",
    ]
    properties = cast(Mapping[str, Mapping[str, Any]], Settings.model_json_schema()["properties"])
    for key in Settings.config_keys():
        schema = properties[key]
        default = json.dumps(schema["default"])
        limits = [f"{word} {schema[name]}" for name, word in (("minimum", "from"), ("maximum", "to")) if name in schema]
        kind = " ".join([str(schema["type"]), *limits])
        lines.append(f"| `{key}` | {kind} | `{default}` | {schema['description']} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(document(), end="")
