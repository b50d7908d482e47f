"""The Pulumi program: what a stack of ftm consists of."""

import pulumi

from components.account import find_account
from components.batch_queue import BatchQueue, BatchQueueArgs
from components.pipeline_bucket import PipelineBucket, PipelineBucketArgs
from components.quarter_state_machine import QuarterStateMachine, QuarterStateMachineArgs
from components.settings import Settings, SettingsError
from components.vllm_cluster import VllmCluster, VllmClusterArgs

try:
    settings = Settings.load(pulumi.get_stack(), pulumi.Config().get, given=pulumi.runtime.get_config_env())
    account = find_account(settings)
except SettingsError as error:
    raise pulumi.RunError(str(error)) from error

for warning in settings.warnings():
    pulumi.log.warn(warning)

bucket = PipelineBucket("bucket", PipelineBucketArgs(settings, account))
vllm = VllmCluster("vllm", VllmClusterArgs(settings, account)) if settings.vllm_enabled else None
batch = BatchQueue("batch", BatchQueueArgs(settings, account, bucket.name, vllm))
quarter = QuarterStateMachine(
    "quarter",
    QuarterStateMachineArgs(settings, account, bucket.name, batch.queue_arn, batch.job_definition_family),
)

pulumi.export("region", account.region)
pulumi.export("bucket", bucket.bucket)
pulumi.export("state_machine_arn", quarter.arn)
pulumi.export("quarters_state_machine_arn", quarter.quarters_arn)
pulumi.export("map_concurrency", settings.map_concurrency)
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
