// Runs the state machines in an interpreter that is independent of moto's, with functions and jobs that answer as a
// scenario says. Usage: NODE_PATH=<where aws-local-stepfunctions is> node scenarios.cjs <folder of the definitions>
//
// The scenarios are those of docs/adr/0008 and of the design: what a run's outcome is, whatever fails in it.
const fs = require("fs");
const path = require("path");

// What the interpreter lacks. Promise.withResolvers is in Node from version 22 on.
Promise.withResolvers ??= function () {
  const resolvers = {};
  resolvers.promise = new this((resolve, reject) => Object.assign(resolvers, { resolve, reject }));
  return resolvers;
};
// Where a wildcard matches nothing, Step Functions has an empty list and the interpreter has nothing.
const jsonpath = require("jsonpath-plus");
const query = jsonpath.JSONPath;
jsonpath.JSONPath = (options) => query(options) ?? (options.path.includes("[*]") ? [] : undefined);
// JavaScript's timers end at 24.8 days: a longer timeout would be over at once.
const LONGEST_TIMER = 2147483;
const isTooLong = (key, value) => key === "TimeoutSeconds" && value > LONGEST_TIMER;
// Step Functions takes a function as the path of a cause, which the interpreter does not: of a format that only turns an
// error into text, the path is left, and other functions are left out.
function simplify(key, value) {
  if (isTooLong(key, value)) return undefined;
  if (key !== "CausePath" || !value.startsWith("States.")) return value;
  return value.match(/^States\.Format\('\{\}', (\$[\w.]+)\)$/)?.[1];
}

const { StateMachine } = require("aws-local-stepfunctions");

const folder = process.argv[2];
const machines = Object.fromEntries(
  ["quarter", "quarter-at-most", "quarter-with-vllm", "quarters", "quarters-with-vllm"].map((name) => [
    name,
    JSON.parse(fs.readFileSync(path.join(folder, `${name}.asl.json`), "utf8"), simplify),
  ]),
);

const RETRIED = "Lambda.TooManyRequestsException";
const THROTTLED = "Batch.TooManyRequestsException";
const BUSY = "StepFunctions.SdkClientException";

function failure(name, cause = "because") {
  return Object.assign(new Error(cause), { name });
}

/** A task that fails with each error in turn, and then answers. */
function after(errors, answer) {
  const left = [...errors];
  return (input) => {
    if (left.length) throw failure(left.shift());
    return typeof answer === "function" ? answer(input) : answer;
  };
}

function always(error, cause) {
  return () => {
    throw failure(error, cause);
  };
}

const QUARTER = { quarter: "2023Q1", bucket: "calls", batch_size: 1000 };
const BATCHES = ["2023Q1_batch_0000", "2023Q1_batch_0001", "2023Q1_batch_0002"];

/** The functions and jobs of a quarter in which nothing fails; the summary counts as the real one does. */
function tasks(changed = {}) {
  return {
    CheckPrefetch: () => ({ exists: true, error: "", cause: "" }),
    CreateBatchManifest: () => ({ run: "20230401_000000", manifest_key: "manifests/m.jsonl", batch_ids: BATCHES, llm_concurrency: 6 }),
    SubmitBatchJob: () => ({ JobId: "job" }),
    SummarizeResults: ({ state }) => summarize(state),
    NotifyCompletion: ({ summary }) => ({ summary: describeFailure(summary), notification: { sent: true } }),
    ...changed,
  };
}

function summarize(state) {
  const batches = Array.isArray(state.batches) ? state.batches : [];
  const failed = batches.filter((batch) => batch.status !== "SUCCEEDED").length;
  const early = state.manifest.Error || (state.batches || {}).Error;
  return { has_failures: Boolean(early) || failed > 0, message: early || `${failed} of ${batches.length} failed` };
}

/** A summary that failed, as the notification hands it on. */
function describeFailure(summary) {
  const { message } = summary;
  return message.Error ? { has_failures: true, message: `the summary failed: ${message.Error}` } : summary;
}

