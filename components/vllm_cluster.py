"""vLLM on one ECS cluster of GPU Spot instances, behind an internal load balancer, scaled by hand.

The operator sets the group's `desired_capacity` and the service's `desired_count` with `ftm vllm scale`. A new stack
starts at the minimum, which is zero by default, and later deployments leave both numbers alone. docs/adr explains host
network mode, Spot, manual scaling, and what a cold start costs.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components import gpu, policies, roles, security_groups
from components.account import Account
from components.settings import AdoptedResources, LlmSettings, StackSettings, VllmSettings

GPU_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"

PORT = 8000
"""vLLM's port. In host mode it is the instance's own port, so that an instance holds one task."""

# A Spot instance ends two minutes after its notice. In that time requests finish, then the server shuts down, then ECS
# kills the container: 110 s in all.
DEREGISTRATION_SECONDS = 45
SHUTDOWN_SECONDS = 50
STOP_SECONDS = SHUTDOWN_SECONDS + 15

IDLE_SECONDS = 300
"""The load balancer's idle timeout. A completion sends nothing while it waits in vLLM's queue, and the default of 60 s
would cut it off."""

KEEP_ALIVE_SECONDS = IDLE_SECONDS + 30
"""vLLM must keep idle connections longer than the load balancer does: otherwise the load balancer sends a request on a
connection that vLLM has just closed, and answers 502. vLLM's default is 5 s."""

COLD_START_SECONDS = 1800
"""Time for image pull, model download, loading and compiling, with a margin; docs/adr/0002 has the parts."""

USER = "2000:0"
"""The image's own unprivileged user, who owns /home/vllm."""

HOME = "/home/vllm"
HOST_HOME = "/var/lib/vllm"
"""The host's directory that is mounted at HOME: a restarted task finds the model and compiled kernels in it."""


@dataclass(frozen=True)
class VllmClusterArgs:
    stack: StackSettings
    vllm: VllmSettings
    llm: LlmSettings
    adopted: AdoptedResources
    account: Account


