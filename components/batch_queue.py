"""The Batch queue that runs the worker, on CPU Spot instances that are only paid for while jobs run.

Finding topics needs no GPU, and vLLM's GPU names them for all jobs: this is much of what ftm saves (docs/adr/0004).
"""

import base64
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import policies, roles, security_groups
from components.account import Account
from components.settings import AdoptedResources, BatchSettings, LlmSettings, RunSettings, StackSettings
from components.vllm_cluster import VllmCluster
from contract import env

ATTEMPTS = 5

RETRIED = (
    ("on_status_reason", "Host EC2*"),  # the host was lost, usually a Spot interruption
    ("on_reason", "Cannot*"),  # CannotPullContainerError, CannotStartContainerError and the like: the host's fault
    ("on_reason", "DockerTimeoutError*"),
    ("on_exit_code", "75"),  # the worker reports a temporary failure, such as an unreachable LLM
)
"""Failures that Batch retries: at most four patterns, since Batch accepts five and the last one ends the job on any
other failure, which the operator has to examine."""

NEVER_RUNS = (
    ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE", 600),
    ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", 600),
    ("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", 4 * 3600),
)
"""Reasons for which a job can be stuck in RUNNABLE, and the seconds after which it is cancelled. The run then ends with
that reason."""

IMAGES_KEPT = 10


# Batch merges its own user data into the template's, and therefore accepts MIME multipart archives only.
_USER_DATA = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==ftm=="