function failJob(batch, error) {
  return ({ ContainerOverrides }) => {
    const id = ContainerOverrides.Environment.find((one) => one.Name === "BATCH_ID").Value;
    if (id === batch) throw failure(error);
    return { JobId: `job-${id}` };
  };
}

const SUCCESS = "QuarterCompletedSuccessfully";
const FAILED = "QuarterCompletedWithFailures";

// [what happens, the changed tasks, the last state, or the error under which the execution ends, further checks]
const quarters = [
  ["nothing fails", {}, SUCCESS, ({ output }) => output.summary.message === "0 of 3 failed"],
  ["the prefetch is not there", { CheckPrefetch: () => ({ exists: false, error: "PrefetchRequired", cause: "none" }) }, "PrefetchRequired"],
  ["the input is wrong", { CheckPrefetch: () => ({ exists: false, error: "InvalidInput", cause: "no" }) }, "InvalidInput"],
  ["the check answers with the text true", { CheckPrefetch: () => ({ exists: "true", error: "E", cause: "c" }) }, "E"],
  ["the check answers nothing about existence", { CheckPrefetch: () => ({ error: "E", cause: "c" }) }, "E"],
  ["the check fails for good", { CheckPrefetch: always("RuntimeError") }, "RuntimeError"],
  ["the check is throttled twice", { CheckPrefetch: after([RETRIED, RETRIED], { exists: true }) }, SUCCESS],
  ["the check is throttled for good", { CheckPrefetch: always(RETRIED) }, RETRIED],
  ["the manifest fails", { CreateBatchManifest: always("ManifestError") }, FAILED, ({ visited }) => !visited.includes("ProcessBatches")],
  ["the manifest is too large", { CreateBatchManifest: always("States.DataLimitExceeded") }, FAILED],
  ["the manifest times out", { CreateBatchManifest: always("States.Timeout") }, FAILED],
  ["the manifest is throttled once", { CreateBatchManifest: after([RETRIED], { run: "r", manifest_key: "k", batch_ids: BATCHES, llm_concurrency: 6 }) }, SUCCESS],
  ["there is no batch to process", { CreateBatchManifest: () => ({ run: "r", manifest_key: "k", batch_ids: [], llm_concurrency: 6 }) }, SUCCESS],
  ["one job fails", { SubmitBatchJob: failJob(BATCHES[1], "States.TaskFailed") }, FAILED, ({ cause }) => cause === "1 of 3 failed"],
  ["every job fails", { SubmitBatchJob: always("States.TaskFailed") }, FAILED, ({ cause }) => cause === "3 of 3 failed"],
  ["a job takes too long", { SubmitBatchJob: failJob(BATCHES[0], "States.Timeout") }, FAILED],
  ["a job's answer is too large", { SubmitBatchJob: failJob(BATCHES[0], "States.DataLimitExceeded") }, FAILED],
  ["the queue is gone", { SubmitBatchJob: always("Batch.ClientException") }, FAILED, ({ cause }) => cause === "3 of 3 failed"],
  ["submissions are throttled", { SubmitBatchJob: after([THROTTLED, THROTTLED, THROTTLED], { JobId: "j" }) }, SUCCESS],
  ["submissions are throttled for good", { SubmitBatchJob: always(THROTTLED) }, FAILED],
  ["the summary finds what the jobs did not report", { SummarizeResults: () => ({ has_failures: true, message: "one firm" }) }, FAILED, ({ cause }) => cause === "one firm"],
  ["the summary fails", { SummarizeResults: always("SummaryError") }, FAILED, ({ cause }) => cause === "the summary failed: SummaryError"],
  ["the summary is too large", { SummarizeResults: always("States.DataLimitExceeded") }, FAILED],
  ["the summary is throttled for good", { SummarizeResults: always(RETRIED) }, FAILED],
  // Without a message there is no cause to show: the execution fails all the same.
  ["the summary and its notification fail", { SummarizeResults: always("SummaryError"), NotifyCompletion: always("NotifyError") }, "States.Runtime"],
  ["the summary is throttled once", { SummarizeResults: after([RETRIED], ({ state }) => summarize(state)) }, SUCCESS],
  ["the summary answers with the text false", { SummarizeResults: () => ({ has_failures: "false", message: "m" }) }, FAILED],
  ["the summary says nothing about failures", { SummarizeResults: () => ({ message: "m" }) }, FAILED],
  ["the notification fails", { NotifyCompletion: always("NotifyError") }, SUCCESS],
  ["the notification of a failed run fails", { SubmitBatchJob: always("States.TaskFailed"), NotifyCompletion: always("States.Timeout") }, FAILED],
];

function isOutcome(batch) {
  return Object.keys(batch).every((key) => ["batch_id", "status", "error"].includes(key));
}

const GIVEN = ["2022Q1", "2022Q2", "2022Q3"].map((quarter) => ({ quarter, bucket: "calls" }));
const DONE = "QuartersCompletedSuccessfully";
const SOME_FAILED = "QuartersCompletedWithFailures";

function failQuarter(quarter, error) {
  return ({ Input }) => {
    if (Input.quarter === quarter) throw failure(error);
    return { ExecutionArn: `arn-${Input.quarter}` };
  };
}

const succeed = () => ({ ExecutionArn: "arn" });

// [what happens, the input, the task, the last state or the error, further checks]
const lists = [
  ["three quarters succeed", { quarters: GIVEN }, succeed, DONE, ({ output }) => output.summary.total === 3],
  ["one quarter fails", { quarters: GIVEN }, failQuarter("2022Q2", "States.TaskFailed"), SOME_FAILED, ({ visited }) => visited.at(-1) === SOME_FAILED],
  ["every quarter fails", { quarters: GIVEN }, always("States.TaskFailed"), SOME_FAILED],
  ["a quarter takes too long", { quarters: GIVEN }, failQuarter("2022Q3", "States.Timeout"), SOME_FAILED],
  ["a quarter's answer is too large", { quarters: GIVEN }, failQuarter("2022Q1", "States.DataLimitExceeded"), SOME_FAILED],
  ["starting is throttled", { quarters: GIVEN }, after([BUSY, BUSY], { ExecutionArn: "arn" }), DONE],
  ["an item has no quarter", { quarters: [GIVEN[0], { bucket: "calls" }] }, succeed, SOME_FAILED],
  ["two at once", { quarters: GIVEN, at_once: 2 }, succeed, DONE],
  ["40 at once", { quarters: GIVEN, at_once: 40 }, succeed, DONE],
  ["none at once", { quarters: GIVEN, at_once: 0 }, succeed, "InvalidInput"],
  ["41 at once", { quarters: GIVEN, at_once: 41 }, succeed, "InvalidInput"],
  ["at_once is text", { quarters: GIVEN, at_once: "2" }, succeed, "InvalidInput"],
  ["at_once is not whole", { quarters: GIVEN, at_once: 1.5 }, succeed, "InvalidInput"],
  ["no quarters", { quarters: [] }, succeed, "InvalidInput"],
  ["no list", {}, succeed, "InvalidInput"],
];

/** An AWS in which vLLM is healthy at once and nobody else runs; it remembers in what order it was scaled. */
function vllm(changed = {}) {
  const calls = [];
  const scaled = (state) => (input) => {
    calls.push(`${state} ${input.DesiredCapacity ?? input.DesiredCount ?? input.MixedInstancesPolicy.InstancesDistribution.OnDemandBaseCapacity}`);
    return {};
  };
  const noted = ["ScaleGroupUp", "ScaleServiceUp", "ScaleServiceDown", "ScaleGroupDown", "StartOnDemand", "ResetOnDemand"];
  const handlers = {
    ...Object.fromEntries(noted.map((state) => [state, scaled(state)])),
    FindSize: size(0),
    CheckTargets: targets("healthy"),
    CheckKeptTargets: targets("healthy"),
    CheckGroup: () => ({ AutoScalingGroups: [{ Instances: [{ InstanceId: "i-1" }] }] }),
    CheckActivity: () => ({ Activities: [] }),
    RunSmokeTest: () => ({ JobId: "smoke" }),
    ReadSmokeTestLog: () => ({ Events: [{ Message: "the model named 0 of 3 topics" }] }),
    FindRuns: () => ({ Executions: [] }),
    FindLists: () => ({ Executions: [{ Name: "this one" }] }),
    RunQuarter: succeed,
    ...changed,
  };
  return { handlers, calls };
}

function targets(...states) {
  return () => ({ TargetHealthDescriptions: states.map((State) => ({ TargetHealth: { State } })) });
}

function size(DesiredCapacity) {
  return () => ({ AutoScalingGroups: [{ DesiredCapacity }] });
}

/** Answers in turn; the last answer stays. */
function inTurn(...answers) {
  return (input) => (answers.length > 1 ? answers.shift() : answers[0])(input);
}

// The interpreter starts executions at the present time.
function activity(StatusMessage, StartTime = "2999-01-01T00:00:00Z") {
  return () => ({ Activities: [{ StatusCode: "Failed", StatusMessage, StartTime }] });
}

const UP = ["ScaleGroupUp 1", "ScaleServiceUp 1"];
const DOWN = ["ScaleServiceDown 0", "ScaleGroupDown 0", "ResetOnDemand 0"];
const ONE = { quarters: GIVEN, vllm: { size: 1, keep: false } };
const KEPT = { quarters: GIVEN, vllm: { size: 1, keep: true } };
const TWO = { quarters: GIVEN, vllm: { size: 2, keep: false } };
const NO_INSTANCES = () => ({ AutoScalingGroups: [{ Instances: [] }] });
const FAILED_JOB = JSON.stringify({ JobId: "smoke", Container: { ExitCode: 1, LogStreamName: "worker/1" } });
const NOT_NAMED = { RunSmokeTest: always("States.TaskFailed", FAILED_JOB) };
const WARM = { quarters: GIVEN, vllm: { keep: true } };
const unlogged = ({ cause }) => cause.includes("there is no log of it; its job in AWS Batch is ftm-smoke-name");
const QUOTA = "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded.";
const stoppedOne = (input) => ({ executionArn: "arn", status: "ABORTED", input: JSON.stringify(input) });

