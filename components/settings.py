"""A stack's config as one typed, validated model with a section for each component.

Pulumi's config is flat: the keys are `ftm:vllmModel`, `ftm:batchVcpus` and so on. Here they are grouped, and each
component takes only its own sections. An optional setting that is not given is None.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import cached_property
from typing import Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from components import gpu
from components.alarms import COLD_START_MINUTES
from components.resource_names import fit
from components.setting_types import (
    BucketName,
    CertificateArn,
    Change,
    EmailAddresses,
    HostName,
    ImageTag,
    ImageUri,
    InstanceTypes,
    KeyArn,
    PinnedImage,
    ProfileArn,
    RoleArn,
    SecretArn,
    StackName,
    SubnetIds,
    Text,
    TopicArn,
    VpcId,
    setting,
)
from contract import resource_names
from contract.run import DEFAULT_MIN_NAMED_SHARE
from contract.served_models import HOSTED_MODEL

DEFAULT_MAX_NUM_SEQS = 256
"""vLLM's own default on most GPUs."""

LOG_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653)
"""The numbers of days that CloudWatch Logs offers."""


_JOBS_MOVE = "running jobs have an hour to finish, and are then tried again"
_LATER_BATCHES = "batches that start afterwards use the new one"


class SettingsError(ValueError):
    """A setting that cannot be used, in one sentence for the operator."""


class Section(BaseModel):
    """Settings of one concern. The alias of a field is its key in the stack's config."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def config_keys(cls) -> list[str]:
        """The section's keys, without the prefix `ftm:`."""
        return [str(field.alias) for field in cls.model_fields.values() if not field.exclude]


class StackSettings(Section):
    """The stack as a whole."""

    stack: StackName = Field(exclude=True)
    log_retention_days: int = setting(
        365, Change.IN_PLACE, f"Days that logs are kept, one of {', '.join(map(str, LOG_RETENTIONS))}."
    )
    deletion_protection: bool = setting(
        True,
        Change.IN_PLACE,
        "`pulumi destroy` leaves the bucket with its data and its protection. Without it, the bucket and everything "
        "in it are deleted.",
        note="run `pulumi up` before `pulumi destroy` for the change to count",
    )
    kms_key_arn: KeyArn | None = setting(
        None,
        Change.IN_PLACE,
        "An existing KMS key for the bucket, the logs, the image repository, the topic and the functions' "
        "environment; its policy must admit CloudWatch Logs. Default: AWS's own keys.",
        note="an existing image repository keeps its key, with a warning; objects in the bucket keep theirs",
    )

    @property
    def prefix(self) -> str:
        """The start of every resource name."""
        return resource_names.prefix(self.stack)

    def name(self, rest: str, limit: int = 64) -> str:
        """The name of a resource of this stack, such as `ftm-vllm-alb`, shortened to `limit` characters."""
        return fit(f"{self.prefix}-{rest}", limit)

    @property
    def tags(self) -> dict[str, str]:
        return {"Project": resource_names.PROJECT, "Stack": self.stack, "ManagedBy": "pulumi"}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.log_retention_days not in LOG_RETENTIONS:
            allowed = ", ".join(map(str, LOG_RETENTIONS))
            raise ValueError(f"ftm:logRetentionDays is {self.log_retention_days}: it should be one of {allowed}")
        return self


class RunSettings(Section):
    """The run of a quarter."""

    map_concurrency: int = setting(5, Change.NEXT_RUN, "Batches of a quarter that run at once.", ge=1, le=40)
    checkpoint_interval: int = setting(
        25, Change.NEXT_RUN, "Firms between two checkpoints of a batch.", ge=1, le=10_000
    )
    min_named_percent: int = setting(
        round(DEFAULT_MIN_NAMED_SHARE * 100),
        Change.IN_PLACE,
        "A run fails when the LLM named a smaller share of its topics.",
        ge=0,
        le=100,
    )

    @property
    def min_named_share(self) -> float:
        return self.min_named_percent / 100


