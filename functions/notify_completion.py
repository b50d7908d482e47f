"""Publishes how a run ended on the stack's SNS topic. A run does not fail because the notice could not be published."""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import os
from datetime import UTC, datetime
from typing import cast

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from contract import env
from contract.prices import BATCH_HOUR, GPU_HOUR, hosted_dollars
from contract.run import Failure, Notification, NotificationRequest, NotifiedRun, Summary, UncountedSummary
from functions.failures import describe_failure

sns = boto3.client("sns")

# SNS refuses a longer subject.
_MAX_SUBJECT = 100


def handler(event: NotificationRequest, _context: object) -> NotifiedRun:
    """Publish the summary on the configured topic. The answer says why not when there is none, or when SNS refuses."""
    given = event["summary"]
    uncounted = not isinstance(given["message"], str)
    summary = failed_summary(event["quarter"], cast(UncountedSummary, given)) if uncounted else cast(Summary, given)
    return {"summary": summary, "notification": notify(summary, event)}


def notify(summary: Summary, event: NotificationRequest) -> Notification:
    topic = os.environ.get(env.SNS_TOPIC_ARN)
    if not topic:
        return {"notified": False, "reason": "no SNS topic is configured for this stack"}
    try:
        sns.publish(TopicArn=topic, Subject=subject(summary), Message=message(summary, event))
    except (BotoCoreError, ClientError) as error:
        return {"notified": False, "reason": f"SNS refused the message: {error}"}
    return {"notified": True, "reason": f"published on {topic}"}


def failed_summary(quarter: str, uncounted: UncountedSummary) -> Summary:
    """The summary of a run that SummarizeResults could not count: its results are in the bucket, and are kept."""
    failure = uncounted["message"]
    problem = describe_failure(failure["Error"], failure["Cause"]).rstrip(".")
    return Summary(
        quarter=quarter,
        run="",
        has_failures=True,
        message=(
            f"{quarter} failed: its results could not be counted: {problem}. They are kept, and "
            f"`ftm resume {quarter}` counts them again."
        ),
        batches={"total": 0, "succeeded": 0, "failed": 0},
        firms={"total": 0, "completed": 0, "skipped": 0, "failed": 0},
        topics={"total": 0, "named": 0},
        tokens={"prompt": 0, "cached": 0, "completion": 0},
        seconds=0.0,
        fallbacks=[],
        failures=[],
    )


def subject(summary: Summary) -> str:
    outcome = "failed" if summary["has_failures"] else "succeeded"
    run = f" (run {summary['run']})" if summary["run"] else ""
    return f"ftm: {summary['quarter']} {outcome}{run}"[:_MAX_SUBJECT]


def message(summary: Summary, event: NotificationRequest) -> str:
    """The text of the notice: the outcome, the counts, the failures, the cost, and the next commands, one a line."""
    batches, firms, topics, tokens = summary["batches"], summary["firms"], summary["topics"], summary["tokens"]
    lines = [
        summary["message"],
        "",
        f"Batches: {batches['succeeded']} of {batches['total']} succeeded, {batches['failed']} failed",
        f"Firms: {firms['completed']} completed, {firms['skipped']} skipped, {firms['failed']} not done",
        f"Topics: {topics['named']} of {topics['total']} named by the LLM",
        f"Tokens: {tokens['prompt']:,} prompt ({tokens['cached']:,} cached), {tokens['completion']:,} completion",
        *_failure_lines(summary["failures"]),
        "",
        f"Cost: {cost(summary, event)}, see ftm cost {summary['quarter']}",
    ]
    if summary["has_failures"] and summary["run"]:
        rest = "ask for the missing names" if not summary["failures"] else "process the others"
        lines.append(f"Complete batches are kept. To {rest}: ftm resume {summary['quarter']} {summary['run']}")
    if not summary["has_failures"]:
        lines.append(f"See the topics: ftm topics {summary['quarter']}")
    return "\n".join([*lines, "", f"Execution: {event['execution']}"])


def cost(summary: Summary, event: NotificationRequest) -> str:
    """The cost at list prices: the batch jobs, and one GPU since the execution began or the hosted API."""
    low = high = summary["seconds"] / 3600 * BATCH_HOUR
    if event.get("own_gpu") and (started_at := event.get("started_at")):
        hours = (datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds() / 3600
        low, high = low + hours * GPU_HOUR[0], high + hours * GPU_HOUR[1]
    else:
        low = high = low + hosted_dollars(summary["tokens"])
    return f"about ${low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"about ${low:.2f} to ${high:.2f}"


def _failure_lines(failures: list[Failure]) -> list[str]:
    if not failures:
        return []
    lines = ["", "Failed batches:"]
    for failure in failures:
        lines.append(f"- {failure['batch_id']}: {failure['reason']}")
        details = {
            "Batch reports": failure.get("status_reason"),
            "exit code": failure.get("exit_code"),
            "attempts": failure.get("attempts"),
            "log stream": failure.get("log_stream"),
        }
        if known := [f"{name} {value}" for name, value in details.items() if value is not None]:
            lines.append(f"  {', '.join(known)}")
    return lines
