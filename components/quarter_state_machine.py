"""The state machines that run one quarter and a list of quarters, and the four functions that the first one calls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components import definition, policies, roles
from components.account import Account
from components.batch_queue import ATTEMPTS
from components.settings import AdoptedResources, RunSettings, StackSettings, VllmSettings
from components.vllm_cluster import VllmCluster
from components.vllm_states import SmokeJob, VllmCalls
from contract import env

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("contract", "functions")

# The newest Python that Lambda offers. On arm64 it costs a fifth less.
_RUNTIME = aws.lambda_.Runtime.PYTHON3D14
_ARCHITECTURE = "arm64"

_HOUR = 60 * 60


@dataclass(frozen=True)
class QuarterStateMachineArgs:
    stack: StackSettings
    run: RunSettings
    adopted: AdoptedResources
    account: Account
    bucket_name: str
    topic_arn: str | None
    """The SNS topic that is notified when a run ends."""
    llm_model: str
    """The model that names topics: a run is not resumed with another one."""
    batch_timeout_hours: int
    """Hours of one attempt of a batch job."""
    job_queue_arn: pulumi.Input[str]
    job_definition_family: pulumi.Input[str]
    """ARN of the job definition without its revision: a batch always runs the newest revision."""
    batch_log_group: str
    llm_concurrency: int
    """Requests in flight from one job, unless a run's input has another number."""
    vllm: VllmCluster | None
    vllm_settings: VllmSettings


@dataclass(frozen=True)
class _Function:
    """What differs between the functions."""

    module: str
    statements: list[policies.Statement]
    timeout: int
    """Seconds; less than the timeout of the state that calls the function."""
    memory: int = 256
    """MiB. Lambda gives a function CPU time in proportion to it."""
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])

    @property
    def name(self) -> str:
        return self.module.replace("_", "-")