class LlmSettings(Section):
    """The LLM that names topics: this stack's vLLM or a hosted API."""

    model_config = ConfigDict(alias_generator=lambda name: to_camel(f"llm_{name}"))

    max_concurrent: int | None = setting(
        None,
        Change.NEXT_RUN,
        "Requests in flight from one batch. Default: one batch's share of the requests that vLLM's KV cache holds.",
        ge=1,
        le=1024,
    )
    api_key_secret_arn: SecretArn | None = setting(
        None,
        Change.RESTARTS_VLLM,
        "A secret in Secrets Manager whose value is the LLM's API key. vLLM then asks for it, and the worker sends it.",
    )


class VllmSettings(Section):
    """vLLM and its GPUs."""

    model_config = ConfigDict(alias_generator=lambda name: to_camel(f"vllm_{name}"))

    enabled: bool = setting(
        True,
        Change.IN_PLACE,
        "Run vLLM. Without it the worker calls the hosted API with the key of `llmApiKeySecretArn`.",
        note="creates or deletes the GPU group, its service and the load balancer; end the runs first",
        during_run="batches that start afterwards use another LLM, and those that are running lose theirs",
    )
    model: Text = setting("Qwen/Qwen3-8B", Change.RESTARTS_VLLM, "The model's id on the Hugging Face hub.")
    served_model_name: Text | None = setting(
        None, Change.RESTARTS_VLLM, "The model's name in requests. Default: `vllmModel`."
    )
    image: PinnedImage = setting(
        "vllm/vllm-openai:v0.32.0", Change.RESTARTS_VLLM, "vLLM's image, pinned to a version or a digest."
    )
    instance_types: InstanceTypes = setting(
        ["g6.xlarge", "g5.xlarge", "g6.2xlarge", "g5.2xlarge"],
        Change.RESTARTS_VLLM,
        "GPU instance types in order of preference. The model must fit the smallest GPU among them.",
        note="only when the smallest GPU or host differs; running instances stay",
        during_run="vLLM restarts if the smallest GPU or host differs, and the jobs wait for it",
        min_length=1,
    )
    min_instances: int = setting(
        0,
        Change.IN_PLACE,
        "GPU instances that always run.",
        note="a raised minimum starts instances without vLLM; the preview names the `ftm vllm scale` to run",
        ge=0,
        le=20,
    )
    max_instances: int = setting(2, Change.IN_PLACE, "The largest number that `ftm vllm scale` accepts.", ge=1, le=20)
    on_demand_instances: int = setting(
        0,
        Change.IN_PLACE,
        "Number of on-demand GPU instances; the rest are Spot.",
        note="for instances started afterwards",
        ge=0,
        le=20,
    )
    on_demand_fallback_minutes: int = setting(
        0,
        Change.IN_PLACE,
        "Minutes without any Spot instance after which `run-quarter --vllm` starts on-demand ones, at about three "
        "times the price, until the end of its runs; 0: never.",
        ge=0,
        le=COLD_START_MINUTES - 15,
    )
    root_volume_gib: int = setting(
        120,
        Change.IN_PLACE,
        "Disk of a GPU instance in GiB: system, image (about 25) and model.",
        note="for instances started afterwards",
        ge=80,
        le=1000,
    )
    memory_mib: int | None = setting(
        None,
        Change.RESTARTS_VLLM,
        "Memory of the container in MiB. Default: the smallest host's, less 2 GiB for the system.",
        ge=1024,
    )
    max_model_len: int = setting(
        4096, Change.RESTARTS_VLLM, "Tokens of the longest prompt and its answer together.", ge=512, le=131_072
    )
    tokens_per_request: int = setting(
        640,
        Change.NEXT_RUN,
        "Tokens of a usual prompt and its answer, from which follows how many requests a GPU holds at once. Recorded "
        "runs take about 490 and 40, and a fifth is added for long ones. `ftm doctor` compares it with your own runs.",
        ge=128,
        le=131_072,
    )
    max_num_seqs: int | None = setting(
        None,
        Change.RESTARTS_VLLM,
        "Requests that vLLM processes at once. Default: as many as find room in the KV cache, at most 256.",
        ge=1,
        le=1024,
    )
    certificate_arn: CertificateArn | None = setting(
        None,
        Change.IN_PLACE,
        "An ACM certificate. The load balancer then accepts HTTPS only.",
        note="running jobs keep the old address and are tried again",
    )
    hostname: HostName | None = setting(
        None,
        Change.IN_PLACE,
        "The name in the certificate. Point it at the load balancer with a DNS alias.",
    )
    hugging_face_token_secret_arn: SecretArn | None = setting(
        None,
        Change.RESTARTS_VLLM,
        "A secret in Secrets Manager whose value is a Hugging Face token, for a model that requires one.",
        alias="huggingFaceTokenSecretArn",
    )

    @property
    def model_name(self) -> str:
        """The model's name in requests."""
        return self.served_model_name or self.model

    @property
    def container_mib(self) -> int:
        return self.memory_mib or (self._smallest_host_gib - 2) * 1024

    @property
    def needs_half(self) -> bool:
        """Whether a GPU of the group cannot compute in bf16."""
        return not all(gpu.INSTANCES[kind].gpu.bf16 for kind in self.instance_types)

    @cached_property
    def model_fit(self) -> gpu.Fit | None:
        """The model in the group's smallest GPU; None when the model is unknown."""
        model = gpu.MODELS.get(self.model)
        if model is None:
            return None
        smallest = min((gpu.INSTANCES[kind].gpu for kind in self.instance_types), key=lambda card: card.usable_gib)
        return gpu.Fit(model, smallest)

    @property
    def concurrent_requests(self) -> int:
        """Requests that one GPU holds at once: as many as a run sends to it."""
        if self.max_num_seqs:
            return self.max_num_seqs
        # 16 is a guess for an unknown model, of which `Settings.warnings` warns.
        held = self.model_fit.requests_at_once(self.tokens_per_request) if self.model_fit else 16
        return min(held, self.sequences)

    @property
    def sequences(self) -> int:
        """`--max-num-seqs`. It is not derived from `tokens_per_request`, so that a load test can show whether the GPU
        handles more requests than estimated; vLLM never runs more at once than fit into its KV cache."""
        return self.max_num_seqs or DEFAULT_MAX_NUM_SEQS

    @property
    def _smallest_host_gib(self) -> int:
        return min(gpu.INSTANCES[kind].host_gib for kind in self.instance_types)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.enabled and (problems := [*self._check_numbers(), *self._check_fit()]):
            raise ValueError("; ".join(problems))
        return self

    def _check_numbers(self) -> Iterator[str]:
        if bool(self.certificate_arn) != bool(self.hostname):
            yield "ftm:vllmCertificateArn and ftm:vllmHostname belong together: HTTPS needs both"
        for key, value in (
            ("vllmMinInstances", self.min_instances),
            ("vllmOnDemandInstances", self.on_demand_instances),
        ):
            if value > self.max_instances:
                yield f"ftm:{key} is {value}: it should be at most ftm:vllmMaxInstances, {self.max_instances}"

    def _check_fit(self) -> Iterator[str]:
        unknown = [kind for kind in self.instance_types if kind not in gpu.INSTANCES]
        if unknown:
            yield (
                f"ftm:vllmInstanceTypes holds {', '.join(unknown)}: each should have one GPU that ftm knows, "
                f"such as g4dn.xlarge, g5.xlarge, g6.xlarge or g6e.xlarge"
            )
            return
        if self.model_fit and (refusal := self.model_fit.refusal(self.max_model_len)):
            yield f"ftm:vllmModel {self.model} does not fit {', '.join(self.instance_types)}: {refusal}"
        elif self.concurrent_requests < 1:
            yield (
                f"ftm:vllmTokensPerRequest is {self.tokens_per_request}: it should be at most the "
                f"{self.model_fit.cache_tokens if self.model_fit else 0} tokens that the KV cache holds"
            )
        most = int(self._smallest_host_gib * 1024 * gpu.ECS_SHARE_OF_HOST)
        if self.container_mib > most:
            yield (
                f"ftm:vllmMemoryMib is {self.container_mib}: it should be at most {most}, "
                f"what ECS can place on the smallest host's {self._smallest_host_gib} GiB"
            )


