"""The registered state machines and functions."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from statelint.linter import Linter

from testing.paper_cloud import ACCOUNT, EVERYTHING_GIVEN, REGION, VARIANTS, Deploy

ROOT = Path(__file__).parents[2]
MODULES = ("prefetch_check", "create_batch_manifest", "summarize_results", "notify_completion")


def statements(deployed: Any, role: str) -> list[dict[str, Any]]:
    return json.loads(deployed.one("iam/rolePolicy:RolePolicy", role)["policy"])["Statement"]


def actions(deployed: Any, role: str) -> dict[str, list[str]]:
    """The resources on which a role may perform each action."""
    allowed: dict[str, list[str]] = {}
    for statement in statements(deployed, role):
        for action in statement["Action"]:
            allowed.setdefault(action, []).extend(statement["Resource"])
    return allowed


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_state_machines_pass_the_linter(deploy: Deploy, variant: str) -> None:
    machines = deploy(**VARIANTS[variant]).all("sfn/stateMachine:StateMachine")
    assert {machine.inputs["name"] for machine in machines} == {"ftm-quarter-processor", "ftm-quarters"}
    for machine in machines:
        assert Linter.validate(json.loads(machine.inputs["definition"])) == []


def test_the_quarter_calls_the_functions_and_the_newest_job_definition(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    machine = deployed.one("sfn/stateMachine:StateMachine", "quarter-processor")
    states = json.loads(machine["definition"])["States"]
    called = [states[name]["Resource"] for name in ("CheckPrefetch", "CreateBatchManifest", "SummarizeResults")]
    assert called == [
        f"arn:aws:lambda:{REGION}:{ACCOUNT}:{name}"
        for name in ("prefetch-check", "create-batch-manifest", "summarize-results")
    ]
    assert states["ProcessBatches"]["MaxConcurrency"] == 7
    submit = states["ProcessBatches"]["ItemProcessor"]["States"]["SubmitBatchJob"]
    assert submit["Parameters"]["JobDefinition"].endswith("worker")
    assert submit["TimeoutSeconds"] == (5 * 2 + 24) * 3600


def test_the_machine_of_several_quarters_starts_the_machine_of_one(deploy: Deploy) -> None:
    machine = deploy().one("sfn/stateMachine:StateMachine", "quarters")
    run = json.loads(machine["definition"])["States"]["ProcessQuarters"]["ItemProcessor"]["States"]["RunQuarter"]
    assert run["Parameters"]["StateMachineArn"] == f"arn:aws:sfn:{REGION}:{ACCOUNT}:quarter-processor"


def test_machines_log_all_levels_without_data_and_are_traced(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    for machine in deployed.all("sfn/stateMachine:StateMachine"):
        logging = machine.inputs["loggingConfiguration"]
        assert (logging["level"], logging["includeExecutionData"]) == ("ALL", False)
        assert logging["logDestination"].endswith(":*")
        assert machine.inputs["tracingConfiguration"] == {"enabled": True}
        group = deployed.one("cloudwatch/logGroup:LogGroup", machine.name)
        assert group["name"] == f"/aws/vendedlogs/states/{machine.inputs['name']}"
        assert group["retentionInDays"] == 30


def test_the_functions_have_the_designed_settings(deploy: Deploy) -> None:
    deployed = deploy(**VARIANTS["every option"])
    functions = {function.inputs["handler"]: function.inputs for function in deployed.all("lambda/function:Function")}
    assert set(functions) == {f"functions.{module}.handler" for module in MODULES}
    for module in MODULES:
        function = functions[f"functions.{module}.handler"]
        assert function["name"] == f"ftm-{module.replace('_', '-')}"
        assert (function["runtime"], function["architectures"]) == ("python3.14", ["arm64"])
        assert function["tracingConfig"] == {"mode": "Active"}
        group = deployed.one("cloudwatch/logGroup:LogGroup", module.replace("_", "-"))
        assert group["name"] == f"/aws/lambda/{function['name']}"
    variables = functions["functions.summarize_results.handler"]["environment"]["variables"]
    assert variables["MIN_NAMED_SHARE"] == "0.9"
    assert variables["JOB_NAME_PREFIX"] == "ftm"
    assert "environment" not in deploy().one("lambda/function:Function", "notify-completion")
    assert functions["functions.create_batch_manifest.handler"]["environment"] == {
        "variables": {"LLM_MODEL_NAME": "namer", "LLM_MAX_CONCURRENT": "8"}
    }


def test_the_zip_contains_only_the_functions_and_the_contract(deploy: Deploy) -> None:
    (ROOT / "functions" / "__pycache__").mkdir(exist_ok=True)
    function = deploy().one("lambda/function:Function", "prefetch-check")
    names = set(function["code"].assets)
    assert {Path(name).parts[0] for name in names} == {"contract", "functions"}
    assert {Path(name).suffix for name in names} == {".py"}
    assert {f"functions/{module}.py" for module in MODULES} < names


def test_every_handler_can_be_imported_from_the_zip(deploy: Deploy, tmp_path: Path) -> None:
    for name, asset in deploy().one("lambda/function:Function", "prefetch-check")["code"].assets.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(Path(asset.path).read_bytes())
    imports = "; ".join(f"import functions.{module}" for module in MODULES)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {imports}; print(functions.__file__)"
    env = {"AWS_DEFAULT_REGION": REGION}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path))


def test_each_function_has_only_the_permissions_it_needs(deploy: Deploy) -> None:
    deployed = deploy()
    bucket = f"arn:aws:s3:::ftm-{ACCOUNT}-{REGION}"
    check, create, summarize, notify = (actions(deployed, name.replace("_", "-")) for name in MODULES)
    assert check["s3:GetObject"] == [f"{bucket}/prefetch/*"]
    assert "s3:PutObject" not in check
    assert create["s3:PutObject"] == [f"{bucket}/manifests/*/manifest_*"]
    assert summarize["s3:PutObject"] == [f"{bucket}/manifests/*/summary_*", f"{bucket}/progress/*/latest.json"]
    assert not [action for action in notify if action.startswith(("s3:", "sns:"))]
    assert summarize.pop("s3:DeleteObject") == [f"{bucket}/intermediate/firm-topics/*"]
    for allowed in (check, create, summarize, notify):
        assert not [action for action in allowed if "*" in action or "Delete" in action]


def test_functions_publish_only_on_the_stacks_topic_or_the_configured_one(deploy: Deploy) -> None:
    own, given = deploy(**VARIANTS["every option"]), deploy(**VARIANTS["everything given"])
    topics = own.one("sns/topic:Topic")["name"], EVERYTHING_GIVEN["snsTopicArn"]
    assert actions(own, "notify-completion")["sns:Publish"] == [f"arn:aws:sns:{REGION}:{ACCOUNT}:{topics[0]}"]
    assert given.one("lambda/function:Function", "notify-completion")["environment"] == {
        "variables": {"SNS_TOPIC_ARN": topics[1]}
    }


def test_the_quarter_machine_may_submit_any_revision_of_its_own_job_definition(deploy: Deploy) -> None:
    allowed = actions(deploy(), "quarter-processor")
    _, family, revisions = allowed["batch:SubmitJob"]
    assert revisions == f"{family}:*"
    assert allowed["events:PutRule"] == [
        f"arn:aws:events:{REGION}:{ACCOUNT}:rule/StepFunctionsGetEventsForBatchJobsRule"
    ]
    assert len(allowed["lambda:InvokeFunction"]) == 4
    assert all(
        arn.startswith(f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:ftm-") for arn in allowed["lambda:InvokeFunction"]
    )
    assert "states:StartExecution" not in allowed


def test_the_machine_of_several_quarters_may_only_start_the_machine_of_one(deploy: Deploy) -> None:
    allowed = actions(deploy(**VARIANTS["vLLM disabled"]), "quarters")
    assert allowed["states:StartExecution"] == [f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:ftm-quarter-processor"]
    assert allowed["states:StopExecution"] == [f"arn:aws:states:{REGION}:{ACCOUNT}:execution:ftm-quarter-processor:*"]
    assert not [action for action in allowed if action.startswith(("batch:", "lambda:", "s3:"))]


def test_the_quarters_machine_may_switch_this_stacks_vllm_and_no_other(deploy: Deploy) -> None:
    allowed = actions(deploy(), "quarters")
    group = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/ftm-vllm-asg"
    assert allowed["autoscaling:SetDesiredCapacity"] == [group]
    assert allowed["ecs:UpdateService"] == [f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/ftm-vllm-cluster/ftm-vllm-service"]
    machines = [
        f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:ftm-{name}" for name in ("quarter-processor", "quarters")
    ]
    assert allowed["states:ListExecutions"] == machines
    assert "autoscaling:UpdateAutoScalingGroup" not in allowed
    assert allowed["logs:GetLogEvents"] == [f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/batch/ftm:log-stream:*"]
    with_fallback = actions(deploy(**VARIANTS["every option"]), "quarters")
    assert with_fallback["autoscaling:UpdateAutoScalingGroup"] == [group]
    without = actions(deploy(**VARIANTS["vLLM disabled"]), "quarters")
    of_vllm = ("autoscaling:", "batch:", "ecs:", "elasticloadbalancing:")
    assert not [action for action in without if action.startswith(of_vllm)]


def test_the_smoke_test_runs_the_newest_worker_in_the_stacks_queue(deploy: Deploy) -> None:
    deployed = deploy()
    states = json.loads(deployed.one("sfn/stateMachine:StateMachine", "quarters")["definition"])["States"]
    quarter = json.loads(deployed.one("sfn/stateMachine:StateMachine", "quarter-processor")["definition"])["States"]
    job = states["RunSmokeTest"]["Parameters"]
    batch = quarter["ProcessBatches"]["ItemProcessor"]["States"]["SubmitBatchJob"]["Parameters"]
    assert (job["JobQueue"], job["JobDefinition"]) == (batch["JobQueue"], batch["JobDefinition"])
    assert states["ReadSmokeTestLog"]["Parameters"]["LogGroupName"] == "/aws/batch/ftm"
    allowed, needed = actions(deployed, "quarters"), actions(deployed, "quarter-processor")
    assert all(allowed[action] == needed[action] for action in needed if action.startswith("batch:"))


def test_the_end_of_a_stopped_list_starts_the_machine_that_cleans_up(deploy: Deploy) -> None:
    deployed = deploy()
    machine = deployed.run.outputs["quarters_state_machine_arn"]
    pattern = json.loads(deployed.one("cloudwatch/eventRule:EventRule", "quarters-stopped")["eventPattern"])
    assert pattern["detail"] == {"status": ["ABORTED", "TIMED_OUT"], "stateMachineArn": [machine]}
    target = deployed.one("cloudwatch/eventTarget:EventTarget", "quarters-stopped")
    assert (target["arn"], target["inputPath"]) == (machine, "$.detail")
    started = actions(deployed, "quarters-stopped")
    assert started == {"states:StartExecution": [f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:ftm-quarters"]}
    rules = deploy(**VARIANTS["vLLM disabled"]).all("cloudwatch/eventRule:EventRule")
    assert "quarters-stopped" not in [rule.name for rule in rules]


def test_roles_of_state_machines_can_only_be_assumed_for_this_account(deploy: Deploy) -> None:
    deployed = deploy()
    for name in ("quarter-processor", "quarters"):
        (statement,) = json.loads(deployed.one("iam/role:Role", name)["assumeRolePolicy"])["Statement"]
        assert statement["Principal"] == {"Service": "states.amazonaws.com"}
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