// [what happens, the input, the changed tasks, the last state or the error, how vLLM is scaled, further checks]
const bracketed = [
  ["vLLM is on around the quarters", ONE, {}, DONE, [...UP, ...DOWN]],
  ["vLLM is kept", KEPT, {}, DONE, UP],
  ["vLLM is not asked for", { quarters: GIVEN }, {}, DONE, []],
  ["vLLM is healthy at the third check", ONE, { CheckTargets: inTurn(targets(), targets("initial"), targets("healthy")) }, DONE, [...UP, ...DOWN]],
  ["a quarter fails", ONE, { RunQuarter: always("States.TaskFailed") }, SOME_FAILED, [...UP, ...DOWN]],
  ["the group is larger already", ONE, { FindSize: size(3), CheckTargets: targets("healthy", "healthy", "healthy") }, DONE, ["ScaleGroupUp 3", "ScaleServiceUp 3", ...DOWN]],
  ["the group cannot be read", ONE, { FindSize: always("AutoScaling.Exception") }, "AutoScaling.Exception", DOWN],
  ["the group cannot be scaled up", ONE, { ScaleGroupUp: always("AutoScaling.ValidationException") }, "AutoScaling.ValidationException", DOWN],
  ["the service cannot be scaled up", ONE, { ScaleServiceUp: always("Ecs.ServerException") }, "Ecs.ServerException", [UP[0], ...DOWN]],
  ["scaling up is throttled once", ONE, { ScaleServiceUp: after(["States.TaskFailed"], {}) }, DONE, [UP[0], ...DOWN]],
  ["targets cannot be read", ONE, { CheckTargets: always("ElasticLoadBalancingV2.Exception") }, "ElasticLoadBalancingV2.Exception", [...UP, ...DOWN]],
  ["vLLM is never healthy", ONE, { CheckTargets: targets("unhealthy") }, "VllmNotHealthy", [...UP, ...DOWN], ({ cause }) => cause.includes("within 45 minutes")],
  ["vLLM is to be kept and is never healthy", KEPT, { CheckTargets: targets() }, "VllmNotHealthy", [...UP, ...DOWN]],
  ["one of two becomes healthy", TWO, { CheckTargets: targets("healthy", "unhealthy") }, DONE, ["ScaleGroupUp 2", "ScaleServiceUp 2", ...DOWN]],
  ["the quota is used up", ONE, { CheckTargets: targets(), CheckActivity: activity(QUOTA) }, "VllmQuotaExceeded", [...UP, ...DOWN], ({ cause }) => cause.includes("L-3819A6DF")],
  ["the quota was used up last week", ONE, { CheckTargets: inTurn(targets(), targets("healthy")), CheckActivity: activity(QUOTA, "2023-03-24T00:00:00Z") }, DONE, [...UP, ...DOWN]],
  ["the quota suffices for one of two", TWO, { CheckActivity: activity(QUOTA) }, DONE, ["ScaleGroupUp 2", "ScaleServiceUp 2", ...DOWN]],
  ["Spot is dry and on-demand instances come", ONE, { CheckTargets: inTurn(...Array(90).fill(targets()), targets("healthy")), CheckGroup: NO_INSTANCES }, DONE, [...UP, "StartOnDemand 1", ...DOWN]],
  ["vLLM runs already and is tested", WARM, {}, DONE, [], ({ visited }) => visited.includes("RunSmokeTest")],
  ["vLLM cannot name topics", ONE, NOT_NAMED, "SmokeTestFailed", [...UP, ...DOWN], ({ cause, visited }) => cause.endsWith("the model named 0 of 3 topics") && !visited.includes("ProcessQuarters")],
  ["vLLM runs already and cannot name topics", WARM, NOT_NAMED, "SmokeTestFailed", []],
  ["vLLM is to be kept and cannot name topics", KEPT, NOT_NAMED, "SmokeTestFailed", UP],
  ["the smoke test is not wanted", { quarters: GIVEN, vllm: { size: 1, keep: false, smoke_test: false } }, NOT_NAMED, DONE, [...UP, ...DOWN]],
  ["the smoke test's log is empty", ONE, { ...NOT_NAMED, ReadSmokeTestLog: () => ({ Events: [] }) }, "SmokeTestFailed", [...UP, ...DOWN], unlogged],
  ["the smoke test's log cannot be read", ONE, { ...NOT_NAMED, ReadSmokeTestLog: always("CloudWatchLogs.Exception") }, "SmokeTestFailed", [...UP, ...DOWN], unlogged],
  ["the smoke test's job has no log", ONE, { RunSmokeTest: always("States.TaskFailed", '{"JobId": "smoke", "Container": {}}') }, "SmokeTestFailed", [...UP, ...DOWN], unlogged],
  ["the smoke test takes too long", ONE, { RunSmokeTest: always("States.Timeout") }, "SmokeTestFailed", [...UP, ...DOWN], unlogged],
  ["the queue is gone before the smoke test", ONE, { RunSmokeTest: always("Batch.ClientException", "no such queue") }, "SmokeTestFailed", [...UP, ...DOWN], unlogged],
  ["another run uses vLLM", ONE, { FindRuns: () => ({ Executions: [{ Name: "other" }] }) }, DONE, UP],
  ["the list of runs lags behind", ONE, { FindRuns: inTurn(() => ({ Executions: [{ Name: "ended" }] }), () => ({ Executions: [] })) }, DONE, [...UP, ...DOWN]],
  ["another list uses vLLM", ONE, { FindLists: () => ({ Executions: [{ Name: "this one" }, { Name: "other" }] }) }, DONE, UP],
  ["the service cannot be scaled down", ONE, { ScaleServiceDown: always("Ecs.ServerException") }, DONE, [...UP, ...DOWN.slice(1)]],
  ["the group cannot be scaled down", ONE, { ScaleGroupDown: always("AutoScaling.Exception") }, DONE, [...UP, DOWN[0], DOWN[2]]],
  ["the runs cannot be listed", ONE, { FindRuns: always("Sfn.Exception") }, DONE, UP],
  ["a list with vLLM was stopped", stoppedOne(ONE), {}, "CleanedUpAfterStop", DOWN],
  ["a list that keeps vLLM was stopped", stoppedOne(KEPT), {}, "NothingToScaleDown", []],
  ["a list that keeps vLLM was stopped before vLLM was healthy", stoppedOne(KEPT), { CheckKeptTargets: targets("initial") }, "CleanedUpAfterStop", DOWN],
  ["a list that keeps vLLM was stopped before there was an instance", stoppedOne(KEPT), { CheckKeptTargets: targets() }, "CleanedUpAfterStop", DOWN],
  ["a list that keeps vLLM was stopped, and targets cannot be read", stoppedOne(KEPT), { CheckKeptTargets: always("ElasticLoadBalancingV2.Exception") }, "NothingToScaleDown", []],
  ["a list that found vLLM running was stopped", stoppedOne(WARM), { CheckKeptTargets: targets() }, "NothingToScaleDown", []],
  ["a list without vLLM was stopped", stoppedOne({ quarters: GIVEN }), {}, "NothingToScaleDown", []],
  ["the cleaning up was stopped", stoppedOne(stoppedOne(ONE)), {}, "NothingToScaleDown", []],
  ["the size is text", { quarters: GIVEN, vllm: { size: "1" } }, {}, "InvalidInput", []],
  ["the size is zero", { quarters: GIVEN, vllm: { size: 0, keep: false } }, {}, "InvalidInput", []],
  ["the size is missing", { quarters: GIVEN, vllm: {} }, {}, "InvalidInput", []],
];

