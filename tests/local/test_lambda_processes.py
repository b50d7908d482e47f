"""Lambda functions run as processes: the handler's environment, the response to the caller, and the log."""

import base64
import json

import pytest

HANDLER = "functions.probe.handler"


def invoke(aws, name, event=None, **settings):
    answer = aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event or {}), **settings)
    return answer, json.loads(answer["Payload"].read())


def function(aws, code, **settings):
    return aws.function({"functions/__init__.py": "", "functions/probe.py": code}, HANDLER, **settings)


def logged(aws, name):
    events = aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    return [event["message"] for event in events]


def test_a_handler_sees_its_event_environment_and_context(aws):
    name = function(
        aws,
        """
        import os
        def handler(event, context):
            return {
                "event": event,
                "variables": dict(os.environ),
                "memory": context.memory_limit_in_mb,
                "left": context.get_remaining_time_in_millis(),
                "arn": context.invoked_function_arn,
            }
        """,
        Environment={"Variables": {"JOB_QUEUE_ARN": "q"}},
        MemorySize=192,
        Timeout=7,
    )
    answer, payload = invoke(aws, name, {"quarter": "2023Q1"})
    assert answer["StatusCode"] == 200
    assert "FunctionError" not in answer
    assert payload["event"] == {"quarter": "2023Q1"}
    assert payload["variables"]["JOB_QUEUE_ARN"] == "q"
    assert payload["variables"]["AWS_ENDPOINT_URL"] == aws.embedded.endpoint
    assert payload["variables"]["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == payload["memory"] == "192"
    assert 0 < payload["left"] <= 7000
    assert payload["arn"].endswith(f":function:{name}")
    assert "PYTEST_CURRENT_TEST" not in payload["variables"]


def test_a_handler_reaches_the_embedded_aws_by_boto3(aws):
    name = function(
        aws,
        """
        import boto3
        s3 = boto3.client("s3")
        def handler(event, context):
            s3.create_bucket(Bucket="made-by-a-function")
            return [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        """,
        Timeout=30,
    )
    _, payload = invoke(aws, name)
    assert "made-by-a-function" in payload


def test_an_exception_is_reported_as_aws_does(aws):
    name = function(
        aws,
        """
        class BadInput(Exception): pass
        def handler(event, context):
            print("about to fail")
            raise BadInput("no quarter")
        """,
    )
    answer, payload = invoke(aws, name)
    assert answer["FunctionError"] == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"]) == ("BadInput", "no quarter")
    assert "functions/probe.py" in payload["stackTrace"][0]


@pytest.mark.parametrize(
    ("code", "error_type", "message"),
    [
        ("import no_such_module", "Runtime.ImportModuleError", "No module named 'no_such_module'"),
        ("import contract", "Runtime.ImportModuleError", "No module named 'contract'"),
        ("x = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing"),
        ("def handler(event, context): return {1, 2}", "Runtime.MarshalError", "not JSON serializable"),
        ("import os\ndef handler(event, context): os._exit(3)", "Runtime.ExitError", "exit status 3"),
        (
            "import time\ndef handler(event, context): time.sleep(60)",
            "Sandbox.Timedout",
            "timed out after 1.00 seconds",
        ),
        ("def handler(event, context): return len(b'x' * 300_000_000)", "Runtime.OutOfMemory", "out of memory"),
    ],
)
def test_other_failures_are_reported_as_aws_does(aws, code, error_type, message):
    name = function(aws, code, Timeout=1 if error_type == "Sandbox.Timedout" else 30)
    for _ in range(2):  # the second call runs in a new process
        answer, payload = invoke(aws, name)
        assert answer["FunctionError"] == "Unhandled"
        assert payload["errorType"] == error_type
        assert message in payload["errorMessage"]


def test_what_a_handler_prints_is_logged_between_start_and_report(aws):
    name = function(aws, "def handler(event, context):\n    print('one')\n    print('two')", MemorySize=128)
    answer, payload = invoke(aws, name, LogType="Tail")
    assert payload is None
    lines = logged(aws, name)
    assert [line.split(" ")[0] for line in lines] == ["START", "one", "two", "END", "REPORT"]
    assert "Memory Size: 128 MB" in lines[-1]
    assert base64.b64decode(answer["LogResult"]).decode().splitlines() == lines


def test_an_environment_is_kept_until_the_function_changes(aws):
    name = function(aws, "import os\ndef handler(event, context): return [os.getpid(), os.environ.get('A')]")
    first = invoke(aws, name)[1]
    assert invoke(aws, name)[1] == first
    aws.client("lambda").update_function_configuration(FunctionName=name, Environment={"Variables": {"A": "1"}})
    pid, variable = invoke(aws, name)[1]
    assert pid != first[0]
    assert variable == "1"


def test_a_large_payload_is_passed_in_and_returned(aws):
    name = function(aws, "def handler(event, context): return event")
    assert invoke(aws, name, {"text": "é\n" * 500_000})[1] == {"text": "é\n" * 500_000}
