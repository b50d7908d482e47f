"""Fixes for moto, mainly for its interpreter of state machines; a comment at each says what is wrong without it."""

import json
import pickle
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.model import StructureShape
from jsonpath_ng.ext.parser import parse
from moto import backends
from moto.core import loaders
from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.models import FakeBucket
from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.iteration_worker import IterationWorker
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.job import Job as MapJob
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_callback
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_batch import (
    StateTaskServiceBatch,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackOutcomeTimedOut, HeartbeatTimedOut
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.evaluation_details import ExecutionDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import boto_client, json_path
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.parser.utils import TMP_THREADS, camel_to_snake_case
from moto.stepfunctions.responses import StepFunctionResponse

from local.emulator.batch_processes import BatchProcesses
from local.emulator.events import publish_end
from local.emulator.patching import replace

_REGION = "us-east-1"

_POLL_SECONDS = 0.5
"""How often a `.sync` task checks whether its execution was stopped."""

_SERVICES = {"cloudwatchlogs": "logs", "elasticloadbalancingv2": "elbv2"}
"""Services that Step Functions calls by another name than botocore. moto knows the others."""

_INDEFINITE = re.compile(r"\.\.|\*|\[\s*\?|\[[^\]'\"]*[:,]")
"""A JSONPath that may select more than one value: deep scan, wildcard, filter, slice or union."""

_OVER_TLS = {"Bool": {"aws:SecureTransport": "true"}}

_LAST_EVENTS = (
    HistoryEventType.ExecutionSucceeded,
    HistoryEventType.ExecutionFailed,
    HistoryEventType.ExecutionAborted,
    HistoryEventType.ExecutionTimedOut,
)

MAX_HISTORY_PAGE = 1000


def patch_common() -> None:
    """Fix moto outside of Step Functions."""
    # Without it, every service creates its own loader, which lists all of botocore's models again.
    replace(loaders, "create_loader", "b94f7ea2b2fa", _shared_loader, everywhere=True)
    # Every request lists moto's folders, under a lock.
    replace(backends, "list_of_moto_modules", "4f741a10b065", _known_modules)
    # moto ignores the conditions of a bucket policy, so a policy that denies plain HTTP denies everything.
    replace(FakeBucket, "get_permission", "7571412a3495", _get_permission)


class StepFunctionsPatches:
    """The patches of the interpreter and their state."""

    def __init__(self, endpoint: str, batch: BatchProcesses) -> None:
        self._endpoint = endpoint
        self._batch = batch
        self._clients: dict[tuple[str, str], Any] = {}
        self._clients_lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._ended: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._patch_integrations()
        self._patch_language()
        self._patch_stopping()
        self._patch_api()

    def _patch_integrations(self) -> None:
        # moto creates a client per task, which is slow and not thread-safe; and localhost may resolve to ::1 first.
        replace(boto_client, "boto_client_for", "1f44dc2ac8aa", self._client_for, everywhere=True)
        # moto#10076: parameters stay in PascalCase, which Batch and other APIs with lowerCamelCase reject.
        replace(StateTaskService, "_normalise_parameters", "dece59e76fd5", self._normalise_parameters)
        replace(StateTaskService, "_normalise_response", "00e0b0a50b1d", self._normalise_response)
        # moto polls for the end of a job or execution, and a stopped task leaves its job running.
        state_task_service_callback._DELAY_SECONDS_SYNC_CONDITION_CHECK = 0  # type: ignore[misc]
        replace(StateTaskServiceCallback, "_eval_sync", "b8f76de4d514", _eval_sync)
        replace(StateTaskServiceBatch, "_build_sync_resolver", "c27d42b99703", self._await_job)
        replace(StateTaskServiceSfn, "_build_sync_resolver", "0a833c2f9a9c", self._await_execution)
        replace(StateTaskServiceSfn, "_build_sync2_resolver", "fbbf50b684b9", self._await_execution)

    def _patch_language(self) -> None:
        # Every execution parses its definition again, which takes tenths of a second.
        replace(AmazonStateLanguageParser, "parse", "a59a7d18760f", _parse_definition)
        # `$.l[0].x` yields `[1]`, and a Choice then silently takes the wrong branch. Parsing a path takes milliseconds.
        replace(json_path, "extract_json", "932245247973", _extract_json, everywhere=True)
        # An uncaught States.* error in an iteration of a Map becomes States.Runtime.
        replace(CustomErrorName, "__init__", "2814dc26f7ae", _init_error_name)
        # A datetime in the context object breaks describe_execution.
        replace(Execution, "get_start_execution_details", "d2b1067cddcc", _start_details)
        # moto recurses once per item, up to Python's recursion limit.
        replace(IterationWorker, "_eval_pool", "45ca0026e8cc", _eval_pool)

    def _patch_stopping(self) -> None:
        # The error of a stopped task would be caught by the state machine, or turn ABORTED into FAILED.
        replace(ExecutionState, "_evaluate_with_timeout", "c56deda08a42", _evaluate_with_timeout)
        # The iterations of a timed-out execution would be reported as succeeded.
        replace(Environment, "set_timed_out", "853b04bf9e6a", _set_timed_out)
        # Stopping loses error and cause, and takes effect only after every thread has noticed it.
        replace(StateMachine, "stop_execution", "9fde91ccb013", _stop_execution)
        replace(StepFunctionResponse, "stop_execution", "633c8a544aac", _respond_stop_execution)
        replace(ExecutionWorker, "stop", "dc18be1944e1", _stop_worker)
        # Iterations that notice later would write their events after the execution's last.
        replace(EventManager, "_publish_history_event", "717125b52998", _publish_history_event)
        replace(BaseExecutionWorkerCommunication, "terminated", "360372a6a57b", self._terminated)

    def _patch_api(self) -> None:
        # Every execution without a name is called None, and two simultaneous starts of one name both run.
        replace(StepFunctionsParserBackend, "start_execution", "0f8d9dd57baf", self._start_execution)
        # A timed-out execution has no stopDate, and one that has just ended shows its status before its output.
        replace(StepFunctionResponse, "describe_execution", "c3953bdc9ce2", self._describe_execution)
        # maxResults, nextToken and reverseOrder are ignored, and each call copies the whole history.
        replace(StepFunctionResponse, "get_execution_history", "3889cc6224ac", _get_execution_history)
        replace(EventManager, "get_event_history", "d42caf342c6e", lambda _, manager: list(manager._history_event_list))

    def _client_for(self, _original: Any, region: str, service: str, state_credentials: Any = None) -> Any:
        del state_credentials  # the embedded AWS does not enforce roles
        service = _SERVICES.get(service, service)
        with self._clients_lock:
            if (region, service) not in self._clients:
                self._clients[region, service] = boto3.client(
                    service,  # type: ignore[call-overload]
                    region_name=region,
                    endpoint_url=self._endpoint,
                    aws_access_key_id="embedded",
                    aws_secret_access_key="embedded",  # noqa: S106 - the embedded AWS accepts any
                    config=Config(
                        parameter_validation=False,
                        retries={"total_max_attempts": 1},
                        read_timeout=24 * 3600,
                        max_pool_connections=64,
                    ),
                )
            return self._clients[region, service]

    def _normalise_parameters(
        self,
        _original: Any,
        task: StateTaskService,
        parameters: dict[str, Any],
        boto_service_name: str | None = None,
        service_action_name: str | None = None,
    ) -> None:
        shape = self._operation(task, boto_service_name, service_action_name).input_shape
        if shape is not None:
            task._to_boto_request(parameters, shape)

    def _normalise_response(
        self,
        _original: Any,
        task: StateTaskService,
        response: Any,
        boto_service_name: str | None = None,
        service_action_name: str | None = None,
    ) -> None:
        shape = self._operation(task, boto_service_name, service_action_name).output_shape
        if isinstance(shape, StructureShape):
            task._from_boto_response(response, shape)
        _write_dates(response, in_milliseconds=isinstance(task, StateTaskServiceSfn))

    def _operation(self, task: StateTaskService, service: str | None, action: str | None) -> Any:
        client = self._client_for(None, _REGION, task._get_boto_service_name(service))
        method = camel_to_snake_case(action) if action else task._get_boto_service_action()
        return client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])

    def _await_job(self, original: Any, task: Any, *, env: Environment, **kwargs: Any) -> "_Sync":
        job_id = env.stack[-1]["JobId"]
        resolve = original(task, env=env, **kwargs)
        batch = self._client_for(None, _REGION, "batch")
        return _Sync(
            resolve,
            ended=lambda seconds: self._batch.wait(job_id, seconds),
            cancel=lambda: batch.terminate_job(jobId=job_id, reason="Aborted by Step Functions"),
        )

    def _await_execution(self, original: Any, task: Any, *, env: Environment, **kwargs: Any) -> "_Sync":
        arn = env.stack[-1]["ExecutionArn"]
        resolve = original(task, env=env, **kwargs)
        states = self._client_for(None, _REGION, "stepfunctions")
        return _Sync(
            resolve,
            ended=self._ended[arn].wait,
            cancel=lambda: states.stop_execution(executionArn=arn, cause="Aborted by Step Functions"),
        )

    def _start_execution(
        self,
        original: Any,
        backend: StepFunctionsParserBackend,
        state_machine_arn: str,
        name: str | None = None,
        execution_input: str | None = None,
        trace_header: str | None = None,
    ) -> Execution:
        name = name or str(uuid.uuid4())
        backend._validate_name(name)
        with self._start_lock:
            return original(backend, state_machine_arn, name, execution_input, trace_header)

    def _terminated(self, original: Any, communication: BaseExecutionWorkerCommunication) -> None:
        execution = communication.execution
        ended_before = self._ended[execution.exec_arn].is_set()
        stopped_at = execution.stop_date
        original(communication)
        state = execution.exec_worker.env.program_state()  # type: ignore[union-attr]
        if isinstance(state, ProgramStopped):
            execution.stop_date = stopped_at or execution.stop_date
            execution.error, execution.cause = state.error, state.cause
        TMP_THREADS.clear()  # moto keeps a reference to every thread that it ever started
        self._ended[execution.exec_arn].set()
        if not ended_before:
            publish_end(execution, self._client_for(None, _REGION, "stepfunctions"))

    def _describe_execution(self, original: Any, response: StepFunctionResponse) -> ActionResult:
        answer = original(response).result
        if answer["status"] != "RUNNING":
            self._ended[answer["executionArn"]].wait(_POLL_SECONDS)
            answer = original(response).result
            answer["stopDate"] = response.stepfunction_backend.describe_execution(answer["executionArn"]).stop_date
        return ActionResult(answer)


