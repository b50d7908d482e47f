"""Runs Batch jobs as real processes.

A job waits in its queue until a compute environment has enough free vCPUs. An attempt then runs the job definition's
command, with the job's overrides, in an empty directory and a clean environment, as in a container; its output goes to
the job definition's awslogs group. An attempt ends in one of three ways:

- The command exits: `Essential container in task exited`, with its exit code.
- Someone else sends SIGKILL, which is treated as the loss of a host: exit code 137 and `Host EC2 (instance i-...)
  terminated.` A test does so to the process that `container.taskArn` names: `.../pid-1234`.
- The timeout or `terminate_job`: SIGTERM to the process group, and SIGKILL after `KILL_GRACE_SECONDS`.

The job definition's `retryStrategy` decides whether another attempt follows.
"""

import contextlib
import fnmatch
import json
import logging
import math
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend, ComputeEnvironment, Job
from moto.batch.responses import BatchResponse
from moto.batch.utils import JobStatus
from moto.core.utils import unix_time_millis
from moto.logs.models import LogsBackend
from moto.moto_api import state_manager

from local.emulator.children import Children, kill_group
from local.emulator.patching import replace

KILL_GRACE_SECONDS = 30.0
"""Time between SIGTERM and SIGKILL; the default of ECS."""

MAX_OVERRIDES_BYTES = 8192
"""AWS's limit for a job's container overrides."""

MAX_JOBS_PER_CALL = 100
"""AWS's limit for the jobs of one DescribeJobs or ListJobs call."""

CONTAINER_EXITED = "Essential container in task exited"
TIMED_OUT = "Job attempt duration exceeded timeout"
DOES_NOT_FIT = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than that "
    "can be met by the CE(s) attached to the job queue."
)

_POLL_SECONDS = 0.5
"""How often a running job's deadline is checked."""

_MAX_LOG_EVENT_BYTES = 256 * 1024 - 26
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Attempt:
    """One attempt, as DescribeJobs shows it."""

    started: float
    log_stream: str
    host: str
    task_arn: str = ""
    exit_code: int | None = None
    reason: str = ""
    """Why the container could not be started; empty otherwise."""
    status_reason: str = CONTAINER_EXITED

    def container(self, region: str, account: str) -> dict[str, Any]:
        instance = f"arn:aws:ecs:{region}:{account}:container-instance/{self.host}"
        details: dict[str, Any] = {
            "containerInstanceArn": instance,
            "taskArn": self.task_arn,
            "logStreamName": self.log_stream,
        }
        if self.exit_code is not None:
            details["exitCode"] = self.exit_code
        if self.reason:
            details["reason"] = self.reason
        return details


@dataclass
class _Run:
    """The state of a job beyond moto's Job."""

    job: Job
    vcpus: float
    retry_strategy: dict[str, Any]
    finished: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[bytes] | None = None
    attempt: _Attempt | None = None
    stop_reason: str = ""
    """Why the job is being stopped: terminate_job's reason, or the timeout; empty otherwise."""
    kill_at: float = math.inf
    """When SIGKILL follows (monotonic clock, seconds)."""
    compute: ComputeEnvironment | None = None
    """Where it runs."""


