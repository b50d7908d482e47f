"""The Pulumi program: what a stack of ftm consists of."""

import json

import pulumi
import pulumi_aws as aws

from components.account import find_account
from components.batch_queue import BatchQueue, BatchQueueArgs
from components.deployed_stack import check_changes
from components.guardrails import Guardrails, GuardrailsArgs
from components.notifications import Notifications, NotificationsArgs
from components.pipeline_bucket import PipelineBucket, PipelineBucketArgs
from components.quarter_state_machine import QuarterStateMachine, QuarterStateMachineArgs
from components.running import recorded_settings
from components.settings import Settings, SettingsError, affecting_runs
from components.vllm_cluster import VllmCluster, VllmClusterArgs
from contract.resource_names import outputs_parameter

try:
    settings = Settings.load(pulumi.get_stack(), pulumi.Config().get, given=pulumi.runtime.get_config_env())
    account = find_account(settings)
    warnings = [*settings.warnings(), *check_changes(settings, account)]
except SettingsError as error:
    raise pulumi.RunError(str(error)) from error

for warning in warnings:
    pulumi.log.warn(warning)

stack, adopted = settings.stack, settings.adopted
bucket = PipelineBucket("bucket", PipelineBucketArgs(stack, adopted, account))
vllm = (
    VllmCluster("vllm", VllmClusterArgs(stack, settings.vllm, settings.llm, adopted, account))
    if settings.vllm.enabled
    else None
)
batch = BatchQueue(
    "batch",
    BatchQueueArgs(
        stack=stack,
        run=settings.run,
        batch=settings.batch,
        llm=settings.llm,
        adopted=adopted,
        account=account,
        bucket_name=bucket.name,
        llm_concurrency=settings.llm_concurrency,
        vllm=vllm,
    ),
)
notifications = Notifications("notifications", NotificationsArgs(stack, settings.guardrails, adopted, account))
quarter = QuarterStateMachine(
    "quarter",
    QuarterStateMachineArgs(
        stack=stack,
        run=settings.run,
        adopted=adopted,
        account=account,
        bucket_name=bucket.name,
        topic_arn=notifications.topic_name_arn,
        llm_model=settings.llm_model,
        batch_timeout_hours=settings.batch.timeout_hours,
        job_queue_arn=batch.queue_arn,
        job_definition_family=batch.job_definition_family,
        batch_log_group=batch.log_group,
        llm_concurrency=settings.llm_concurrency,
        vllm=vllm,
        vllm_settings=settings.vllm,
    ),
)

Guardrails(
    "guardrails",
    GuardrailsArgs(
        stack=stack,
        guardrails=settings.guardrails,
        vllm_settings=settings.vllm,
        account=account,
        topic_arn=notifications.topic_arn,
        job_queue_arn=batch.queue_arn,
        quarter=quarter,
        vllm=vllm,
    ),
)

outputs: dict[str, pulumi.Input[object]] = {
    "region": account.region,
    "bucket": bucket.bucket,
    "state_machine_arn": quarter.arn,
    "quarters_state_machine_arn": quarter.quarters_arn,
    "map_concurrency": settings.run.map_concurrency,
    "job_queue_arn": batch.queue_arn,
    "job_definition_arn": batch.job_definition_arn,
    "batch_log_group": batch.log_group,
    "worker_image": batch.image,
    "llm_model": settings.llm_model,
}
if vllm:
    outputs |= {
        "vllm_cluster_name": vllm.cluster_name,
        "vllm_service_name": vllm.service_name,
        "vllm_asg_name": vllm.asg_name,
        "vllm_target_group_arn": vllm.target_group_arn,
        "vllm_base_url": vllm.base_url,
        "vllm_log_group": vllm.log_group,
    }
    if settings.llm.max_concurrent is None:  # otherwise every batch sends that many, whatever the number of GPUs
        outputs["vllm_requests_per_gpu"] = settings.vllm.concurrent_requests
        outputs["vllm_tokens_per_request"] = settings.vllm.tokens_per_request
    if settings.vllm.on_demand_fallback_minutes:
        outputs["vllm_on_demand_fallback_minutes"] = settings.vllm.on_demand_fallback_minutes
for name, value in outputs.items():
    pulumi.export(name, value)
# The next deployment compares its settings with these, and warns when a run in progress depends on one that changes.
aws.ssm.Parameter(
    "settings",
    name=recorded_settings(stack),
    type="String",
    value=json.dumps({key: value for key, (value, _) in affecting_runs(settings).items()}),
    description="Deployed settings that a run depends on",
    tags=stack.tags,
)
# `ftm` reads the outputs here, so that an operator needs AWS credentials only, and no access to Pulumi's backend.
aws.ssm.Parameter(
    "outputs",
    name=outputs_parameter(stack.stack),
    type="String",
    value=pulumi.Output.json_dumps(outputs),
    description="Outputs of this stack, for ftm",
    tags=stack.tags,
)