class _Sync:
    """Called by a `.sync` task until it returns a result; it blocks until the end or a short time-out."""

    def __init__(
        self, resolve: Callable[[], Any], ended: Callable[[float], bool], cancel: Callable[[], object]
    ) -> None:
        self._resolve = resolve
        self._ended = ended
        self.cancel = cancel

    def __call__(self) -> Any:
        return self._resolve() if self._ended(_POLL_SECONDS) else None


class _StoppedError(Exception):
    """A task was stopped before it had a result, since it timed out or its execution was stopped or timed out."""


def _eval_sync(original: Any, task: Any, *, env: Environment, sync_resolver: "_Sync", **kwargs: Any) -> Any:
    running = env.is_running()  # the execution may have been stopped while the task was being submitted
    outcome = original(task, env=env, sync_resolver=sync_resolver, **kwargs) if running else None
    if outcome is None or isinstance(outcome, (CallbackOutcomeTimedOut, HeartbeatTimedOut)):
        sync_resolver.cancel()
    if outcome is None:
        raise _StoppedError
    return outcome


def _evaluate_with_timeout(original: Any, state: ExecutionState, env: Environment) -> None:
    try:
        original(state, env)
    except Exception:
        if env.is_running():
            raise


def _set_timed_out(original: Any, env: Environment) -> None:
    with env._state_mutex:
        for frame in env._frames:
            frame.set_stop(stop_date=datetime.now(UTC), cause=None, error=None)  # type: ignore[arg-type]
        env._frames.clear()
        original(env)


