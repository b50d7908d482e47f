"""The Lambda runtime for Python, inside the process of one execution environment.

Started as `python -I -S lambda_bootstrap.py TASK_ROOT SITE_PACKAGES TOKEN`, where TASK_ROOT is the unpacked zip.
Invocations arrive as lines of JSON. Answers go to standard output, marked with TOKEN to distinguish them from the
handler's own output. Without `site`, a module that is missing in the zip is missing here as it would be in AWS; only
SITE_PACKAGES, which has boto3, replaces the libraries that the real runtime provides.
"""

import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback


def main(task_root, site_packages, token):
    sys.path[:0] = [task_root]
    sys.path.append(site_packages)
    requests = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)

    gc.disable()  # while importing, it takes a fifth of the time and finds nothing
    handler, error = load(os.environ["_HANDLER"])
    gc.enable()
    answer(token, {"ready": True})
    for line in requests:
        request = json.loads(line)
        if error:
            answer(token, {"error": error, "fatal": True})
            sys.exit(1)  # as in AWS, the next invocation starts a new environment
        answer(token, {**invoke(handler, request), "megabytes": peak_megabytes()})


def load(name):
    """Return the handler, or None and the error."""
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module.replace("/", ".")), function), None
    except ImportError as error:
        return None, shape("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}", [])
    except AttributeError:
        return None, shape("Runtime.HandlerNotFound", f"Handler '{function}' missing on module '{module}'", [])
    except Exception as error:
        return None, shape_of(error)


def invoke(handler, request):
    try:
        result = handler(request["event"], Context(request))
    except Exception as error:
        record = shape_of(error)
        print(f"[ERROR] {record['errorType']}: {record['errorMessage']}\n" + "".join(record["stackTrace"]))
        return {"error": record}
    try:
        return {"payload": json.dumps(result)}
    except (TypeError, ValueError) as error:
        return {"error": shape("Runtime.MarshalError", f"Unable to marshal response: {error}", [])}


def shape_of(error):
    return shape(type(error).__name__, str(error), traceback.format_tb(error.__traceback__)[1:])


def shape(error_type, message, stack):
    return {"errorMessage": message, "errorType": error_type, "stackTrace": stack}


def answer(token, record):
    sys.stdout.flush()
    sys.stderr.flush()
    data = memoryview(f"\x1e{token}{json.dumps(record)}\n".encode())
    while data:
        data = data[os.write(1, data) :]


def peak_megabytes():
    """This process's peak memory. On Linux, getrusage would include the parent's memory before the exec."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2  # bytes on macOS


class Context:
    """The second argument of a handler."""

    def __init__(self, request):
        self.aws_request_id = request["request_id"]
        self.invoked_function_arn = request["function_arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline = request["deadline"]

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - time.time()) * 1000))


if __name__ == "__main__":
    main(*sys.argv[1:])