async function run(definition, input, handlers) {
  const states = Object.keys(handlers);
  const execution = new StateMachine(definition, { validationOptions: { checkArn: false } }).run(input, {
    overrides: {
      taskResourceLocalHandlers: handlers,
      retryIntervalOverrides: Object.fromEntries(states.map((state) => [state, 0])),
      waitTimeOverrides: { WaitForVllm: 0, WaitForOthers: 0 },
    },
    context: {
      Execution: { Id: "arn:execution", Name: "name", StartTime: "2023-04-01T00:00:00Z", Input: input },
      StateMachine: { Id: "arn:quarters", Name: "quarters" },
    },
  });
  const visited = [];
  const reading = (async () => {
    for await (const event of execution.eventLogs) {
      if (event.type.endsWith("StateEntered") || event.type === "StateEntered") visited.push(event.state.name);
    }
  })().catch(() => {});
  try {
    const output = await execution.result;
    await reading;
    return { output, visited, end: visited.at(-1) };
  } catch (error) {
    await reading;
    return { visited, end: error.cause.name, cause: error.cause.message };
  }
}

async function main() {
  const scenarios = [
    ...["quarter", "quarter-at-most", "quarter-with-vllm"].flatMap((name) =>
      quarters.map(([what, changed, end, holds]) => [name, what, QUARTER, tasks(changed), end, holds]),
    ),
    ...lists.map(([what, input, task, end, holds]) => ["quarters", what, input, { RunQuarter: task }, end, holds]),
  ];
  for (const [what, input, changed, end, scaled, holds] of bracketed) {
    const { handlers, calls } = vllm(changed);
    const asScaled = (ended) => calls.join() === scaled.join() && (!holds || holds(ended));
    scenarios.push(["quarters-with-vllm", what, input, handlers, end, asScaled]);
  }
  const wrong = [];
  for (const [name, what, input, handlers, end, holds] of scenarios) {
    // A task that fails a few times and then answers remembers how often: each machine gets its own.
    const ended = await run(machines[name], input, handlers);
    const batches = (ended.output || {}).batches;
    const outcomes = !Array.isArray(batches) || batches.every(isOutcome);
    if (ended.end !== end || !outcomes || (holds && !holds(ended))) {
      wrong.push(`${name}, ${what}: ended as ${ended.end} (${ended.cause || ""}), not ${end}`);
    }
  }
  for (const sentence of wrong) console.error(sentence);
  console.log(`${scenarios.length - wrong.length} of ${scenarios.length} scenarios end as they should`);
  process.exit(wrong.length ? 1 : 0);
}

main();
