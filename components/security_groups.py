"""Security groups and their rules. Inbound rules reference another group, never an address range."""

import pulumi
import pulumi_aws as aws

from components.account import Account
from components.settings import StackSettings


def create(
    parent: pulumi.Resource, stack: StackSettings, account: Account, rest: str, description: str
) -> aws.ec2.SecurityGroup:
    """The group `<prefix>-<rest>`, without any rule."""
    return aws.ec2.SecurityGroup(
        rest,
        name=stack.name(rest, 255),
        description=description,
        vpc_id=account.vpc_id,
        tags=stack.tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )


def allow(
    parent: pulumi.Resource,
    stack: StackSettings,
    name: str,
    source: pulumi.Input[str],
    target: pulumi.Input[str],
    port: int,
    description: str,
) -> list[pulumi.Resource]:
    """Let the group `source` connect to the group `target` at one TCP port. Returns both rules: resources that need the
    connection depend on them, so that `pulumi destroy` deletes the rules last."""
    opts = pulumi.ResourceOptions(parent=parent)
    egress = aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=source,
        referenced_security_group_id=target,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        description=description,
        tags=stack.tags,
        opts=opts,
    )
    ingress = aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=target,
        referenced_security_group_id=source,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        description=description,
        tags=stack.tags,
        opts=opts,
    )
    return [egress, ingress]


def allow_https_out(
    parent: pulumi.Resource, stack: StackSettings, name: str, source: pulumi.Input[str], description: str
) -> pulumi.Resource:
    """Let the group `source` connect to any address by HTTPS: AWS's endpoints have no fixed address range."""
    return aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=source,
        cidr_ipv4="0.0.0.0/0",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        description=description,
        tags=stack.tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )
