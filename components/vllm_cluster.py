"""vLLM on one ECS cluster of GPU Spot instances, behind an internal load balancer, scaled by hand.

`desired_capacity` of the group and `desired_count` of the service belong to the operator (`ftm vllm scale`): a new
stack starts at the minimum, which is zero, and no deployment changes them afterwards. Why host network mode, Spot and
manual scaling, and what a cold start costs, stand in docs/adr.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import gpu, policies, roles, security_groups
from components.account import Account
from components.settings import Settings

GPU_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"

PORT = 8000
"""vLLM's port on the instance. In host mode it is the instance's own, so that an instance holds one task."""

# A Spot instance has two minutes from its notice: requests end, the server ends, ECS kills. Together 110 s.
DEREGISTRATION_SECONDS = 45
SHUTDOWN_SECONDS = 50
STOP_SECONDS = SHUTDOWN_SECONDS + 15

IDLE_SECONDS = 300
"""A completion that waits in vLLM's queue sends nothing meanwhile; the load balancer's default would cut it at 60."""

COLD_START_SECONDS = 1800
"""Image pull, model download, load and compile, with ample room: docs/adr/0002 has them part by part."""

USER = "2000:0"
"""The image's own unprivileged user, to whom /home/vllm belongs."""

HOME = "/home/vllm"
HOST_HOME = "/var/lib/vllm"
"""The host's directory under HOME: a restarted task finds model and compiled kernels there."""


@dataclass(frozen=True)
class VllmClusterArgs:
    settings: Settings
    account: Account


class VllmCluster(pulumi.ComponentResource):
    """The cluster, its GPU group, the service, and the load balancer that leads to it."""

    cluster_name: str
    service_name: str
    asg_name: str
    log_group: str
    target_group_arn: pulumi.Output[str]
    base_url: pulumi.Output[str]
    """What an OpenAI client takes: `http://<load balancer>/v1`."""
    alb_security_group_id: pulumi.Output[str]
    alb_port: int
    """Whoever may ask vLLM adds a rule for this port to that group."""

    def __init__(self, name: str, args: VllmClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:VllmCluster", name, None, opts)
        self._settings, self._account = args.settings, args.account
        self._child = pulumi.ResourceOptions(parent=self)
        self.cluster_name = args.settings.name("vllm-cluster", 255)
        self.service_name = args.settings.name("vllm-service", 255)
        self.asg_name = args.settings.name("vllm-asg", 255)
        self.log_group = f"/ecs/{args.settings.prefix}-vllm"
        self.alb_port = 443 if args.settings.vllm_certificate_arn else 80

        alb_group, instance_group = self._create_security_groups()
        alb, target_group, listener = self._create_load_balancer(alb_group)
        self._create_service(self._create_capacity(instance_group), self._create_task(), target_group, listener)

        self.target_group_arn = target_group.arn
        self.alb_security_group_id = alb_group.id
        self.base_url = self._publish_base_url(alb)
        self.register_outputs({"base_url": self.base_url, "target_group_arn": self.target_group_arn})

    def _create_security_groups(self) -> tuple[aws.ec2.SecurityGroup, aws.ec2.SecurityGroup]:
        """Clients -> load balancer -> instance, each by reference to the one before; nobody else comes in."""
        settings, account = self._settings, self._account
        alb = security_groups.create(self, settings, account, "vllm-alb", "The load balancer of vLLM")
        instance = security_groups.create(self, settings, account, "vllm-instance", "The GPU instances of vLLM")
        security_groups.allow(
            self, settings, "vllm-alb-to-instance", alb.id, instance.id, PORT, "Requests and health checks to vLLM"
        )
        security_groups.allow_https_out(
            self, settings, "vllm-instance-out", instance.id, "ECS, the image registry and the model hub"
        )
        return alb, instance

    def _create_load_balancer(
        self, security_group: aws.ec2.SecurityGroup
    ) -> tuple[aws.lb.LoadBalancer, aws.lb.TargetGroup, aws.lb.Listener]:
        settings = self._settings
        alb = aws.lb.LoadBalancer(
            "vllm-alb",
            name=settings.name("vllm-alb", 32),
            internal=True,
            load_balancer_type="application",
            security_groups=[security_group.id],
            subnets=self._account.subnet_ids,
            idle_timeout=IDLE_SECONDS,
            drop_invalid_header_fields=True,
            enable_deletion_protection=settings.deletion_protection,
            access_logs=(
                aws.lb.LoadBalancerAccessLogsArgs(
                    bucket=settings.access_logs_bucket, prefix=settings.name("vllm-alb"), enabled=True
                )
                if settings.access_logs_bucket
                else None
            ),
            tags=settings.tags,
            opts=self._child,
        )
        target_group = aws.lb.TargetGroup(
            "vllm",
            name=settings.name("vllm", 32),
            vpc_id=self._account.vpc_id,
            target_type="instance",
            port=PORT,
            protocol="HTTP",
            # Completions differ in length by an order of magnitude: round robin would pile them up.
            load_balancing_algorithm_type="least_outstanding_requests",
            deregistration_delay=DEREGISTRATION_SECONDS,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                path="/health", matcher="200", interval=15, timeout=5, healthy_threshold=2, unhealthy_threshold=4
            ),
            tags=settings.tags,
            opts=self._child,
        )
        listener = aws.lb.Listener(
            "vllm",
            load_balancer_arn=alb.arn,
            port=self.alb_port,
            protocol="HTTPS" if settings.vllm_certificate_arn else "HTTP",
            certificate_arn=settings.vllm_certificate_arn or None,
            ssl_policy="ELBSecurityPolicy-TLS13-1-2-2021-06" if settings.vllm_certificate_arn else None,
            default_actions=[aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=target_group.arn)],
            tags=settings.tags,
            opts=self._child,
        )
        return alb, target_group, listener

    def _create_capacity(self, security_group: aws.ec2.SecurityGroup) -> aws.ecs.ClusterCapacityProviders:
        """The cluster with its GPU group, which the capacity provider joins to it without scaling it."""
        settings = self._settings
        cluster = aws.ecs.Cluster(
            "vllm-cluster",
            name=self.cluster_name,
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value="enabled")],
            tags=settings.tags,
            opts=self._child,
        )
        group = self._create_group(self._create_launch_template(security_group))
        provider = aws.ecs.CapacityProvider(
            "vllm",
            name=settings.name("vllm", 255),
            auto_scaling_group_provider=aws.ecs.CapacityProviderAutoScalingGroupProviderArgs(
                auto_scaling_group_arn=group.arn,
                managed_scaling=aws.ecs.CapacityProviderAutoScalingGroupProviderManagedScalingArgs(status="DISABLED"),
                # Protection would outlive the tasks and keep the group from shrinking (containers-roadmap#2814).
                managed_termination_protection="DISABLED",
                managed_draining="ENABLED",
            ),
            tags=settings.tags,
            opts=self._child,
        )
        return aws.ecs.ClusterCapacityProviders(
            "vllm",
            cluster_name=cluster.name,
            capacity_providers=[provider.name],
            default_capacity_provider_strategies=[
                aws.ecs.ClusterCapacityProvidersDefaultCapacityProviderStrategyArgs(
                    capacity_provider=provider.name, weight=1
                )
            ],
            opts=self._child,
        )

    def _create_launch_template(self, security_group: aws.ec2.SecurityGroup) -> aws.ec2.LaunchTemplate:
        settings = self._settings
        profile_arn = roles.instance_profile_arn(
            self,
            settings,
            self._account,
            "vllm-instance",
            given=settings.vllm_instance_profile_arn,
            cluster=self.cluster_name,
        )
        return aws.ec2.LaunchTemplate(
            "vllm",
            name=settings.name("vllm", 128),
            image_id=aws.ssm.get_parameter(name=GPU_AMI).value,
            update_default_version=True,
            iam_instance_profile=aws.ec2.LaunchTemplateIamInstanceProfileArgs(arn=profile_arn),
            vpc_security_group_ids=[security_group.id],
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_type="gp3",
                        volume_size=settings.vllm_root_volume_gib,
                        # Unpacking the image and reading the weights wait for this disk in every cold start.
                        throughput=500,
                        iops=4000,
                        encrypted="true",
                        delete_on_termination="true",
                    ),
                )
            ],
            user_data=base64.b64encode(self._user_data().encode()).decode(),
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(
                    resource_type=kind, tags={**settings.tags, "Name": self.asg_name}
                )
                for kind in ("instance", "volume", "network-interface")
            ],
            tags=settings.tags,
            opts=self._child,
        )

    def _user_data(self) -> str:
        # Draining is off by default. A cached image saves minutes when the operator scales down and up again.
        return f"""#!/bin/bash
set -euo pipefail
cat >> /etc/ecs/ecs.config <<'CONFIG'
ECS_CLUSTER={self.cluster_name}
ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE=true
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
ECS_IMAGE_PULL_INACTIVITY_TIMEOUT=5m
CONFIG
install -d -o {USER.split(":")[0]} -g {USER.split(":")[1]} -m 0770 {HOST_HOME}
"""

    def _create_group(self, template: aws.ec2.LaunchTemplate) -> aws.autoscaling.Group:
        settings = self._settings
        return aws.autoscaling.Group(
            "vllm-asg",
            name=self.asg_name,
            min_size=settings.vllm_min_instances,
            max_size=settings.vllm_max_instances,
            desired_capacity=settings.vllm_min_instances,
            vpc_zone_identifiers=self._account.subnet_ids,
            mixed_instances_policy=aws.autoscaling.GroupMixedInstancesPolicyArgs(
                instances_distribution=aws.autoscaling.GroupMixedInstancesPolicyInstancesDistributionArgs(
                    on_demand_base_capacity=settings.vllm_on_demand_instances,
                    on_demand_percentage_above_base_capacity=0,
                    on_demand_allocation_strategy="prioritized",
                    # AWS's advice for most workloads; the order of preference counts for on-demand only.
                    spot_allocation_strategy="price-capacity-optimized",
                ),
                launch_template=aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateArgs(
                    launch_template_specification=(
                        aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateLaunchTemplateSpecificationArgs(
                            launch_template_id=template.id, version=template.latest_version.apply(str)
                        )
                    ),
                    overrides=[
                        aws.autoscaling.GroupMixedInstancesPolicyLaunchTemplateOverrideArgs(instance_type=kind)
                        for kind in settings.vllm_instance_types
                    ],
                ),
            ),
            # ECS hears nothing of a rebalancing removal, which would cut requests off (docs/adr/0002).
            capacity_rebalance=False,
            protect_from_scale_in=False,
            health_check_type="EC2",
            wait_for_capacity_timeout="0",
            tags=[
                aws.autoscaling.GroupTagArgs(key=key, value=value, propagate_at_launch=True)
                for key, value in {**settings.tags, "AmazonECSManaged": "true"}.items()
            ],
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["desired_capacity"]),
        )

    def _create_task(self) -> aws.ecs.TaskDefinition:
        settings = self._settings
        log_group = aws.cloudwatch.LogGroup(
            "vllm",
            name=self.log_group,
            retention_in_days=settings.log_retention_days,
            kms_key_id=settings.kms_key_arn or None,
            tags=settings.tags,
            opts=self._child,
        )
        secrets = self._secrets()
        execution_role_arn = roles.role_arn(
            self,
            settings,
            "vllm-execution",
            given=settings.vllm_execution_role_arn,
            trust=policies.trust("ecs-tasks.amazonaws.com", self._account),
            policy=policies.task_execution(
                self._account, self.log_group, settings.vllm_image, list(secrets.values()), settings.kms_key_arn
            ),
        )
        container: dict[str, Any] = {
            "name": "vllm",
            "image": settings.vllm_image,
            "essential": True,
            "command": self._command(),
            "user": USER,
            "readonlyRootFilesystem": True,
            "memory": settings.vllm_container_mib,
            "resourceRequirements": [{"type": "GPU", "value": "1"}],
            "portMappings": [{"containerPort": PORT, "hostPort": PORT, "protocol": "tcp"}],
            "environment": [
                {"name": key, "value": value}
                for key, value in {
                    "HOME": HOME,
                    "HF_HOME": f"{HOME}/.cache/huggingface",
                    "TORCHINDUCTOR_CACHE_DIR": f"{HOME}/.cache/torchinductor",
                    "TRITON_CACHE_DIR": f"{HOME}/.cache/triton",
                    "VLLM_CACHE_ROOT": f"{HOME}/.cache/vllm",
                    "VLLM_NO_USAGE_STATS": "1",
                }.items()
            ],
            "secrets": [{"name": key, "valueFrom": arn} for key, arn in secrets.items()],
            "mountPoints": [{"sourceVolume": "home", "containerPath": HOME, "readOnly": False}],
            "linuxParameters": {
                "initProcessEnabled": True,
                "sharedMemorySize": 1024,
                "tmpfs": [{"containerPath": "/tmp", "size": 1024, "mountOptions": ["exec"]}],  # noqa: S108
            },
            "stopTimeout": STOP_SECONDS,
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": self.log_group,
                    "awslogs-region": self._account.region,
                    "awslogs-stream-prefix": "vllm",
                },
            },
        }
        return aws.ecs.TaskDefinition(
            "vllm",
            family=settings.name("vllm", 255),
            network_mode="host",
            requires_compatibilities=["EC2"],
            # vLLM calls no AWS service: it has an execution role to be started with, and no role of its own.
            execution_role_arn=execution_role_arn,
            container_definitions=json.dumps([container]),
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name="home", host_path=HOST_HOME)],
            tags=settings.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group]),
        )

    def _secrets(self) -> dict[str, str]:
        """Environment names to the secrets that ECS fills them from."""
        given = {
            "HF_TOKEN": self._settings.hugging_face_token_secret_arn,
            "VLLM_API_KEY": self._settings.llm_api_key_secret_arn,
        }
        return {key: arn for key, arn in given.items() if arn}

    def _command(self) -> list[str]:
        """vLLM's arguments; the image's entry point is `vllm serve` already."""
        settings = self._settings
        options = {
            "--served-model-name": settings.served_model_name,
            "--port": str(PORT),
            "--max-model-len": str(settings.vllm_max_model_len),
            "--max-num-seqs": str(settings.vllm_seqs),
            # More than all batches send at once; beyond it a 503 tells the client to come back.
            "--max-num-queued-reqs": str(4 * settings.vllm_seqs),
            "--gpu-memory-utilization": f"{gpu.MEMORY_UTILISATION:.2f}",
            # Qwen3 would think aloud before each name, at several times the cost.
            "--default-chat-template-kwargs": json.dumps({"enable_thinking": False}),
            "--shutdown-timeout": str(SHUTDOWN_SECONDS),
            "--dtype": "half" if settings.vllm_needs_half else "auto",
        }
        switches = ["--disable-uvicorn-access-log", "--enable-prompt-tokens-details"]
        return [settings.vllm_model, *(word for option in options.items() for word in option), *switches]

    def _create_service(
        self,
        capacity: aws.ecs.ClusterCapacityProviders,
        task: aws.ecs.TaskDefinition,
        target_group: aws.lb.TargetGroup,
        listener: aws.lb.Listener,
    ) -> None:
        aws.ecs.Service(
            "vllm-service",
            name=self.service_name,
            cluster=capacity.cluster_name,
            task_definition=task.arn,
            desired_count=self._settings.vllm_min_instances,
            capacity_provider_strategies=[
                aws.ecs.ServiceCapacityProviderStrategyArgs(
                    capacity_provider=self._settings.name("vllm", 255), weight=1
                )
            ],
            load_balancers=[
                aws.ecs.ServiceLoadBalancerArgs(
                    target_group_arn=target_group.arn, container_name="vllm", container_port=PORT
                )
            ],
            # A host-mode task holds its instance's port, so a new one can only follow the old one.
            deployment_minimum_healthy_percent=0,
            deployment_maximum_percent=100,
            availability_zone_rebalancing="DISABLED",  # it needs a maximum above 100 percent
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            health_check_grace_period_seconds=COLD_START_SECONDS,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            wait_for_steady_state=False,
            tags=self._settings.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[listener], ignore_changes=["desired_count"]),
        )

    def _publish_base_url(self, alb: aws.lb.LoadBalancer) -> pulumi.Output[str]:
        settings = self._settings
        base_url = (
            pulumi.Output.from_input(f"https://{settings.vllm_hostname}/v1")
            if settings.vllm_certificate_arn
            else pulumi.Output.format("http://{0}/v1", alb.dns_name)
        )
        aws.ssm.Parameter(
            "vllm-base-url",
            name=f"/{settings.prefix}/vllm/base_url",
            type="String",
            value=base_url,
            description="Where this stack's vLLM answers",
            tags=settings.tags,
            opts=self._child,
        )
        return base_url
