"""Security groups, and the chain between them: each rule names the other group, and none is open to come in."""

import pulumi
import pulumi_aws as aws

from components.account import Account
from components.settings import Settings


def create(
    parent: pulumi.Resource, settings: Settings, account: Account, rest: str, description: str
) -> aws.ec2.SecurityGroup:
    """The group `<prefix>-<rest>`, without any rule."""
    return aws.ec2.SecurityGroup(
        rest,
        name=settings.name(rest, 255),
        description=description,
        vpc_id=account.vpc_id,
        tags=settings.tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )


def allow(
    parent: pulumi.Resource,
    settings: Settings,
    name: str,
    source: pulumi.Input[str],
    target: pulumi.Input[str],
    port: int,
    description: str,
) -> None:
    """Let the group `source` connect to the group `target` at one TCP port."""
    opts = pulumi.ResourceOptions(parent=parent)
    aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=source,
        referenced_security_group_id=target,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        description=description,
        tags=settings.tags,
        opts=opts,
    )
    aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=target,
        referenced_security_group_id=source,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        description=description,
        tags=settings.tags,
        opts=opts,
    )


def allow_https_out(
    parent: pulumi.Resource, settings: Settings, name: str, source: pulumi.Input[str], description: str
) -> None:
    """Let the group `source` connect to anything by HTTPS: AWS's endpoints have no address range of their own."""
    aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=source,
        cidr_ipv4="0.0.0.0/0",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        description=description,
        tags=settings.tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )
