"""Features of Step Functions for which moto's interpreter is patched."""

import json
import sys
from collections import Counter

import pytest

from local.emulator import patching
from local.emulator.aws import EmbeddedAws
from local.emulator.listening import EmbeddedAwsError, listen
from testing.processes import until

SYNC_JOB = "arn:aws:states:::batch:submitJob.sync"
HOST_LOSS_ONLY = {"attempts": 3, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]}


def pass_through(**parameters):
    return {"StartAt": "P", "States": {"P": {"Type": "Pass", "Parameters": parameters, "End": True}}}


def job_task(queue, definition, **fields):
    return {
        "Type": "Task",
        "Resource": SYNC_JOB,
        "Parameters": {
            "JobName": "job",
            "JobQueue": queue,
            "JobDefinition": definition,
            "ContainerOverrides": {"Environment": [{"Name": "BATCH_ID", "Value.$": "$.id"}]},
        },
        "ResultSelector": {"status.$": "$.Status", "exit_code.$": "$.Container.ExitCode"},
        **fields,
    }


def one_job(queue, definition, **fields):
    return {"StartAt": "Job", "States": {"Job": job_task(queue, definition, End=True, **fields)}}


def output(execution):
    assert execution["status"] == "SUCCEEDED", execution
    return json.loads(execution["output"])


@pytest.fixture(scope="module")
def queue(aws):
    return aws.queue(max_vcpus=8)


def test_a_job_is_submitted_and_waited_for(aws, queue):
    definition = aws.job_definition("import os; assert os.environ['BATCH_ID'] == 'b1'")
    execution = aws.run(one_job(queue, definition), {"id": "b1"})
    assert output(execution) == {"status": "SUCCEEDED", "exit_code": 0}


def test_a_failed_job_can_be_caught_with_its_description(aws, queue):
    definition = aws.job_definition("raise SystemExit(3)")
    machine = one_job(queue, definition, Catch=[{"ErrorEquals": ["States.TaskFailed"], "Next": "Caught"}])
    machine["States"]["Caught"] = {"Type": "Pass", "End": True}
    error = output(aws.run(machine, {"id": "b1"}))
    assert error["Error"] == "States.TaskFailed"
    job = json.loads(error["Cause"])
    assert job["StatusReason"] == "Essential container in task exited"
    assert job["Attempts"][0]["Container"]["ExitCode"] == 3


def test_batch_retries_a_lost_host(aws, queue):
    definition = aws.job_definition(
        """
        import os, signal
        if os.environ["AWS_BATCH_JOB_ATTEMPT"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        retryStrategy=HOST_LOSS_ONLY,
    )
    execution = aws.run(one_job(queue, definition), {"id": "b1"})
    assert output(execution) == {"status": "SUCCEEDED", "exit_code": 0}


def test_parameters_of_services_whose_apis_are_in_lower_case(aws):
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:ecs:createCluster",
        "Parameters": {"ClusterName": "made-by-a-machine"},
        "ResultSelector": {"name.$": "$.Cluster.ClusterName"},
        "End": True,
    }
    assert output(aws.run({"StartAt": "T", "States": {"T": task}})) == {"name": "made-by-a-machine"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.l[0].x", 1),
        ("$.l[0]", {"x": 1}),
        ("$.l[*].x", [1, 2]),
        ("$.l[0:1].x", [1]),
        ("$.l[?(@.x == 2)].x", [2]),
        ("$..x", [1, 2]),
        ("$.single[0]", "only"),
        ("$.l", [{"x": 1}, {"x": 2}]),
        ("$['odd:key']", 5),
    ],
)
def test_json_paths(aws, path, value):
    data = {"l": [{"x": 1}, {"x": 2}], "single": ["only"], "odd:key": 5}
    assert output(aws.run(pass_through(**{"v.$": path}), data)) == {"v": value}


def test_a_choice_on_a_field_of_an_array_element(aws):
    choice = {"Variable": "$.l[0].ok", "BooleanEquals": True, "Next": "Right"}
    machine = {
        "StartAt": "C",
        "States": {
            "C": {"Type": "Choice", "Choices": [choice], "Default": "Wrong"},
            "Right": {"Type": "Succeed"},
            "Wrong": {"Type": "Fail"},
        },
    }
    assert aws.run(machine, {"l": [{"ok": True}]})["status"] == "SUCCEEDED"


def test_the_start_time_is_text(aws):
    execution = aws.run(pass_through(**{"at.$": "$$.Execution.StartTime"}))
    assert output(execution)["at"] == execution["startDate"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def test_dates_in_a_result_are_text(aws):
    aws.client("s3").create_bucket(Bucket="with-a-date")
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:listBuckets", "Parameters": {}, "End": True}
    buckets = output(aws.run({"StartAt": "T", "States": {"T": task}}))["Buckets"]
    assert all(bucket["CreationDate"].endswith("Z") for bucket in buckets)


def test_an_error_in_an_iteration_keeps_its_name(aws):
    fail = {"Type": "Pass", "Parameters": {"v.$": "$.missing"}, "End": True}
    machine = {"StartAt": "M", "States": {"M": map_over(fail, Next="End"), "End": {"Type": "Succeed"}}}
    execution = aws.run(machine, [1])
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")
    assert "$.missing" in execution["cause"]

    name = aws.function({"f.py": "def handler(event, context): return 'x' * 300_000"}, "f.handler", Timeout=30)
    too_large = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": name},
        "End": True,
    }
    machine["States"]["M"] = map_over(too_large, End=True)
    assert aws.run(machine, [1])["error"] == "States.DataLimitExceeded"


def test_a_map_over_more_items_than_python_recurses(aws):
    machine = {"StartAt": "M", "States": {"M": map_over({"Type": "Pass", "End": True}, End=True, MaxConcurrency=1)}}
    items, machine, limit = list(range(500)), aws.machine(machine), sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        assert output(aws.ended_execution(aws.start(machine, items))) == items
    finally:
        sys.setrecursionlimit(limit)


def test_events_of_a_map_of_jobs_are_counted_as_in_aws(aws, queue):
    definition = aws.job_definition("")
    processor = one_job(queue, definition)
    machine = {"StartAt": "M", "States": {"M": {**map_over({}, End=True), "ItemProcessor": processor}}}
    execution = aws.run(machine, [{"id": str(number)} for number in range(10)])
    kinds = Counter(event["type"] for event in aws.events(execution["executionArn"]))
    of_each = ["MapIterationStarted", "TaskStateEntered", "TaskScheduled", "TaskStarted", "TaskSubmitted"]
    of_each += ["TaskSucceeded", "TaskStateExited", "MapIterationSucceeded"]
    of_all = ["ExecutionStarted", "MapStateEntered", "MapStateStarted", "MapStateSucceeded", "MapStateExited"]
    of_all += ["ExecutionSucceeded"]
    assert kinds == {**dict.fromkeys(of_each, 10), **dict.fromkeys(of_all, 1)}


def test_executions_started_without_a_name_get_unique_names(aws):
    machine = aws.machine(pass_through(a=1))
    first, second = aws.ended_execution(aws.start(machine)), aws.ended_execution(aws.start(machine))
    assert first["name"] != second["name"]


def test_execution_names(aws):
    states = aws.client("stepfunctions")
    machine = aws.machine(waiting())
    arn = aws.start(machine, {"a": 1}, name="run-1")
    assert aws.start(machine, {"a": 1}, name="run-1") == arn  # starting the same execution while it runs returns it
    with pytest.raises(states.exceptions.ExecutionAlreadyExists):
        aws.start(machine, {"a": 2}, name="run-1")
    states.stop_execution(executionArn=arn)
    with pytest.raises(states.exceptions.ExecutionAlreadyExists):
        aws.start(machine, {"a": 1}, name="run-1")
    for name in ("x" * 81, "a b", "a/b"):
        with pytest.raises(states.exceptions.ClientError, match=r"InvalidName|less than or equal to 80"):
            aws.start(machine, name=name)


def test_a_stopped_execution_is_aborted_at_once_and_stops_its_jobs(aws, queue):
    states = aws.client("stepfunctions")
    job = one_job(queue, sleeping_job(aws), Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Never"}])
    job["States"]["Never"] = {"Type": "Succeed"}
    machine = {"StartAt": "M", "States": {"M": {**map_over({}, End=True), "ItemProcessor": job}}}
    arn = aws.start(aws.machine(machine), [{"id": "a"}, {"id": "b"}])
    jobs = submitted_jobs(aws, arn, 2)
    states.stop_execution(executionArn=arn, error="Operator", cause="enough")

    execution = aws.execution(arn)
    assert (execution["status"], execution["error"], execution["cause"]) == ("ABORTED", "Operator", "enough")
    assert execution["stopDate"] >= execution["startDate"]
    for job_id in jobs:
        assert aws.ended_job(job_id)["status"] == "FAILED"
    until(lambda: aws.events(arn)[-1]["type"], lambda kind: kind == "ExecutionAborted")
    kinds = [event["type"] for event in aws.events(arn)]
    assert "TaskSucceeded" not in kinds
    assert "ExecutionFailed" not in kinds
    assert aws.execution(arn)["status"] == "ABORTED"


def test_a_timed_out_execution_or_task_stops_its_job_and_a_task_can_be_caught(aws, queue):
    sleeping, catch = sleeping_job(aws), [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    whole = {**one_job(queue, sleeping), "TimeoutSeconds": 10}
    caught = one_job(queue, sleeping, TimeoutSeconds=10, Catch=catch)
    caught["States"]["Caught"] = {"Type": "Pass", "End": True}
    whole, caught = (aws.start(aws.machine(machine), {"id": "a"}) for machine in (whole, caught))
    jobs = [*submitted_jobs(aws, whole, 1), *submitted_jobs(aws, caught, 1)]

    execution = aws.ended_execution(whole)
    assert execution["status"] == "TIMED_OUT"
    assert execution["stopDate"]
    assert output(aws.ended_execution(caught))["Error"] == "States.Timeout"
    assert [event["type"] for event in aws.events(caught)].count("TaskSucceeded") == 0
    assert [aws.ended_job(job)["status"] for job in jobs] == ["FAILED", "FAILED"]


def test_nested_executions(aws):
    inner = aws.machine(pass_through(**{"seen.$": "$.quarter"}))
    execution = aws.run(nested(inner), {"quarter": "2023Q1"})
    result = output(execution)
    assert result["Output"] == {"seen": "2023Q1"}
    assert result["Status"] == "SUCCEEDED"
    assert isinstance(result["StartDate"], int)


def test_a_failed_nested_execution_can_be_caught(aws):
    inner = aws.machine({"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "Bad", "Cause": "no prefetch"}}})
    machine = nested(inner, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}])
    machine["States"]["Caught"] = {"Type": "Pass", "End": True}
    error = output(aws.run(machine, {"quarter": "2023Q1"}))
    assert error["Error"] == "States.TaskFailed"
    assert json.loads(error["Cause"])["Cause"] == "no prefetch"


def test_stopping_an_execution_stops_its_nested_ones(aws):
    inner = aws.machine(waiting())
    arn = aws.start(aws.machine(nested(inner)), {"quarter": "2023Q1"})
    states = aws.client("stepfunctions")
    listed = lambda: states.list_executions(stateMachineArn=inner)["executions"]  # noqa: E731
    (nested_execution,) = until(listed)
    states.stop_execution(executionArn=arn)
    assert aws.ended_execution(nested_execution["executionArn"])["status"] == "ABORTED"


def test_executions_are_listed_by_status(aws):
    machine = aws.machine(waiting())
    running, stopped = aws.start(machine), aws.start(machine)
    states = aws.client("stepfunctions")
    states.stop_execution(executionArn=stopped)
    for status, arn in (("RUNNING", running), ("ABORTED", stopped)):
        listed = states.list_executions(stateMachineArn=machine, statusFilter=status)["executions"]
        assert [execution["executionArn"] for execution in listed] == [arn]
    states.stop_execution(executionArn=running)


def test_the_history_is_paged_in_both_directions(aws):
    states = aws.client("stepfunctions")
    arn = aws.ended_execution(aws.start(aws.machine(pass_through(a=1))))["executionArn"]
    kinds = ["ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded"]
    assert [event["type"] for event in aws.events(arn)] == kinds
    first = states.get_execution_history(executionArn=arn, maxResults=3)
    assert len(first["events"]) == 3
    rest = states.get_execution_history(executionArn=arn, maxResults=3, nextToken=first["nextToken"])
    assert [event["type"] for event in rest["events"]] == kinds[3:]
    assert "nextToken" not in rest
    last = states.get_execution_history(executionArn=arn, maxResults=1, reverseOrder=True)["events"]
    assert [event["type"] for event in last] == kinds[-1:]


def test_a_patch_that_does_not_fit_is_reported_at_the_start(aws, monkeypatch):
    monkeypatch.setattr(patching, "source_hash", lambda function: "another")
    with pytest.raises(EmbeddedAwsError, match=r"moto .* does not fit: .*; install moto==5.2.5, or revise"):
        EmbeddedAws.start()


def test_a_port_in_use_is_reported_in_one_sentence(aws):
    port = int(aws.embedded.endpoint.rsplit(":", 1)[1])
    with pytest.raises(EmbeddedAwsError, match=f"port {port} of 127.0.0.1 is in use"):
        listen(port)


def map_over(state, **fields):
    return {"Type": "Map", "ItemProcessor": {"StartAt": "S", "States": {"S": state}}, **fields}


def nested(machine, **fields):
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": machine, "Input.$": "$"},
        "End": True,
        **fields,
    }
    return {"StartAt": "Nested", "States": {"Nested": task}}


def waiting():
    return {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": True}}}


def sleeping_job(aws):
    return aws.job_definition("import time; time.sleep(60)")


def submitted_jobs(aws, arn, count):
    """Wait until an execution has submitted `count` jobs; return their ids."""

    def read():
        return [
            json.loads(event["taskSubmittedEventDetails"]["output"])["JobId"]
            for event in aws.events(arn)
            if event["type"] == "TaskSubmitted"
        ]

    return until(read, lambda found: len(found) == count)
