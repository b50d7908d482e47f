"""The Pulumi program: what a stack of ftm consists of."""

import pulumi

from components.account import find_account
from components.batch_queue import BatchQueue, BatchQueueArgs
from components.deployed_stack import check_changes
from components.pipeline_bucket import PipelineBucket, PipelineBucketArgs
from components.quarter_state_machine import QuarterStateMachine, QuarterStateMachineArgs
from components.settings import Settings, SettingsError
from components.vllm_cluster import VllmCluster, VllmClusterArgs

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
quarter = QuarterStateMachine(
    "quarter",
    QuarterStateMachineArgs(
        stack=stack,
        run=settings.run,
        adopted=adopted,
        account=account,
        bucket_name=bucket.name,
        batch_timeout_hours=settings.batch.timeout_hours,
        job_queue_arn=batch.queue_arn,
        job_definition_family=batch.job_definition_family,
    ),
)

pulumi.export("region", account.region)
pulumi.export("bucket", bucket.bucket)
pulumi.export("state_machine_arn", quarter.arn)
pulumi.export("quarters_state_machine_arn", quarter.quarters_arn)
pulumi.export("map_concurrency", settings.run.map_concurrency)
pulumi.export("job_queue_arn", batch.queue_arn)
pulumi.export("job_definition_arn", batch.job_definition_arn)
pulumi.export("batch_log_group", batch.log_group)
pulumi.export("worker_image", batch.image)
if vllm:
    pulumi.export("vllm_cluster_name", vllm.cluster_name)
    pulumi.export("vllm_service_name", vllm.service_name)
    pulumi.export("vllm_asg_name", vllm.asg_name)
    pulumi.export("vllm_target_group_arn", vllm.target_group_arn)
    pulumi.export("vllm_base_url", vllm.base_url)
    pulumi.export("vllm_log_group", vllm.log_group)
