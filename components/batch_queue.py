"""Where the worker runs: a Batch queue on CPU Spot instances that cost nothing while no job runs.

Discovering topics needs no GPU, and naming them uses vLLM's: that is a large part of the saving (docs/adr/0004).
"""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import policies, roles, security_groups
from components.account import Account
from components.settings import Settings
from components.vllm_cluster import VllmCluster
from contract import env

ATTEMPTS = 5

RETRIED = (
    ("on_status_reason", "Host EC2*"),  # Spot took the host back
    ("on_reason", "CannotPullContainerError:*"),
    ("on_exit_code", "75"),  # the worker's own word for a temporary failure, such as an LLM that stayed away
)
"""What is worth another attempt. Everything else is the worker's final word, and the operator's to look at."""

NEVER_RUNS = (
    ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE", 600),
    ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", 600),
    ("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", 4 * 3600),
)
"""Why a job can be stuck in RUNNABLE, and the seconds after which it is cancelled: the run then ends with a reason."""

IMAGES_KEPT = 10


@dataclass(frozen=True)
class BatchQueueArgs:
    settings: Settings
    account: Account
    bucket_name: str
    vllm: VllmCluster | None
    """Whom the jobs ask for names; without it they call the hosted API."""


class BatchQueue(pulumi.ComponentResource):
    """The compute environment, its queue, the worker's job definition and the repository of its image."""

    queue_arn: pulumi.Output[str]
    job_definition_arn: pulumi.Output[str]
    job_definition_family: pulumi.Output[str]
    """The job definition's ARN without its revision: a job submitted by it takes the newest."""
    image: pulumi.Output[str]
    log_group: str

    def __init__(self, name: str, args: BatchQueueArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:BatchQueue", name, None, opts)
        self._settings, self._account, self._vllm = args.settings, args.account, args.vllm
        self._child = pulumi.ResourceOptions(parent=self)
        self.log_group = f"/aws/batch/{args.settings.prefix}"

        self.image = self._find_image()
        self.queue_arn = self._create_queue(self._create_security_group()).arn
        definition = self._create_job_definition(args.account.bucket_arn(args.bucket_name))
        self.job_definition_arn = definition.arn
        self.job_definition_family = definition.arn_prefix
        self.register_outputs({"queue_arn": self.queue_arn, "job_definition_arn": self.job_definition_arn})

    def _find_image(self) -> pulumi.Output[str]:
        """The worker's image as given, or else in a repository of the stack's own, where `make push` puts it."""
        settings = self._settings
        if settings.worker_image:
            return pulumi.Output.from_input(settings.worker_image)
        repository = aws.ecr.Repository(
            "worker",
            name=self._repository_name(),
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(
                    encryption_type="KMS", kms_key=settings.kms_key_arn or None
                )
            ],
            # An image can be built again, so a stack that may be deleted takes its images along.
            force_delete=not settings.deletion_protection,
            tags=settings.tags,
            opts=self._child,
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
        return pulumi.Output.format("{0}:{1}", repository.repository_url, settings.worker_image_tag)

    def _repository_name(self) -> str:
        return self._settings.name("worker", 256)

    def _create_security_group(self) -> aws.ec2.SecurityGroup:
        """Out to AWS over TLS, and to vLLM's load balancer; nobody comes in."""
        settings = self._settings
        group = security_groups.create(self, settings, self._account, "batch", "The batch jobs")
        security_groups.allow_https_out(self, settings, "batch-out", group.id, "AWS and the hosted LLM")
        if vllm := self._vllm:
            security_groups.allow(
                self, settings, "batch-to-vllm", group.id, vllm.alb_security_group_id, vllm.alb_port, "Requests to vLLM"
            )
        return group

    def _create_queue(self, security_group: aws.ec2.SecurityGroup) -> aws.batch.JobQueue:
        settings = self._settings
        environment = self._create_compute_environment(security_group, self._create_launch_template())
        return aws.batch.JobQueue(
            "batch",
            name=settings.name("batch", 128),
            state="ENABLED",
            priority=1,
            compute_environment_orders=[
                aws.batch.JobQueueComputeEnvironmentOrderArgs(order=1, compute_environment=environment.arn)
            ],
            job_state_time_limit_actions=[
                aws.batch.JobQueueJobStateTimeLimitActionArgs(
                    state="RUNNABLE", action="CANCEL", reason=reason, max_time_seconds=seconds
                )
                for reason, seconds in NEVER_RUNS
            ],
            tags=settings.tags,
            opts=self._child,
        )

    def _create_launch_template(self) -> aws.ec2.LaunchTemplate:
        """What Batch does not set by itself: IMDSv2 and an encrypted disk. The image is Batch's own."""
        settings = self._settings
        return aws.ec2.LaunchTemplate(
            "batch",
            name=settings.name("batch", 128),
            update_default_version=True,
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
                aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type="volume", tags=settings.tags),
            ],
            tags=settings.tags,
            opts=self._child,
        )

    def _create_compute_environment(
        self, security_group: aws.ec2.SecurityGroup, template: aws.ec2.LaunchTemplate
    ) -> aws.batch.ComputeEnvironment:
        settings = self._settings
        profile_arn = roles.instance_profile_arn(
            self, settings, self._account, "batch-instance", given=settings.batch_instance_profile_arn, cluster="*"
        )
        return aws.batch.ComputeEnvironment(
            "batch",
            # A prefix, so that a replacement can stand beside the one that the queue still uses.
            name_prefix=f"{settings.name('batch', 80)}-",
            type="MANAGED",
            # No service role: Batch then uses its service-linked role.
            compute_resources=aws.batch.ComputeEnvironmentComputeResourcesArgs(
                type="SPOT",
                allocation_strategy="SPOT_PRICE_CAPACITY_OPTIMIZED",
                min_vcpus=0,
                max_vcpus=settings.batch_max_vcpus,
                instance_types=settings.batch_instance_types,
                ec2_configurations=[
                    aws.batch.ComputeEnvironmentComputeResourcesEc2ConfigurationArgs(
                        image_type="ECS_AL2023_NVIDIA" if settings.batch_gpus else "ECS_AL2023"
                    )
                ],
                instance_role=profile_arn,
                subnets=self._account.subnet_ids,
                security_group_ids=[security_group.id],
                launch_template=aws.batch.ComputeEnvironmentComputeResourcesLaunchTemplateArgs(
                    launch_template_id=template.id, version=template.latest_version.apply(str)
                ),
                tags={**settings.tags, "Name": settings.name("batch")},
            ),
            update_policy=aws.batch.ComputeEnvironmentUpdatePolicyArgs(
                job_execution_timeout_minutes=60, terminate_jobs_on_update=False
            ),
            tags=settings.tags,
            opts=self._child,
        )

    def _create_job_definition(self, bucket_arn: str) -> aws.batch.JobDefinition:
        settings = self._settings
        log_group = aws.cloudwatch.LogGroup(
            "batch",
            name=self.log_group,
            retention_in_days=settings.log_retention_days,
            kms_key_id=settings.kms_key_arn or None,
            tags=settings.tags,
            opts=self._child,
        )
        return aws.batch.JobDefinition(
            "worker",
            name=settings.name("worker", 128),
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
            timeout=aws.batch.JobDefinitionTimeoutArgs(attempt_duration_seconds=settings.batch_timeout_hours * 3600),
            propagate_tags=True,
            tags=settings.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group]),
        )

    def _container(self, bucket_arn: str) -> dict[str, Any]:
        settings, account = self._settings, self._account
        secrets = {env.LLM_API_KEY: settings.llm_api_key_secret_arn} if settings.llm_api_key_secret_arn else {}
        image = (
            settings.worker_image or f"{account.id}.dkr.ecr.{account.region}.amazonaws.com/{self._repository_name()}"
        )
        resources = {"VCPU": settings.batch_vcpus, "MEMORY": settings.batch_memory_mib, "GPU": settings.batch_gpus}
        return {
            "image": self.image,
            "command": ["python", "-m", "worker"],
            "jobRoleArn": roles.role_arn(
                self,
                settings,
                "batch-job",
                given=settings.batch_job_role_arn,
                trust=policies.trust("ecs-tasks.amazonaws.com", account),
                policy=policies.batch_job(bucket_arn, settings.kms_key_arn),
            ),
            "executionRoleArn": roles.role_arn(
                self,
                settings,
                "batch-execution",
                given=settings.batch_execution_role_arn,
                trust=policies.trust("ecs-tasks.amazonaws.com", account),
                policy=policies.task_execution(
                    account, self.log_group, image, list(secrets.values()), settings.kms_key_arn
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
        """What every batch gets; the state machine adds the batch's own."""
        settings = self._settings
        common: dict[str, pulumi.Input[str]] = {
            "AWS_DEFAULT_REGION": self._account.region,
            env.CHECKPOINT_INTERVAL: str(settings.checkpoint_interval),
        }
        if settings.topic_embedding_model:
            common[env.TOPIC_EMBEDDING_MODEL] = settings.topic_embedding_model
        if not self._vllm:
            return common
        return {
            **common,
            env.LLM_BASE_URL: self._vllm.base_url,
            env.LLM_MODEL_NAME: settings.served_model_name,
            env.LLM_MAX_CONCURRENT: str(settings.llm_concurrency),
        }