--==ftm==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/bash
echo ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config
--==ftm==--
"""


@dataclass(frozen=True)
class BatchQueueArgs:
    stack: StackSettings
    run: RunSettings
    batch: BatchSettings
    llm: LlmSettings
    adopted: AdoptedResources
    account: Account
    bucket_name: str
    llm_concurrency: int
    """Requests in flight from one job."""
    vllm: VllmCluster | None
    """The LLM that the jobs use; without it they call the hosted API."""


class BatchQueue(pulumi.ComponentResource):
    """The compute environments, their queue, the worker's job definition and the repository for its image."""

    queue_arn: pulumi.Output[str]
    job_definition_arn: pulumi.Output[str]
    job_definition_family: pulumi.Output[str]
    """The job definition's ARN without its revision: a job submitted with it runs the newest revision."""
    image: pulumi.Output[str]
    log_group: str

    def __init__(self, name: str, args: BatchQueueArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:BatchQueue", name, None, opts)
        self._args, self._stack, self._batch, self._vllm = args, args.stack, args.batch, args.vllm
        self._child = pulumi.ResourceOptions(parent=self)
        self.log_group = f"/aws/batch/{args.stack.prefix}"

        self.image = self._find_image()
        self.queue_arn = self._create_queue(*self._create_security_group()).arn
        definition = self._create_job_definition(args.account.bucket_arn(args.bucket_name))
        self.job_definition_arn = definition.arn
        self.job_definition_family = definition.arn_prefix
        self.register_outputs({"queue_arn": self.queue_arn, "job_definition_arn": self.job_definition_arn})

    def _find_image(self) -> pulumi.Output[str]:
        """The image that the settings name, or else the one that `make push` puts into the stack's own repository."""
        stack = self._stack
        if self._args.adopted.worker_image:
            return pulumi.Output.from_input(self._args.adopted.worker_image)
        repository = aws.ecr.Repository(
            "worker",
            name=self._repository_name(),
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=stack.kms_key_arn)
            ],
            # Images can be built again, and `pulumi destroy` would fail at a repository that holds some.
            force_delete=True,
            tags=stack.tags,
            # ECR cannot change a repository's key: a new one would replace the repository and lose its images.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["encryption_configurations"]),
        )
        rule = {
            "rulePriority": 1,
            "description": f"Keep the newest {IMAGES_KEPT} images",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": IMAGES_KEPT},
            "action": {"type": "expire"},
        }
        aws.ecr.LifecyclePolicy(
            "worker", repository=repository.name, policy=pulumi.Output.json_dumps({"rules": [rule]}), opts=self._child
        )
        return pulumi.Output.format("{0}:{1}", repository.repository_url, self._batch.worker_image_tag)

    def _repository_name(self) -> str:
        return self._stack.name("worker", 256)

    def _create_security_group(self) -> tuple[aws.ec2.SecurityGroup, list[pulumi.Resource]]:
        """The jobs' security group and its rules: outbound to AWS over TLS and to vLLM, nothing inbound."""
        stack = self._stack
        group = security_groups.create(self, stack, self._args.account, "batch", "The batch jobs")
        rules = [security_groups.allow_https_out(self, stack, "batch-out", group.id, "AWS and the hosted LLM")]
        if vllm := self._vllm:
            rules += security_groups.allow(
                self, stack, "batch-to-vllm", group.id, vllm.alb_security_group_id, vllm.alb_port, "Requests to vLLM"
            )
        return group, rules

    def _create_queue(self, security_group: aws.ec2.SecurityGroup, rules: list[pulumi.Resource]) -> aws.batch.JobQueue:
        stack = self._stack
        profile_arn = roles.instance_profile_arn(
            self,
            stack,
            self._args.account,
            "batch-instance",
            given=self._args.adopted.batch_instance_profile_arn,
            cluster="*",  # Batch names its ECS clusters itself
        )
        template = self._create_launch_template()
        kinds = ["SPOT", "EC2"] if self._batch.on_demand_fallback else ["SPOT"]
        environments = [
            self._create_compute_environment(kind, security_group, rules, template, profile_arn) for kind in kinds
        ]
        return aws.batch.JobQueue(
            "batch",
            name=stack.name("batch", 128),
            state="ENABLED",
            priority=1,
            compute_environment_orders=[
                aws.batch.JobQueueComputeEnvironmentOrderArgs(order=order, compute_environment=environment.arn)
                for order, environment in enumerate(environments, 1)
            ],
            job_state_time_limit_actions=[
                aws.batch.JobQueueJobStateTimeLimitActionArgs(
                    state="RUNNABLE", action="CANCEL", reason=reason, max_time_seconds=seconds
                )
                for reason, seconds in NEVER_RUNS
            ],
            tags=stack.tags,
            opts=self._child,
        )

    def _create_launch_template(self) -> aws.ec2.LaunchTemplate:
        """Settings for which Batch has no option: IMDSv2, an encrypted disk, and SIGTERM for tasks when AWS reclaims a
        Spot instance. Batch chooses the machine image."""
        stack = self._stack
        return aws.ec2.LaunchTemplate(
            "batch",
            name=stack.name("batch", 128),
            update_default_version=True,
            user_data=base64.b64encode(_USER_DATA.encode()).decode(),
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3", volume_size=30, encrypted="true", delete_on_termination="true"
                    ),
                )
            ],
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type="volume", tags=stack.tags),
            ],
            tags=stack.tags,
            opts=self._child,
        )

    def _create_compute_environment(
        self,
        kind: str,
        security_group: aws.ec2.SecurityGroup,
        rules: list[pulumi.Resource],
        template: aws.ec2.LaunchTemplate,
        profile_arn: pulumi.Output[str],
    ) -> aws.batch.ComputeEnvironment:
        """A compute environment of the type `kind`: SPOT, or EC2 for on-demand instances.

        It depends on the rules and, through the profile, on the instances' permissions: without them Batch could not
        terminate its instances when `pulumi destroy` deletes the compute environment."""
        stack, batch, account = self._stack, self._batch, self._args.account
        spot = kind == "SPOT"
        name = "batch" if spot else "batch-on-demand"
        return aws.batch.ComputeEnvironment(
            name,
            # A prefix instead of a name, so that a replacement can exist beside the one that the queue still uses.
            name_prefix=f"{stack.name(name, 80)}-",
            type="MANAGED",
            # Without a service role Batch uses its service-linked role, which updates in place require.
            compute_resources=aws.batch.ComputeEnvironmentComputeResourcesArgs(
                type=kind,
                allocation_strategy="SPOT_PRICE_CAPACITY_OPTIMIZED" if spot else "BEST_FIT_PROGRESSIVE",
                min_vcpus=0,
                max_vcpus=batch.max_vcpus,
                instance_types=batch.instance_types,
                ec2_configurations=[
                    aws.batch.ComputeEnvironmentComputeResourcesEc2ConfigurationArgs(
                        image_type="ECS_AL2023_NVIDIA" if batch.gpus else "ECS_AL2023"
                    )
                ],
                instance_role=profile_arn,
                subnets=account.subnet_ids,
                security_group_ids=[security_group.id],
                launch_template=aws.batch.ComputeEnvironmentComputeResourcesLaunchTemplateArgs(
                    launch_template_id=template.id, version=template.latest_version.apply(str)
                ),
                tags={**stack.tags, "Name": stack.name(name)},
            ),
            update_policy=aws.batch.ComputeEnvironmentUpdatePolicyArgs(
                job_execution_timeout_minutes=60, terminate_jobs_on_update=False
            ),
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=rules),
        )

    def _create_job_definition(self, bucket_arn: str) -> aws.batch.JobDefinition:
        stack = self._stack
        log_group = aws.cloudwatch.LogGroup(
            "batch",
            name=self.log_group,
            retention_in_days=stack.log_retention_days,
            kms_key_id=stack.kms_key_arn,
            tags=stack.tags,
            opts=self._child,
        )
        return aws.batch.JobDefinition(
            "worker",
            name=stack.name("worker", 128),
            type="container",
            platform_capabilities=["EC2"],
            container_properties=pulumi.Output.json_dumps(self._container(bucket_arn)),
            retry_strategy=aws.batch.JobDefinitionRetryStrategyArgs(
                attempts=ATTEMPTS,
                evaluate_on_exits=[
                    *(
                        aws.batch.JobDefinitionRetryStrategyEvaluateOnExitArgs(action="RETRY", **{key: pattern})
                        for key, pattern in RETRIED
                    ),
                    aws.batch.JobDefinitionRetryStrategyEvaluateOnExitArgs(action="EXIT", on_reason="*"),
                ],
            ),
            timeout=aws.batch.JobDefinitionTimeoutArgs(attempt_duration_seconds=self._batch.timeout_hours * 3600),
            propagate_tags=True,
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group]),
        )

    def _container(self, bucket_arn: str) -> dict[str, Any]:
        stack, batch, adopted, account = self._stack, self._batch, self._args.adopted, self._args.account
        api_key = self._args.llm.api_key_secret_arn
        secrets = {env.LLM_API_KEY: api_key} if api_key else {}
        registry = f"{account.id}.dkr.ecr.{account.region}.{account.dns_suffix}"
        image = adopted.worker_image or f"{registry}/{self._repository_name()}"
        resources = {"VCPU": batch.vcpus, "MEMORY": batch.memory_mib, "GPU": batch.gpus}
        return {
            "image": self.image,
            "command": ["python", "-m", "worker"],
            "jobRoleArn": roles.role_arn(
                self,
                stack,
                "batch-job",
                given=adopted.batch_job_role_arn,
                trust=policies.trust("ecs-tasks.amazonaws.com", account),
                policy=policies.batch_job(bucket_arn, stack.kms_key_arn),
            ),
            "executionRoleArn": roles.role_arn(
                self,
                stack,
                "batch-execution",
                given=adopted.batch_execution_role_arn,
                trust=policies.trust("ecs-tasks.amazonaws.com", account),
                policy=policies.task_execution(
                    account, self.log_group, image, list(secrets.values()), stack.kms_key_arn
                ),
            ),
            "resourceRequirements": [{"type": kind, "value": str(n)} for kind, n in resources.items() if n],
            "environment": [{"name": key, "value": value} for key, value in self._environment().items()],
            "secrets": [{"name": key, "valueFrom": arn} for key, arn in secrets.items()],
            "privileged": False,
            "readonlyRootFilesystem": True,
            "linuxParameters": {
                "initProcessEnabled": True,
                "tmpfs": [{"containerPath": "/tmp", "size": 512}],  # noqa: S108
            },
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": self.log_group,
                    "awslogs-region": account.region,
                    "awslogs-stream-prefix": "worker",
                },
            },
        }

    def _environment(self) -> dict[str, pulumi.Input[str]]:
        """The variables of every batch; the state machine adds those of one batch."""
        args = self._args
        common: dict[str, pulumi.Input[str]] = {
            "AWS_DEFAULT_REGION": args.account.region,
            env.CHECKPOINT_INTERVAL: str(args.run.checkpoint_interval),
        }
        if args.batch.topic_embedding_model:
            common[env.TOPIC_EMBEDDING_MODEL] = args.batch.topic_embedding_model
        if not self._vllm:
            return common
        return {
            **common,
            env.LLM_BASE_URL: self._vllm.base_url,
            env.LLM_MODEL_NAME: self._vllm.model_name,
            env.LLM_MAX_CONCURRENT: str(args.llm_concurrency),
        }
