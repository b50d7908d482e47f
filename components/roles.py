"""Roles, each created with one policy, or adopted.

In an account that forbids IAM all roles are given, and the program makes no IAM call.
"""

import pulumi
import pulumi_aws as aws

from components import policies
from components.account import Account
from components.settings import StackSettings


def role_arn(
    parent: pulumi.Resource,
    stack: StackSettings,
    rest: str,
    *,
    given: str | None,
    trust: str,
    policy: pulumi.Input[str],
) -> pulumi.Output[str]:
    """The ARN of the new role `<prefix>-<rest>`, or `given` unchanged.

    Whatever uses the ARN depends on the role's policy: it is created after the policy, and destroyed before it.
    """
    if given:
        return pulumi.Output.from_input(given)
    role, attached = _create_role(parent, stack, rest, trust, policy)
    return _after(attached, role.arn)


def instance_profile_arn(
    parent: pulumi.Resource, stack: StackSettings, account: Account, rest: str, *, given: str | None, cluster: str
) -> pulumi.Output[str]:
    """The ARN of a profile for the container instances of the ECS cluster `cluster`, or `given` unchanged.

    Whatever uses the ARN depends on the role's policy, as with `role_arn`.
    """
    if given:
        return pulumi.Output.from_input(given)
    policy = policies.container_instance(account, cluster)
    role, attached = _create_role(parent, stack, rest, policies.trust(f"ec2.{account.dns_suffix}"), policy)
    profile = aws.iam.InstanceProfile(
        rest, name=role.name, role=role.name, tags=stack.tags, opts=pulumi.ResourceOptions(parent=parent)
    )
    return _after(attached, profile.arn)


def _create_role(
    parent: pulumi.Resource, stack: StackSettings, rest: str, trust: str, policy: pulumi.Input[str]
) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
    opts = pulumi.ResourceOptions(parent=parent)
    name = stack.name(rest)
    role = aws.iam.Role(rest, name=name, assume_role_policy=trust, tags=stack.tags, opts=opts)
    return role, aws.iam.RolePolicy(rest, name=name, role=role.name, policy=policy, opts=opts)


def _after(attached: aws.iam.RolePolicy, arn: pulumi.Output[str]) -> pulumi.Output[str]:
    return pulumi.Output.all(arn, attached.id).apply(lambda known: str(known[0]))