class BatchProcesses:
    """Queues, runs and stops the jobs of moto's Batch."""

    def __init__(self, children: Children, endpoint: str) -> None:
        self._children = children
        self._endpoint = endpoint
        self._lock = threading.RLock()
        self._runs: dict[str, _Run] = {}
        self._waiting: defaultdict[str, deque[_Run]] = defaultdict(deque)
        self._used: defaultdict[str, float] = defaultdict(float)
        # By default moto advances a job's status each time the job is described.
        state_manager.set_transition("batch::job", {"progression": "manual", "times": 10**9})
        self._replace_moto()

    def wait(self, job_id: str, seconds: float) -> bool:
        """Wait up to `seconds` until a job has succeeded or failed; return whether it has."""
        run = self._runs.get(job_id)
        return run is None or run.finished.wait(seconds)

    def close(self) -> None:
        """Start no more jobs; `Children.close` ends the running ones."""
        with self._lock:
            self._waiting.clear()

    def _replace_moto(self) -> None:
        # moto runs jobs only in Docker, with sleeps, one attempt each, and ignores maxvCpus.
        replace(BatchResponse, "submitjob", "2ba7d660df00", self._submit)
        replace(Job, "terminate", "d04675ae9568", self._terminate)
        # moto omits fields, and adds another AWS_BATCH_JOB_ID to each description.
        replace(Job, "describe", "bc82fd1e98a3", self._describe)
        replace(Job, "_container_details", "2f77531f8164", self._describe_container)
        # moto searches all jobs for each id, and does not limit the number of ids.
        replace(BatchBackend, "describe_jobs", "b46db4fe2254", _describe_jobs)
        # moto does not page.
        replace(BatchResponse, "listjobs", "819c0df57bb9", _list_jobs_in_pages)
        replace(BatchBackend, "list_jobs", "aea6ceec237f", _list_jobs)
        Job.start = _do_not_start  # a job starts when its queue has room

    def _submit(self, original: Any, response: BatchResponse) -> str:
        for unsupported in ("arrayProperties", "dependsOn", "eksPropertiesOverride", "nodeOverrides"):
            if response._get_param(unsupported):
                raise ClientException(f"the embedded AWS does not run jobs with {unsupported}")
        overrides = response._get_param("containerOverrides") or {}
        if len(json.dumps(overrides)) > MAX_OVERRIDES_BYTES:
            raise ClientException(f"Container Overrides length must be at most {MAX_OVERRIDES_BYTES}")
        answer: str = original(response)
        job = response.batch_backend._jobs[json.loads(answer)["jobId"]]
        strategy = response._get_param("retryStrategy") or job.job_definition.retry_strategy or {}
        vcpus = _resource(job, "VCPU") or job.job_definition._get_resource_requirement("vcpus", 1)
        self._enqueue(_Run(job, float(vcpus), strategy))
        return answer

    def _enqueue(self, run: _Run) -> None:
        job = run.job
        if run.vcpus > max((_max_vcpus(compute) for compute in job.job_queue.environments), default=0):
            job.job_stopped_reason = DOES_NOT_FIT
        job.status = JobStatus.RUNNABLE
        with self._lock:
            self._runs[job.job_id] = run
            self._waiting[job.job_queue.arn].append(run)
            self._start_what_fits()

    def _start_what_fits(self) -> None:
        """Start the first jobs of each queue for which a compute environment has room. The caller holds the lock."""
        for waiting in self._waiting.values():
            while waiting and (compute := self._room_for(waiting[0])):
                run = waiting.popleft()
                run.compute = compute
                self._used[compute.arn] += run.vcpus
                threading.Thread(target=self._run, args=(run,), name=f"job-{run.job.job_id}", daemon=True).start()

    def _room_for(self, run: _Run) -> ComputeEnvironment | None:
        if run.job.job_queue.state == "DISABLED":
            return None
        for compute in run.job.job_queue.environments:
            if compute.state != "DISABLED" and self._used[compute.arn] + run.vcpus <= _max_vcpus(compute):
                return compute
        return None

    def _run(self, run: _Run) -> None:
        """The thread of one job."""
        try:
            self._finish(run, self._run_attempts(run))
        except Exception as error:  # otherwise the job would stay RUNNING for ever
            logging.getLogger(__name__).exception("job %s", run.job.job_id)
            run.stop_reason = f"{type(error).__name__}: {error}"
            self._finish(run, None)

    def _run_attempts(self, run: _Run) -> _Attempt:
        """Run a job to its end and return its last attempt."""
        job = run.job
        attempts = int(run.retry_strategy.get("attempts") or 1)
        number = 0
        while True:
            number += 1
            attempt = self._attempt(run, number)
            job.attempts.append(
                {
                    "container": attempt.container(job.backend.region_name, job.backend.account_id),
                    "startedAt": int(attempt.started * 1000),
                    "stoppedAt": int(time.time() * 1000),
                    "statusReason": attempt.status_reason,
                    "taskProperties": [],
                }
            )
            if attempt.exit_code == 0 or run.stop_reason or number == attempts or not _retry(run, attempt):
                return attempt
            job.status = JobStatus.RUNNABLE

    def _attempt(self, run: _Run, number: int) -> _Attempt:
        job = run.job
        task = uuid.uuid4().hex
        log_options = _container_property(job, "logConfiguration", {}).get("options", {})
        prefix = log_options.get("awslogs-stream-prefix", job.job_definition.name)
        attempt = _Attempt(time.time(), f"{prefix}/default/{task}", f"i-{uuid.uuid4().hex[:17]}")
        logs = _Logs(job.backend.logs_backend, log_options.get("awslogs-group", "/aws/batch/job"), attempt.log_stream)
        job.status = JobStatus.STARTING
        job.log_stream_name = attempt.log_stream
        job.job_started_at = datetime.now()
        with tempfile.TemporaryDirectory(prefix="job-", dir=self._children.scratch) as directory:
            try:
                logs.create()
                self._start(run, attempt, number, Path(directory))
            except (OSError, LookupError) as error:
                attempt.reason = f"CannotStartContainerError: {error}"
                attempt.status_reason = run.stop_reason or "Task failed to start"
                return attempt
            job.status = JobStatus.RUNNING
            self._follow(run, logs)
        return attempt

    def _start(self, run: _Run, attempt: _Attempt, number: int, directory: Path) -> None:
        job = run.job
        command = job._add_parameters_to_command(_container_property(job, "command", []))
        if not command:
            raise OSError("no command specified")
        variables = self._variables(run, number, directory)
        if command[0] in ("python", "python3"):
            command = [sys.executable, *command[1:]]
        if not shutil.which(command[0], path=variables["PATH"]):
            raise OSError(f'exec: "{command[0]}": executable file not found in $PATH')
        process = self._children.start(command, env=variables, cwd=directory)
        with self._lock:
            run.attempt = attempt
            run.process = process
            if run.stop_reason:  # the stop arrived while the process was being started
                kill_group(process, signal.SIGTERM)
        task = f"arn:aws:ecs:{job.backend.region_name}:{job.backend.account_id}:task"
        attempt.task_arn = f"{task}/{run.compute.name if run.compute else ''}/pid-{process.pid}"

    def _variables(self, run: _Run, number: int, directory: Path) -> dict[str, str]:
        job = run.job
        region = job.backend.region_name
        threads = str(max(1, int(run.vcpus)))
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            # As many threads as the container's CPU limit allows.
            **dict.fromkeys(_THREAD_LIMITS, threads),
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self._endpoint,
            **_environment(job),
            "AWS_BATCH_CE_NAME": run.compute.name if run.compute else "",
            "AWS_BATCH_JOB_ATTEMPT": str(number),
            "AWS_BATCH_JOB_ID": job.job_id,
            "AWS_BATCH_JQ_NAME": job.job_queue.name,
        }

    def _follow(self, run: _Run, logs: "_Logs") -> None:
        """Copy the process's output to its log stream until it ends, and record how it ended."""
        process, attempt = run.process, run.attempt
        assert process  # noqa: S101 - set by _start
        assert process.stdout  # noqa: S101 - opened as a pipe
        assert attempt  # noqa: S101 - set by _start
        timeout = run.job._get_attempt_duration()
        deadline = time.monotonic() + timeout if timeout else math.inf
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            # The process may end while a child of it keeps the pipe open, or close the pipe and keep running.
            while selector.get_map() or process.poll() is None:
                if not selector.get_map():
                    _wait(process)
                elif not selector.select(0 if process.poll() is not None else _POLL_SECONDS):
                    if process.returncode is not None:
                        break
                elif data := process.stdout.read(1 << 16):
                    logs.write(data)
                else:
                    selector.unregister(process.stdout)
                if time.monotonic() > deadline and not run.stop_reason:
                    self._stop(run, TIMED_OUT)
                if time.monotonic() > run.kill_at:
                    kill_group(process, signal.SIGKILL)
        with self._lock:
            attempt.exit_code = _exit_code(process.wait())
            run.process = None
        self._children.ended(process)
        logs.close()
        if run.stop_reason:
            attempt.status_reason = run.stop_reason
        elif attempt.exit_code == 128 + signal.SIGKILL:
            attempt.status_reason = f"Host EC2 (instance {attempt.host}) terminated."

    def _finish(self, run: _Run, attempt: _Attempt | None) -> None:
        job = run.job
        succeeded = attempt is not None and attempt.exit_code == 0 and not run.stop_reason
        job.exit_code = attempt.exit_code if attempt else None
        job.job_stopped_reason = attempt.status_reason if attempt else run.stop_reason
        job._mark_stopped(success=succeeded)
        run.finished.set()
        with self._lock:
            if run.compute:
                self._used[run.compute.arn] -= run.vcpus
            self._start_what_fits()

    def _terminate(self, _original: Any, job: Job, reason: str) -> None:
        run = self._runs.get(job.job_id)
        if run is None or run.stop_reason or run.finished.is_set():
            return
        with self._lock:
            waiting = self._waiting[job.job_queue.arn]
            if run in waiting:
                waiting.remove(run)
                run.stop_reason = reason
                self._finish(run, None)
                return
        self._stop(run, reason)

    def _stop(self, run: _Run, reason: str) -> None:
        with self._lock:
            run.stop_reason = reason
            run.kill_at = time.monotonic() + KILL_GRACE_SECONDS
            if run.process:
                kill_group(run.process, signal.SIGTERM)

    def _describe(self, original: Any, job: Job) -> dict[str, Any]:
        details: dict[str, Any] = original(job)
        run = self._runs.get(job.job_id)
        stopped = bool(run and run.stop_reason and run.stop_reason != TIMED_OUT)
        details["isCancelled"] = stopped and not job.attempts
        details["isTerminated"] = stopped
        details["retryStrategy"] = run.retry_strategy if run else {}
        details["platformCapabilities"] = job.job_definition.platform_capabilities or ["EC2"]
        return details

    def _describe_container(self, _original: Any, job: Job) -> dict[str, Any]:
        properties = dict(job.job_definition.container_properties or {})
        properties["command"] = job._add_parameters_to_command(_container_property(job, "command", []))
        properties["environment"] = [{"name": name, "value": value} for name, value in _environment(job).items()]
        run = self._runs.get(job.job_id)
        if run and run.attempt:
            properties.update(run.attempt.container(job.backend.region_name, job.backend.account_id))
        return properties


class _Logs:
    """A log stream that turns bytes into one event per line."""

    def __init__(self, logs: LogsBackend, group: str, stream: str) -> None:
        self._logs = logs
        self._group = group
        self._stream = stream
        self._rest = b""

    def create(self) -> None:
        """Create the stream.

        Raises:
            LookupError: if the log group does not exist; only Batch's own group is created on demand.
        """
        if self._group == "/aws/batch/job":
            self._logs.ensure_log_group(self._group)
        if self._group not in self._logs.groups:
            raise LookupError(f"ResourceNotFoundException: The specified log group does not exist: {self._group}")
        self._logs.ensure_log_stream(self._group, self._stream)

    def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._put(lines)

    def close(self) -> None:
        self._put([self._rest] if self._rest else [])

    def _put(self, lines: list[bytes]) -> None:
        if not lines:
            return
        now = unix_time_millis()
        messages = [line[:_MAX_LOG_EVENT_BYTES].decode(errors="replace") for line in lines]
        self._logs.put_log_events(self._group, self._stream, [{"timestamp": now, "message": m} for m in messages])


def _do_not_start(self: Job) -> None:
    """Replaces the start of moto's thread."""


def _describe_jobs(_original: Any, backend: BatchBackend, jobs: list[str] | None) -> list[dict[str, Any]]:
    if len(jobs or []) > MAX_JOBS_PER_CALL:
        raise ClientException(f"jobs must have at most {MAX_JOBS_PER_CALL} entries")
    ids = [name.rsplit("/", 1)[-1] for name in jobs or []]
    return [backend._jobs[job_id].describe() for job_id in ids if job_id in backend._jobs]


