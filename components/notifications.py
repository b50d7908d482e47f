"""The SNS topic that receives alarms and how each run ended: an existing one, a new one, or none."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import policies
from components.account import Account
from components.settings import AdoptedResources, GuardrailSettings, StackSettings


@dataclass(frozen=True)
class NotificationsArgs:
    stack: StackSettings
    guardrails: GuardrailSettings
    adopted: AdoptedResources
    account: Account


class Notifications(pulumi.ComponentResource):
    """An encrypted topic with the settings' e-mail addresses as subscribers, which rejects requests without TLS."""

    topic_arn: pulumi.Output[str] | None
    """None when nobody is to be notified."""
    topic_name_arn: str | None
    """The same ARN, known at preview, for policies."""

    def __init__(self, name: str, args: NotificationsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ftm:components:Notifications", name, None, opts)
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self.topic_name_arn = args.adopted.sns_topic_arn
        self.topic_arn = pulumi.Output.from_input(self.topic_name_arn) if self.topic_name_arn else None
        if args.guardrails.notification_emails:
            topic_name = args.stack.name("notifications", 256)
            self.topic_name_arn = args.account.arn("sns", topic_name)
            self.topic_arn = self._create_topic(topic_name, self.topic_name_arn, args.guardrails.notification_emails)
        self.register_outputs({"topic_arn": self.topic_arn})

    def _create_topic(self, name: str, arn: str, emails: list[str]) -> pulumi.Output[str]:
        stack, account = self._args.stack, self._args.account
        topic = aws.sns.Topic(
            "notifications",
            name=name,
            kms_master_key_id=stack.kms_key_arn or self._create_key(),
            tags=stack.tags,
            opts=self._child,
        )
        policy = aws.sns.TopicPolicy(
            "notifications", arn=topic.arn, policy=policies.notification_topic(account, arn), opts=self._child
        )
        for email in emails:
            aws.sns.TopicSubscription(
                f"notifications-{email}", topic=topic.arn, protocol="email", endpoint=email, opts=self._child
            )
        return pulumi.Output.all(topic.arn, policy.id).apply(lambda known: str(known[0]))

    def _create_key(self) -> pulumi.Output[str]:
        """Create a KMS key and return its ARN: the AWS-managed key for SNS does not let alarms publish."""
        stack = self._args.stack
        key = aws.kms.Key(
            "notifications",
            description=f"The topic {stack.name('notifications', 256)}",
            policy=policies.notification_key(self._args.account),
            enable_key_rotation=True,
            deletion_window_in_days=7,
            tags=stack.tags,
            opts=self._child,
        )
        return key.arn
