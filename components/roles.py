"""Roles, created with one policy each, or adopted: in an account that forbids IAM all of them are given, and the
program then makes no IAM call at all."""

import pulumi
import pulumi_aws as aws

from components import policies
from components.account import Account
from components.settings import Settings


def role_arn(
    parent: pulumi.Resource, settings: Settings, rest: str, *, given: str, trust: str, policy: pulumi.Input[str]
) -> pulumi.Output[str]:
    """The ARN of the role `<prefix>-<rest>`, or `given` as it is. Whoever uses the ARN waits for the role's policy."""
    if given:
        return pulumi.Output.from_input(given)
    role, attached = _create_role(parent, settings, rest, trust, policy)
    return pulumi.Output.all(role.arn, attached.id).apply(lambda known: str(known[0]))


def instance_profile_arn(
    parent: pulumi.Resource, settings: Settings, account: Account, rest: str, *, given: str, cluster: str
) -> pulumi.Output[str]:
    """The ARN of the profile of the container instances of the ECS cluster `cluster`, or `given` as it is."""
    if given:
        return pulumi.Output.from_input(given)
    policy = policies.container_instance(account, cluster)
    role, _ = _create_role(parent, settings, rest, policies.trust("ec2.amazonaws.com"), policy)
    profile = aws.iam.InstanceProfile(
        rest, name=role.name, role=role.name, tags=settings.tags, opts=pulumi.ResourceOptions(parent=parent)
    )
    return profile.arn


def _create_role(
    parent: pulumi.Resource, settings: Settings, rest: str, trust: str, policy: pulumi.Input[str]
) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
    opts = pulumi.ResourceOptions(parent=parent)
    name = settings.name(rest)
    role = aws.iam.Role(rest, name=name, assume_role_policy=trust, tags=settings.tags, opts=opts)
    return role, aws.iam.RolePolicy(rest, name=name, role=role.name, policy=policy, opts=opts)