def _list_jobs_in_pages(original: Any, response: BatchResponse) -> str:
    jobs = json.loads(original(response))["jobSummaryList"]
    size = min(MAX_JOBS_PER_CALL, int(response._get_param("maxResults") or MAX_JOBS_PER_CALL))
    start = int(response._get_param("nextToken") or 0)
    page: dict[str, Any] = {"jobSummaryList": jobs[start : start + size]}
    if start + size < len(jobs):
        page["nextToken"] = str(start + size)
    return json.dumps(page)


def _list_jobs(
    original: Any,
    backend: BatchBackend,
    job_queue_name: str | None,
    array_job_id: str | None,
    job_status: str | None = None,
    filters: list[dict[str, Any]] | None = None,
) -> list[Job]:
    """Like Batch, list only running jobs if neither a status nor filters are given."""
    if not job_status and not filters:
        job_status = "RUNNING"
    return original(backend, job_queue_name, array_job_id, job_status, filters)


def _retry(run: _Run, attempt: _Attempt) -> bool:
    """Whether another attempt follows a failed one, by the first matching rule of `evaluateOnExit`."""
    actual = {
        "onExitCode": "" if attempt.exit_code is None else str(attempt.exit_code),
        "onReason": attempt.reason,
        "onStatusReason": attempt.status_reason,
    }
    for rule in run.retry_strategy.get("evaluateOnExit") or []:
        if all(fnmatch.fnmatchcase(actual[name], rule[name]) for name in actual if rule.get(name)):
            return str(rule["action"]).upper() == "RETRY"
    return True


def _resource(job: Job, kind: str) -> str | None:
    requirements = [
        *(job.container_overrides.get("resourceRequirements") or []),
        *((job.job_definition.container_properties or {}).get("resourceRequirements") or []),
    ]
    for requirement in requirements:
        if requirement["type"] == kind:
            return str(requirement["value"])
    return None


def _container_property(job: Job, name: str, default: Any) -> Any:
    return job.container_overrides.get(name) or (job.job_definition.container_properties or {}).get(name) or default


def _environment(job: Job) -> dict[str, str]:
    """The job definition's variables, overridden by the job's own."""
    defined = (job.job_definition.container_properties or {}).get("environment") or []
    return {each["name"]: each["value"] for each in [*defined, *(job.container_overrides.get("environment") or [])]}


def _max_vcpus(compute: ComputeEnvironment) -> float:
    return float(compute.compute_resources.get("maxvCpus", math.inf)) if compute.compute_resources else math.inf


def _exit_code(returncode: int) -> int:
    """As in a shell or a container, a process killed by signal N has exit code 128 + N."""
    return 128 - returncode if returncode < 0 else returncode


def _wait(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_POLL_SECONDS)