def _parse_definition(original: Any, definition: str) -> tuple[Any, Any]:
    program, tree = _parsed_definition(original, definition)
    return pickle.loads(program), tree  # noqa: S301 - each execution changes its copy


@lru_cache(maxsize=64)
def _parsed_definition(original: Any, definition: str) -> tuple[bytes, Any]:
    program, tree = original(definition)
    return pickle.dumps(program), tree


def _extract_json(original: Any, path: str, data: Any) -> Any:
    matches = _parsed(path).find(data)
    if not matches:
        return original(path, data)
    if _INDEFINITE.search(path):
        return [match.value for match in matches]
    return matches[0].value


@lru_cache(maxsize=4096)
def _parsed(path: str) -> Any:
    return parse(path)


def _init_error_name(_original: Any, error: CustomErrorName, error_name: str | None) -> None:
    ErrorName.__init__(error, error_name=error_name)


def _start_details(original: Any, execution: Execution) -> ExecutionDetails:
    details = original(execution)
    details.start_time = _iso(details.start_time)
    return details


def _eval_pool(_original: Any, worker: IterationWorker, job: MapJob | None, worker_frame: Environment) -> None:
    """Process a Map's items as moto does, but in a loop."""
    pool = worker._job_pool
    while job is not None:
        job_frame = worker_frame.open_inner_frame()
        worker._eval_job(env=job_frame, job=job)
        worker_frame.close_frame(job_frame)
        failed = isinstance(job.job_output, Exception)
        next_job = None if failed or worker.stopped() else pool.next_job()
        if next_job is None:
            # The frame must be closed before the job, since the Map continues when its last job is closed.
            if not failed and not worker.stopped():
                worker_frame.event_history_context.source_event_id = (
                    job_frame.event_history_context.last_published_event_id
                )
            worker._env.close_frame(worker_frame)
            pool.close_job(job)
            return
        pool.close_job(job)
        job = next_job
    worker._env.close_frame(worker_frame)