class QuarterStateMachine(pulumi.ComponentResource):
    """Two state machines: `<prefix>-quarter-processor`, and `<prefix>-quarters`, which starts it for each quarter."""

    arn: pulumi.Output[str]
    quarters_arn: pulumi.Output[str]
    function_names: list[str]

    def __init__(self, name: str, args: QuarterStateMachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:QuarterStateMachine", name, None, opts)
        self._args, self._stack = args, args.stack
        self.function_names = [args.stack.name(function.name) for function in self._functions()]
        functions = {function.module: self._create_function(function) for function in self._functions()}
        self.arn = self._create_quarter_machine(functions).arn
        self.quarters_arn = self._create_quarters_machine(self.arn).arn
        self.register_outputs({"arn": self.arn, "quarters_arn": self.quarters_arn})

    def _functions(self) -> list[_Function]:
        args, topic = self._args, self._args.topic_arn
        bucket, key = args.account.bucket_arn(args.bucket_name), args.stack.kms_key_arn
        return [
            _Function("prefetch_check", policies.prefetch_check_function(bucket, key), timeout=150),
            # The largest prefetch manifest takes 230 MiB.
            _Function(
                "create_batch_manifest",
                policies.create_batch_manifest_function(bucket, key),
                timeout=240,
                memory=512,
                environment={env.LLM_MODEL_NAME: args.llm_model}
                | ({env.LLM_MAX_CONCURRENT: str(args.llm_concurrency)} if args.vllm else {}),
            ),
            _Function(
                "summarize_results",
                policies.summarize_results_function(bucket, key),
                timeout=540,
                memory=512,
                environment={
                    env.MIN_NAMED_SHARE: str(args.run.min_named_share),
                    env.JOB_QUEUE_ARN: args.job_queue_arn,
                    env.JOB_NAME_PREFIX: args.stack.prefix,
                },
            ),
            _Function(
                "notify_completion",
                policies.notify_completion_function(topic, key),
                timeout=30,
                environment={env.SNS_TOPIC_ARN: topic} if topic else {},
            ),
        ]

    def _create_function(self, function: _Function) -> aws.lambda_.Function:
        stack = self._stack
        name = stack.name(function.name)
        log_group = self._create_log_group(function.name, f"/aws/lambda/{name}")
        statements = [*policies.function_logs(self._args.account, f"/aws/lambda/{name}"), *function.statements]
        role_arn = roles.role_arn(
            self,
            stack,
            function.name,
            given=self._args.adopted.functions_role_arn,
            trust=policies.trust("lambda.amazonaws.com"),
            policy=policies.document(*statements),
        )
        return aws.lambda_.Function(
            function.name,
            name=name,
            code=package(),
            runtime=_RUNTIME,
            architectures=[_ARCHITECTURE],
            handler=f"functions.{function.module}.handler",
            timeout=function.timeout,
            memory_size=function.memory,
            role=role_arn,
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=function.environment)
            if function.environment
            else None,
            # Lambda keeps a key only beside an environment; without one, every preview would show a change.
            kms_key_arn=stack.kms_key_arn if function.environment else None,
            tracing_config=aws.lambda_.FunctionTracingConfigArgs(mode="Active"),
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[log_group]),
        )

    def _create_quarter_machine(self, functions: Mapping[str, aws.lambda_.Function]) -> aws.sfn.StateMachine:
        args = self._args
        document = pulumi.Output.all(
            {module: function.arn for module, function in functions.items()},
            args.job_queue_arn,
            args.job_definition_family,
        ).apply(lambda known: self._quarter_document(*known))
        function_arns = [args.account.arn("lambda", f"function:{name}") for name in self.function_names]
        policy = pulumi.Output.all(args.job_queue_arn, args.job_definition_family).apply(
            lambda known: policies.document(*policies.quarter_state_machine(args.account, function_arns, *known))
        )
        return self._create_machine("quarter-processor", document, policy)

    def _create_quarters_machine(self, quarter_machine_arn: pulumi.Output[str]) -> aws.sfn.StateMachine:
        account, vllm = self._args.account, self._args.vllm
        names = [self._stack.name(name, 80) for name in ("quarter-processor", "quarters")]
        statements = policies.quarters_state_machine(account, names[0])
        if vllm is None:
            document = quarter_machine_arn.apply(lambda arn: json.dumps(definition.quarters(arn, account.partition)))
            return self._create_machine("quarters", document, policies.document(*statements))
        queue, family = self._args.job_queue_arn, self._args.job_definition_family
        document = pulumi.Output.all(quarter_machine_arn, vllm.target_group_arn, queue, family).apply(
            lambda known: json.dumps(
                definition.quarters(known[0], account.partition, self._vllm_calls(vllm, *known[1:]))
            )
        )
        statements += policies.switch_vllm(account, self._vllm_calls(vllm), names)
        policy = pulumi.Output.all(queue, family).apply(
            lambda known: policies.document(*statements, *policies.run_jobs(account, *known))
        )
        machine = self._create_machine("quarters", document, policy)
        self._clean_up_after_stop(machine)
        return machine

    def _vllm_calls(
        self, vllm: VllmCluster, target_group_arn: str = "", job_queue_arn: str = "", job_definition_family: str = ""
    ) -> VllmCalls:
        """The resources that the states around a list call. Without ARNs, enough to derive the permissions."""
        args, settings = self._args, self._args.vllm_settings
        job_definition = job_definition_family.split("/")[-1]
        return VllmCalls(
            vllm.asg_name,
            vllm.cluster_name,
            vllm.service_name,
            target_group_arn,
            SmokeJob(job_queue_arn, job_definition, args.batch_log_group, args.bucket_name, args.stack.prefix),
            minimum=settings.min_instances,
            on_demand=settings.on_demand_instances,
            fallback_minutes=settings.on_demand_fallback_minutes,
        )

    def _clean_up_after_stop(self, machine: aws.sfn.StateMachine) -> None:
        """Start another execution when one is stopped or times out, since that one can no longer switch vLLM off."""
        stack, account = self._stack, self._args.account
        rule = aws.cloudwatch.EventRule(
            "quarters-stopped",
            name=stack.name("quarters-stopped"),
            description="A list of quarters was stopped or timed out",
            event_pattern=pulumi.Output.json_dumps(
                {
                    "source": ["aws.states"],
                    "detail-type": ["Step Functions Execution Status Change"],
                    "detail": {"status": ["ABORTED", "TIMED_OUT"], "stateMachineArn": [machine.arn]},
                }
            ),
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        role_arn = roles.role_arn(
            self,
            stack,
            "quarters-stopped",
            given=self._args.adopted.state_machine_role_arn,
            trust=policies.trust("events.amazonaws.com", account),
            policy=policies.document(*policies.start_quarters(account, stack.name("quarters", 80))),
        )
        aws.cloudwatch.EventTarget(
            "quarters-stopped",
            rule=rule.name,
            arn=machine.arn,
            role_arn=role_arn,
            input_path="$.detail",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _quarter_document(self, functions: Mapping[str, str], job_queue: str, family: str) -> str:
        args = self._args
        calls = definition.QuarterCalls(
            **functions,
            job_queue=job_queue,
            job_definition=family.split("/")[-1],
            job_name_prefix=args.stack.prefix,
            sets_concurrency=args.vllm is not None,
            partition=args.account.partition,
        )
        # All attempts, and a day to wait for a Spot host.
        batch_timeout = (ATTEMPTS * args.batch_timeout_hours + 24) * _HOUR
        return json.dumps(definition.quarter(calls, args.run.map_concurrency, batch_timeout))

    def _create_machine(
        self, name: str, document: pulumi.Input[str], policy: pulumi.Input[str]
    ) -> aws.sfn.StateMachine:
        stack = self._stack
        full_name = stack.name(name, 80)
        # The prefix keeps the log group out of CloudWatch's resource policy, whose size is limited.
        log_group = self._create_log_group(name, f"/aws/vendedlogs/states/{full_name}")
        role_arn = roles.role_arn(
            self,
            stack,
            name,
            given=self._args.adopted.state_machine_role_arn,
            trust=policies.trust("states.amazonaws.com", self._args.account),
            policy=policy,
        )
        return aws.sfn.StateMachine(
            name,
            name=full_name,
            definition=document,
            role_arn=role_arn,
            logging_configuration=aws.sfn.StateMachineLoggingConfigurationArgs(
                level="ALL",
                include_execution_data=False,
                log_destination=pulumi.Output.concat(log_group.arn, ":*"),
            ),
            tracing_configuration=aws.sfn.StateMachineTracingConfigurationArgs(enabled=True),
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _create_log_group(self, name: str, log_group: str) -> aws.cloudwatch.LogGroup:
        stack = self._stack
        return aws.cloudwatch.LogGroup(
            name,
            name=log_group,
            retention_in_days=stack.log_retention_days,
            kms_key_id=stack.kms_key_arn,
            tags=stack.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )


def package() -> pulumi.AssetArchive:
    """The functions' zip: their modules and the contract's, sorted: the same source gives the same hash."""
    files = sorted(path for package in _PACKAGES for path in (_ROOT / package).glob("*.py"))
    return pulumi.AssetArchive({path.relative_to(_ROOT).as_posix(): pulumi.FileAsset(str(path)) for path in files})
