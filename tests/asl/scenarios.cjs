// Runs both state machines in an interpreter that is independent of moto's, with functions and jobs that answer as a
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
// Step Functions takes a function as the path of a cause, which the interpreter does not.
const isComputedCause = (key, value) => key === "CausePath" && value.startsWith("States.");

const { StateMachine } = require("aws-local-stepfunctions");

const folder = process.argv[2];
const machines = Object.fromEntries(
  ["quarter", "quarter-at-most", "quarters"].map((name) => [
    name,
    JSON.parse(fs.readFileSync(path.join(folder, `${name}.asl.json`), "utf8"), (key, value) =>
      isTooLong(key, value) || isComputedCause(key, value) ? undefined : value,
    ),
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

function always(error) {
  return () => {
    throw failure(error);
  };
}

const QUARTER = { quarter: "2023Q1", bucket: "calls", batch_size: 1000 };
const BATCHES = ["2023Q1_batch_0000", "2023Q1_batch_0001", "2023Q1_batch_0002"];

/** The functions and jobs of a quarter in which nothing fails; the summary counts as the real one does. */
function tasks(changed = {}) {
  return {
    CheckPrefetch: () => ({ exists: true, error: "", cause: "" }),
    CreateBatchManifest: () => ({ run: "20230401_000000", manifest_key: "manifests/m.jsonl", batch_ids: BATCHES }),
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
  return summary.Error ? { has_failures: true, message: `the summary failed: ${summary.Error}` } : summary;
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
  ["the manifest is throttled once", { CreateBatchManifest: after([RETRIED], { run: "r", manifest_key: "k", batch_ids: BATCHES }) }, SUCCESS],
  ["there is no batch to process", { CreateBatchManifest: () => ({ run: "r", manifest_key: "k", batch_ids: [] }) }, SUCCESS],
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

async function run(definition, input, handlers) {
  const states = Object.keys(handlers);
  const execution = new StateMachine(definition, { validationOptions: { checkArn: false } }).run(input, {
    overrides: {
      taskResourceLocalHandlers: handlers,
      retryIntervalOverrides: Object.fromEntries(states.map((state) => [state, 0])),
    },
    context: { Execution: { Id: "arn:execution", Name: "name", StartTime: "2023-04-01T00:00:00Z", Input: input } },
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
    ...["quarter", "quarter-at-most"].flatMap((name) =>
      quarters.map(([what, changed, end, holds]) => [name, what, QUARTER, tasks(changed), end, holds]),
    ),
    ...lists.map(([what, input, task, end, holds]) => ["quarters", what, input, { RunQuarter: task }, end, holds]),
  ];
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