def _stop_execution(
    _original: Any, machine: StateMachine, execution_arn: str, error: str | None = None, cause: str | None = None
) -> Any:
    execution: Any = machine.backend.describe_execution(execution_arn)
    if execution.status == "RUNNING":
        execution.stop(stop_date=datetime.now(UTC), error=error, cause=cause)
    return execution


def _respond_stop_execution(_original: Any, response: StepFunctionResponse) -> ActionResult:
    backend = response.stepfunction_backend
    arn = response._get_param("executionArn")
    backend._validate_execution_arn(arn)
    machine = backend._get_state_machine_for_execution(arn)
    execution = _stop_execution(None, machine, arn, response._get_param("error"), response._get_param("cause"))
    return ActionResult({"stopDate": execution.stop_date})


def _stop_worker(original: Any, worker: ExecutionWorker, **kwargs: Any) -> None:
    while worker.env is None or worker.env.program_state() is None:  # its thread has not started yet
        threading.Event().wait(0.01)
    original(worker, **kwargs)
    if isinstance(worker.env.program_state(), ProgramStopped):
        worker._execution_communication.terminated()


def _publish_history_event(original: Any, manager: EventManager, **event: Any) -> None:
    written = manager._history_event_list
    if not written or written[-1].get("type") not in _LAST_EVENTS:
        original(manager, **event)


def _get_execution_history(_original: Any, response: StepFunctionResponse) -> ActionResult:
    arn = response._get_param("executionArn")
    size = response._get_int_param("maxResults") or MAX_HISTORY_PAGE
    start = int(response._get_param("nextToken") or 0)
    events = response.stepfunction_backend.get_execution_history(arn)["events"]
    if response._get_param("reverseOrder"):
        events.reverse()
    answer: dict[str, Any] = {"events": events[start : start + size]}
    if start + size < len(events):
        answer["nextToken"] = str(start + size)
    return ActionResult(answer)


@cache
def _shared_loader(original: Callable[[], Any]) -> Any:
    return original()


@cache
def _known_modules(original: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    return tuple(original())


def _get_permission(_original: Any, bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
    """Evaluate the statements whose conditions are met. The loopback counts as TLS, since nobody can intercept it."""
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    policy = json.loads(bucket.policy)
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    applicable = [statement for statement in statements if statement.pop("Condition", None) in (None, _OVER_TLS)]
    return IAMPolicy(json.dumps({**policy, "Statement": applicable})).is_action_permitted(action, resource)


def _write_dates(value: Any, in_milliseconds: bool) -> None:
    """Format datetimes as Step Functions does: ISO 8601, or milliseconds for its own executions."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(items):
        if isinstance(each, datetime):
            value[key] = int(each.timestamp() * 1000) if in_milliseconds else _iso(each)
        else:
            _write_dates(each, in_milliseconds)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
