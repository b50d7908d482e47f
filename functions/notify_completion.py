"""Publishes how a run ended on the stack's SNS topic. A run does not fail because the notice could not be published."""

# boto3-stubs overloads boto3.client with every service, and only the installed ones are known.
# pyright: reportUnknownMemberType=false

import os

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from contract import env
from contract.run import Failure, Notification, NotificationRequest, Summary

sns = boto3.client("sns")

# SNS refuses a longer subject.
_MAX_SUBJECT = 100


def handler(event: NotificationRequest, _context: object) -> Notification:
    """Publish the summary on the configured topic; the answer says why not when there is none, or when SNS refuses."""
    topic = os.environ.get(env.SNS_TOPIC_ARN)
    if not topic:
        return {"notified": False, "reason": "no SNS topic is configured for this stack"}
    summary = event["summary"]
    try:
        sns.publish(TopicArn=topic, Subject=subject(summary), Message=message(summary, event["execution"]))
    except (BotoCoreError, ClientError) as error:
        return {"notified": False, "reason": f"SNS refused the message: {error}"}
    return {"notified": True, "reason": f"published on {topic}"}


def subject(summary: Summary) -> str:
    outcome = "failed" if summary["has_failures"] else "succeeded"
    return f"ftm: {summary['quarter']} {outcome} (run {summary['run'] or 'not begun'})"[:_MAX_SUBJECT]


def message(summary: Summary, execution: str) -> str:
    """The text of the notice: the outcome, the counts, the failures, and what to do next."""
    batches, firms, topics = summary["batches"], summary["firms"], summary["topics"]
    lines = [
        summary["message"],
        "",
        f"Batches: {batches['succeeded']} of {batches['total']} succeeded, {batches['failed']} failed",
        f"Firms: {firms['completed']} completed, {firms['skipped']} skipped, {firms['failed']} not done",
        f"Topics: {topics['named']} of {topics['total']} named by the LLM",
        *_failure_lines(summary["failures"]),
        "",
        f"Execution: {execution}",
    ]
    if summary["has_failures"] and summary["run"]:
        lines.append(
            f"Complete batches are kept. To process the others: ftm resume {summary['quarter']} {summary['run']}"
        )
    return "\n".join(lines)


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