class VllmCluster(pulumi.ComponentResource):
    """The cluster, its GPU instances, the service, and the load balancer in front of it."""

    cluster_name: str
    service_name: str
    asg_name: str
    log_group: str
    target_group_arn: pulumi.Output[str]
    base_url: pulumi.Output[str]
    """The base URL for an OpenAI client: `http://<load balancer>/v1`."""
    model_name: str
    """The model's name in requests."""
    alb_security_group_id: pulumi.Output[str]
    alb_port: int
    """A client of vLLM adds a rule for this port to the load balancer's security group."""
    group_name: pulumi.Output[str]
    """The Auto Scaling group's name, known once the group exists."""
    service_resource_id: pulumi.Output[str]
    """The service in Application Auto Scaling: `service/<cluster>/<service>`."""
    alb_dimension: pulumi.Output[str]
    """The load balancer in CloudWatch's metrics: `app/<name>/<id>`."""
    target_group_dimension: pulumi.Output[str]
    """The target group in CloudWatch's metrics: `targetgroup/<name>/<id>`."""

    def __init__(self, name: str, args: VllmClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:VllmCluster", name, None, opts)
        self._stack, self._vllm, self._adopted = args.stack, args.vllm, args.adopted
        self._api_key_secret_arn, self._account = args.llm.api_key_secret_arn, args.account
        self._child = pulumi.ResourceOptions(parent=self)
        self.cluster_name = args.stack.name("vllm-cluster", 255)
        self.service_name = args.stack.name("vllm-service", 255)
        self.asg_name = args.stack.name("vllm-asg", 255)
        self.log_group = f"/ecs/{args.stack.prefix}-vllm"
        self.model_name = args.vllm.model_name
        self.alb_port = 443 if args.vllm.certificate_arn else 80

        alb_group, instance_group, to_instance, out = self._create_security_groups()
        alb, target_group, listener = self._create_load_balancer(alb_group)
        group, capacity = self._create_capacity(instance_group, out)
        service = self._create_service(capacity, self._create_task(), target_group, [listener, *to_instance])

        self.target_group_arn = target_group.arn
        self.alb_security_group_id = alb_group.id
        self.group_name = group.name
        self.service_resource_id = pulumi.Output.concat("service/", self.cluster_name, "/", service.name)
        self.alb_dimension = alb.arn_suffix
        self.target_group_dimension = target_group.arn_suffix
        self.base_url = self._publish_base_url(alb)
        self.register_outputs({"base_url": self.base_url, "target_group_arn": self.target_group_arn})

    def _create_security_groups(
        self,
    ) -> tuple[aws.ec2.SecurityGroup, aws.ec2.SecurityGroup, list[pulumi.Resource], pulumi.Resource]:
        """The groups of the load balancer and of the instances, the rules between them, and the outbound rule."""
        stack, account = self._stack, self._account
        # EC2 accepts no apostrophe in a description.
        alb = security_groups.create(self, stack, account, "vllm-alb", "The load balancer of vLLM")
        instance = security_groups.create(self, stack, account, "vllm-instance", "The GPU instances of vLLM")
        to_instance = security_groups.allow(
            self, stack, "vllm-alb-to-instance", alb.id, instance.id, PORT, "Requests and health checks to vLLM"
        )
        out = security_groups.allow_https_out(
            self, stack, "vllm-instance-out", instance.id, "ECS, the image registry and the model hub"
        )
        return alb, instance, to_instance, out

    def _create_load_balancer(
        self, security_group: aws.ec2.SecurityGroup
    ) -> tuple[aws.lb.LoadBalancer, aws.lb.TargetGroup, aws.lb.Listener]:
        stack, certificate_arn = self._stack, self._vllm.certificate_arn
        alb = aws.lb.LoadBalancer(
            "vllm-alb",
            name=stack.name("vllm-alb", 32),
            internal=True,
            load_balancer_type="application",
            security_groups=[security_group.id],
            subnets=self._account.subnet_ids,
            idle_timeout=IDLE_SECONDS,
            drop_invalid_header_fields=True,
            # It holds no data, and protected from deletion it would make `pulumi destroy` fail halfway.
            enable_deletion_protection=False,
            access_logs=(
                aws.lb.LoadBalancerAccessLogsArgs(
                    bucket=self._adopted.access_logs_bucket, prefix=stack.name("vllm-alb"), enabled=True
                )
                if self._adopted.access_logs_bucket
                else None
            ),
            tags=stack.tags,
            opts=self._child,
        )
        target_group = aws.lb.TargetGroup(
            "vllm",
            name=stack.name("vllm", 32),
            vpc_id=self._account.vpc_id,
            target_type="instance",
            port=PORT,
            protocol="HTTP",
            # Completions differ in length by an order of magnitude: with round robin, long ones would pile up.
            load_balancing_algorithm_type="least_outstanding_requests",
            deregistration_delay=DEREGISTRATION_SECONDS,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                path="/health", matcher="200", interval=15, timeout=5, healthy_threshold=2, unhealthy_threshold=4
            ),
            tags=stack.tags,
            opts=self._child,
        )
        listener = aws.lb.Listener(
            "vllm",
            load_balancer_arn=alb.arn,
            port=self.alb_port,
            protocol="HTTPS" if certificate_arn else "HTTP",
            certificate_arn=certificate_arn,
            ssl_policy="ELBSecurityPolicy-TLS13-1-2-2021-06" if certificate_arn else None,
            default_actions=[aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=target_group.arn)],
            tags=stack.tags,
            opts=self._child,
        )
        return alb, target_group, listener

    def _create_capacity(
        self, security_group: aws.ec2.SecurityGroup, out: pulumi.Resource
    ) -> tuple[aws.autoscaling.Group, aws.ecs.ClusterCapacityProviders]:
        """The GPU instances and their cluster, connected by a capacity provider that does not scale the group.

        The group depends on the cluster, on the instances' outbound rule and, through its template, on their
        permissions: if `pulumi destroy` deleted one of these first, the ECS agents could not stop their tasks, and the
        service would hang in DRAINING.
        """
        stack = self._stack
        cluster = aws.ecs.Cluster(
            "vllm-cluster",
            name=self.cluster_name,
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value="enabled")],
            tags=stack.tags,
            opts=self._child,
        )
        group = self._create_group(self._create_launch_template(security_group), [cluster, out])
        provider = aws.ecs.CapacityProvider(
            "vllm",
            name=stack.name("vllm", 255),
            auto_scaling_group_provider=aws.ecs.CapacityProviderAutoScalingGroupProviderArgs(
                auto_scaling_group_arn=group.arn,
                managed_scaling=aws.ecs.CapacityProviderAutoScalingGroupProviderManagedScalingArgs(status="DISABLED"),
                # This protection stays on after the tasks end, and keeps the group from shrinking
                # (containers-roadmap#2814).
                managed_termination_protection="DISABLED",
                managed_draining="ENABLED",
            ),
            tags=stack.tags,
            opts=self._child,
        )
        return group, aws.ecs.ClusterCapacityProviders(
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
        stack = self._stack
        profile_arn = roles.instance_profile_arn(
            self,
            stack,
            self._account,
            "vllm-instance",
            given=self._adopted.vllm_instance_profile_arn,
            cluster=self.cluster_name,
        )
        return aws.ec2.LaunchTemplate(
            "vllm",
            name=stack.name("vllm", 128),
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
                        volume_size=self._vllm.root_volume_gib,
                        # Every cold start unpacks the image to this disk and reads the weights from it.
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
                    resource_type=kind, tags={**stack.tags, "Name": self.asg_name}
                )
                for kind in ("instance", "volume", "network-interface")
            ],
            tags=stack.tags,
            opts=self._child,
        )

    def _user_data(self) -> str:
        # Spot draining is off by default. A cached image saves minutes when a task restarts on the same instance.
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

    def _create_group(self, template: aws.ec2.LaunchTemplate, needed: list[pulumi.Resource]) -> aws.autoscaling.Group:
        vllm = self._vllm
        return aws.autoscaling.Group(
            "vllm-asg",
            name=self.asg_name,
            min_size=vllm.min_instances,
            max_size=vllm.max_instances,
            desired_capacity=vllm.min_instances,
            vpc_zone_identifiers=self._account.subnet_ids,
            mixed_instances_policy=aws.autoscaling.GroupMixedInstancesPolicyArgs(
                instances_distribution=aws.autoscaling.GroupMixedInstancesPolicyInstancesDistributionArgs(
                    on_demand_base_capacity=vllm.on_demand_instances,
                    on_demand_percentage_above_base_capacity=0,
                    on_demand_allocation_strategy="prioritized",
                    # AWS's advice for most workloads. The order of preference applies to on-demand instances only.
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
                        for kind in vllm.instance_types
                    ],
                ),
            ),
            # ECS gets no notice of a rebalancing removal, which would cut off requests (docs/adr/0002).
            capacity_rebalance=False,
            protect_from_scale_in=False,
            health_check_type="EC2",
            wait_for_capacity_timeout="0",
            enabled_metrics=[
                aws.autoscaling.Metric.GROUP_DESIRED_CAPACITY,
                aws.autoscaling.Metric.GROUP_IN_SERVICE_INSTANCES,
                aws.autoscaling.Metric.GROUP_TOTAL_INSTANCES,
            ],
            tags=[
                aws.autoscaling.GroupTagArgs(key=key, value=value, propagate_at_launch=True)
                for key, value in {**self._stack.tags, "AmazonECSManaged": "true"}.items()
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed, ignore_changes=["desired_capacity"]),
        )

    def _create_task(self) -> aws.ecs.TaskDefinition:
        stack, vllm = self._stack, self._vllm
        log_group = aws.cloudwatch.LogGroup(
            "vllm",
            name=self.log_group,
            retention_in_days=stack.log_retention_days,
            kms_key_id=stack.kms_key_arn,
            tags=stack.tags,
            opts=self._child,
        )
        secrets = self._secrets()
        execution_role_arn = roles.role_arn(
            self,
            stack,
            "vllm-execution",
            given=self._adopted.vllm_execution_role_arn,
            trust=policies.trust("ecs-tasks.amazonaws.com", self._account),
            policy=policies.task_execution(
                self._account, self.log_group, vllm.image, list(secrets.values()), stack.kms_key_arn
            ),
        )
        container: dict[str, Any] = {
            "name": "vllm",
            "image": vllm.image,
            "essential": True,
            "command": self._command(),
            "user": USER,
            "readonlyRootFilesystem": True,
            "memory": vllm.container_mib,
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
                    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
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
            family=stack.name("vllm", 255),
            network_mode="host",
            requires_compatibilities=["EC2"],
            # vLLM calls no AWS service: it has an execution role, with which ECS starts it, and no role of its own.
            execution_role_arn=execution_role_arn,
            container_definitions=json.dumps([container]),
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name="home", host_path=HOST_HOME)],
            # The circuit breaker rolls back to the previous revision, which must still be active.
            skip_destroy=True,
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group]),
        )

    def _secrets(self) -> dict[str, str]:
        """The environment variables that ECS fills from secrets, with the secrets' ARNs."""
        given = {"HF_TOKEN": self._vllm.hugging_face_token_secret_arn, "VLLM_API_KEY": self._api_key_secret_arn}
        return {key: arn for key, arn in given.items() if arn}

    def _command(self) -> list[str]:
        """vLLM's arguments; the image's entry point is already `vllm serve`."""
        vllm = self._vllm
        options = {
            "--served-model-name": vllm.model_name,
            "--port": str(PORT),
            "--max-model-len": str(vllm.max_model_len),
            "--max-num-seqs": str(vllm.sequences),
            # More than all batches send at once. Beyond it vLLM answers 503, and the client tries again.
            "--max-num-queued-reqs": str(4 * vllm.sequences),
            "--gpu-memory-utilization": f"{gpu.MEMORY_UTILISATION:.2f}",
            # Without this, Qwen3 writes out its reasoning before each name, at several times the cost.
            "--default-chat-template-kwargs": json.dumps({"enable_thinking": False}),
            "--shutdown-timeout": str(SHUTDOWN_SECONDS),
            "--dtype": "half" if vllm.needs_half else "auto",
        }
        switches = ["--disable-uvicorn-access-log", "--enable-prompt-tokens-details"]
        return [vllm.model, *(word for option in options.items() for word in option), *switches]

    def _create_service(
        self,
        capacity: aws.ecs.ClusterCapacityProviders,
        task: aws.ecs.TaskDefinition,
        target_group: aws.lb.TargetGroup,
        needed: list[pulumi.Resource],
    ) -> aws.ecs.Service:
        """The service. It depends on `needed`, the listener and the rules between load balancer and instances, so that
        `pulumi destroy` drains its targets while these still exist."""
        return aws.ecs.Service(
            "vllm-service",
            name=self.service_name,
            cluster=capacity.cluster_name,
            task_definition=task.arn,
            desired_count=self._vllm.min_instances,
            capacity_provider_strategies=[
                aws.ecs.ServiceCapacityProviderStrategyArgs(capacity_provider=self._stack.name("vllm", 255), weight=1)
            ],
            load_balancers=[
                aws.ecs.ServiceLoadBalancerArgs(
                    target_group_arn=target_group.arn, container_name="vllm", container_port=PORT
                )
            ],
            # A host-mode task occupies its instance's port, so a new task starts only after the old one has ended.
            deployment_minimum_healthy_percent=0,
            deployment_maximum_percent=100,
            availability_zone_rebalancing="DISABLED",  # it needs a maximum above 100 percent
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(enable=True, rollback=True),
            health_check_grace_period_seconds=COLD_START_SECONDS,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            wait_for_steady_state=False,
            tags=self._stack.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed, ignore_changes=["desired_count"]),
        )

    def _publish_base_url(self, alb: aws.lb.LoadBalancer) -> pulumi.Output[str]:
        stack = self._stack
        base_url = (
            pulumi.Output.from_input(f"https://{self._vllm.hostname}/v1")
            if self._vllm.certificate_arn
            else pulumi.Output.format("http://{0}/v1", alb.dns_name)
        )
        aws.ssm.Parameter(
            "vllm-base-url",
            name=f"/{stack.prefix}/vllm/base_url",
            type="String",
            value=base_url,
            description="Base URL of this stack's vLLM",
            tags=stack.tags,
            opts=self._child,
        )
        return base_url