class BatchSettings(Section):
    """Batch jobs and their instances."""

    model_config = ConfigDict(alias_generator=lambda name: to_camel(f"batch_{name}"))

    instance_types: InstanceTypes = setting(
        ["c7i", "c7a", "c6i", "c6a", "m7i", "m7a", "m6i", "m6a"],
        Change.IN_PLACE,
        "Instance families or types of the batch jobs. More of them make an interruption rarer.",
        note=_JOBS_MOVE,
        during_run=_JOBS_MOVE,
        min_length=1,
    )
    topic_embedding_model: Text | None = setting(
        None,
        Change.NEXT_RUN,
        "A sentence-transformers model, such as all-MiniLM-L6-v2, that finds topics in place of LSA. The worker's "
        "image then needs the extra `embeddings`.",
        during_run=_LATER_BATCHES,
        alias="topicEmbeddingModel",
    )
    gpus: int = setting(
        0,
        Change.NEXT_RUN,
        "GPUs of a batch job: 1 when an embedding model is used.",
        note=_JOBS_MOVE,
        during_run=_JOBS_MOVE,
        ge=0,
        le=1,
    )
    vcpus: int = setting(2, Change.NEXT_RUN, "vCPUs of a batch job.", ge=1, le=96)
    memory_mib: int = setting(3500, Change.NEXT_RUN, "Memory of a batch job in MiB.", ge=512, le=393_216)
    max_vcpus: int = setting(32, Change.IN_PLACE, "vCPUs that all batch jobs may use together.", ge=1, le=5000)
    on_demand_fallback: bool = setting(
        False,
        Change.IN_PLACE,
        "A second compute environment with on-demand instances, at about three times the price, for jobs for which "
        "there is no Spot instance.",
    )
    timeout_hours: int = setting(
        12, Change.NEXT_RUN, "Hours after which an attempt of a batch job is ended.", ge=1, le=168
    )
    worker_image_tag: ImageTag = setting(
        "v1",
        Change.NEXT_RUN,
        "The tag that `make push` gives the worker's image in the stack's repository.",
        note="run `make push` after `pulumi up`: until then new jobs find no image",
        during_run=f"{_LATER_BATCHES}, which `make push` must have uploaded",
        alias="workerImageTag",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.max_vcpus < self.vcpus:
            yield (
                f"ftm:batchMaxVcpus is {self.max_vcpus}: it should be at least the ftm:batchVcpus of one job, "
                f"{self.vcpus}"
            )
        if arm := [kind for kind in self.instance_types if re.match(r"a1\b|[a-z]+\d+[a-z]*g[a-z]*(\.|$)", kind)]:
            yield (
                f"ftm:batchInstanceTypes holds {', '.join(arm)} with Arm processors, but the worker's image is built "
                "for amd64: it should hold Intel or AMD types only, such as c7i or m7a"
            )
        without = [kind for kind in self.instance_types if not re.match(r"(g\d|gr\d|p\d)", kind)]
        if self.gpus and without:
            yield (
                f"ftm:batchInstanceTypes holds {', '.join(without)}, without a GPU, but ftm:batchGpus is 1: "
                "it should hold GPU families only, such as g4dn, g5, g6"
            )


class GuardrailSettings(Section):
    """Alarms, notifications and costs."""

    vllm_idle_minutes: int = setting(
        60,
        Change.IN_PLACE,
        f"Minutes without a request after which AWS switches the GPUs off; 0: never. At least "
        f"{COLD_START_MINUTES}, the time that a cold start may take, in steps of 5. Without effect while "
        "`vllmMinInstances` is above 0.",
        ge=0,
        le=1440,
        multiple_of=5,
    )
    alarms_enabled: bool = setting(
        True,
        Change.IN_PLACE,
        "Alarms for failed runs, failing functions, missing GPU capacity and an unhealthy vLLM.",
    )
    dashboard_enabled: bool = setting(True, Change.IN_PLACE, "A CloudWatch dashboard: runs, requests, GPU hours.")
    monthly_budget_usd: int | None = setting(
        None,
        Change.IN_PLACE,
        "A notification when a month's actual or forecast cost exceeds this. Activate the tags Project and Stack as "
        "cost allocation tags in AWS's billing console first.",
        ge=1,
    )
    notification_emails: EmailAddresses | None = setting(
        None,
        Change.IN_PLACE,
        "E-mail addresses that receive alarms and how each run ended, by an SNS topic of the stack's own. AWS asks "
        "each of them to confirm.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.vllm_idle_minutes < COLD_START_MINUTES:
            raise ValueError(
                f"ftm:vllmIdleMinutes is {self.vllm_idle_minutes}: it should be 0 or at least "
                f"{COLD_START_MINUTES}, since vLLM would be switched off while it starts"
            )
        return self


class AdoptedResources(Section):
    """Existing resources that are used instead of being created. With all the roles given, no IAM call is made."""

    bucket_name: BucketName | None = setting(
        None,
        Change.REFUSED,
        "An existing bucket of this account and region.",
        note="when the stack created its own bucket: docs/teardown.md has the steps. Otherwise in place",
    )
    vpc_id: VpcId | None = setting(
        None,
        Change.REFUSED,
        "An existing VPC. Default: the account's default VPC.",
        note="`pulumi destroy`, then `pulumi up` with the new VPC; docs/teardown.md has the steps",
    )
    subnet_ids: SubnetIds | None = setting(
        None,
        Change.IN_PLACE,
        "Subnets of `vpcId` with a way out to the internet, in at least two availability zones.",
        note="of the same VPC",
        during_run=_JOBS_MOVE,
        min_length=1,
    )
    worker_image: ImageUri | None = setting(
        None,
        Change.REFUSED,
        "An existing worker image by its URI. No repository is created then.",
        note="while the stack's own repository exists: delete that first. Otherwise applies to the next run",
        during_run=_LATER_BATCHES,
    )
    sns_topic_arn: TopicArn | None = setting(
        None, Change.IN_PLACE, "An existing SNS topic that receives alarms and how each run ended."
    )
    access_logs_bucket: BucketName | None = setting(
        None,
        Change.IN_PLACE,
        "An existing bucket for the access logs of the load balancer and of the bucket. Its policy must let "
        "`logging.s3.amazonaws.com` and `logdelivery.elasticloadbalancing.amazonaws.com` put objects.",
    )
    vllm_instance_profile_arn: ProfileArn | None = setting(
        None, Change.IN_PLACE, "The GPU instances' profile.", note="for instances started afterwards"
    )
    vllm_execution_role_arn: RoleArn | None = setting(
        None, Change.RESTARTS_VLLM, "The role with which ECS starts vLLM."
    )
    batch_instance_profile_arn: ProfileArn | None = setting(
        None, Change.IN_PLACE, "The batch instances' profile.", during_run=_JOBS_MOVE
    )
    batch_execution_role_arn: RoleArn | None = setting(
        None, Change.NEXT_RUN, "The role with which ECS starts batch jobs."
    )
    batch_job_role_arn: RoleArn | None = setting(None, Change.NEXT_RUN, "The worker's own role.")
    functions_role_arn: RoleArn | None = setting(None, Change.IN_PLACE, "The four functions' role.")
    state_machine_role_arn: RoleArn | None = setting(None, Change.IN_PLACE, "The state machines' role.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.vpc_id) != bool(self.subnet_ids):
            raise ValueError("ftm:vpcId and ftm:subnetIds belong together: give both, or neither for the default VPC")
        return self


class Settings(BaseModel):
    """All settings of one stack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stack: StackSettings
    run: RunSettings
    llm: LlmSettings
    vllm: VllmSettings
    batch: BatchSettings
    guardrails: GuardrailSettings
    adopted: AdoptedResources

    @classmethod
    def load(cls, stack: str, read: Callable[[str], str | None], given: Iterable[str] = ()) -> Self:
        """Read the settings of `stack`.

        Args:
            read: Returns a key's value as Pulumi stores it, or None.
            given: All keys of the stack's config, such as `ftm:vllmModel`, so that a mistyped one is noticed.

        Raises:
            SettingsError: naming each wrong key, its value and what is allowed.
        """
        if problems := list(_unknown_keys(given)):
            raise SettingsError("; ".join(problems))
        raw: dict[str, dict[str, str]] = {
            name: {key: value for key in section.config_keys() if (value := read(key)) is not None}
            for name, section in SECTIONS.items()
        }
        raw["stack"]["stack"] = stack
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from None

    def arns(self) -> Iterator[tuple[str, str]]:
        """Every ARN that is given, with its key."""
        for name, section in SECTIONS.items():
            for field, info in section.model_fields.items():
                if field.endswith("_arn") and (arn := getattr(getattr(self, name), field)):
                    yield str(info.alias), arn

    @model_validator(mode="after")
    def _check(self) -> Self:
        topics = (self.guardrails.notification_emails, self.adopted.sns_topic_arn)
        if all(topics):
            raise ValueError(
                "ftm:notificationEmails and ftm:snsTopicArn are both given: unset one; the addresses can subscribe to "
                "the existing topic"
            )
        if self.guardrails.monthly_budget_usd and not any(topics):
            raise ValueError(
                "ftm:monthlyBudgetUsd needs somebody to notify: give ftm:notificationEmails or ftm:snsTopicArn"
            )
        return self

    @property
    def llm_model(self) -> str:
        """The model that names topics, as requests name it."""
        return self.vllm.model_name if self.vllm.enabled else HOSTED_MODEL

    @property
    def llm_concurrency(self) -> int:
        """Requests in flight from one batch: all batches together send as many as the KV cache holds."""
        return self.llm.max_concurrent or max(1, self.vllm.concurrent_requests // self.run.map_concurrency)

    def warnings(self) -> Iterator[str]:
        """Settings that are allowed, but probably not what the operator wants."""
        if self.vllm.enabled and self.vllm.model_fit is None:
            yield (
                f"ftm:vllmModel {self.vllm.model!r} is not a model whose memory use ftm knows: whether it fits "
                f"{', '.join(self.vllm.instance_types)} is only known when vLLM starts"
            )
        if not self.vllm.enabled and not self.llm.api_key_secret_arn:
            yield "ftm:vllmEnabled is false and ftm:llmApiKeySecretArn is not given: the hosted API needs a key"
        if self.batch.max_vcpus < self.run.map_concurrency * self.batch.vcpus:
            yield (
                f"ftm:batchMaxVcpus {self.batch.max_vcpus} is less than ftm:mapConcurrency {self.run.map_concurrency} "
                f"jobs of {self.batch.vcpus} vCPUs need: the others wait in the queue"
            )


SECTIONS: dict[str, type[Section]] = {
    "stack": StackSettings,
    "run": RunSettings,
    "llm": LlmSettings,
    "vllm": VllmSettings,
    "batch": BatchSettings,
    "guardrails": GuardrailSettings,
    "adopted": AdoptedResources,
}
"""The sections by their name in `Settings`."""

KEYS = [key for section in SECTIONS.values() for key in section.config_keys()]
"""All keys of a stack's config, without the prefix `ftm:`."""


def affecting_runs(settings: Settings) -> dict[str, tuple[object, str]]:
    """Value and effect of each setting that a run in progress depends on, by key: model, image, compute environment."""
    found: dict[str, tuple[object, str]] = {}
    for name, section in SECTIONS.items():
        for field, info in section.model_fields.items():
            declared = cast(dict[str, str], info.json_schema_extra or {})
            effect = declared.get("during_run")
            if not effect and declared.get("change") == Change.RESTARTS_VLLM:
                effect = "vLLM restarts, and the jobs wait for it"
            if effect:
                found[str(info.alias)] = (getattr(getattr(settings, name), field), effect)
    return found


def _unknown_keys(given: Iterable[str]) -> Iterator[str]:
    known = [f"{resource_names.PROJECT}:{key}" for key in KEYS]
    for key in given:
        if key.startswith(f"{resource_names.PROJECT}:") and key not in known:
            near = get_close_matches(key, known, n=1)
            meant = f"did you mean {near[0]}?" if near else "docs/configuration.md lists them all"
            yield f"{key} is not a setting: {meant}"


def _sentence(detail: ErrorDetails) -> str:
    message = re.sub(r"^(Input|String|List) should", "it should", detail["msg"].removeprefix("Value error, "))
    if len(detail["loc"]) < 2:  # a section's own check, which names its keys
        return message
    key, value = str(detail["loc"][1]), detail["input"]
    where = "the stack's name" if key == "stack" else f"ftm:{key}"
    return f"{where} is {value!r}: {message}"
