"""EC2: the network that is there, security groups, launch templates."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, fit, physical_name, tag_list
from local.deploy.resources.registry import Created, answers, creates
from local.state import LocalError


@creates("aws:ec2/securityGroup:SecurityGroup")
def security_group(aws: Aws, resource: Resource) -> Created:
    """As Pulumi makes it: AWS's own rule that lets everything out is revoked."""
    inputs, ec2 = resource.inputs, aws.client("ec2")
    name = physical_name(resource)
    made = aws.call(
        "ec2",
        "create_security_group",
        {"vpcId": inputs.get("vpcId")},
        GroupName=name,
        Description=inputs.get("description") or "Managed by Pulumi",
        TagSpecifications=_tags("security-group", inputs),
    )
    group = made["GroupId"]
    found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=found["IpPermissionsEgress"])
    for rule in inputs.get("ingress") or []:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_inline_permission(rule)])
    for rule in inputs.get("egress") or []:
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[_inline_permission(rule)])
    arn = f"arn:aws:ec2:{aws.region}:{found['OwnerId']}:security-group/{group}"
    return group, {"name": name, "arn": arn, "vpcId": found["VpcId"], "ownerId": found["OwnerId"]}


@creates("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
def ingress_rule(aws: Aws, resource: Resource) -> Created:
    return _rule(aws, resource, "authorize_security_group_ingress")


@creates("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule")
def egress_rule(aws: Aws, resource: Resource) -> Created:
    return _rule(aws, resource, "authorize_security_group_egress")


@creates("aws:ec2/launchTemplate:LaunchTemplate")
def launch_template(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    without = (
        "name",
        "namePrefix",
        "tags",
        "tagSpecifications",
        "vpcSecurityGroupIds",
        "updateDefaultVersion",
        "description",
    )
    data = fit(aws, "ec2", "RequestLaunchTemplateData", inputs, without)
    data["SecurityGroupIds"] = inputs.get("vpcSecurityGroupIds") or []
    data["TagSpecifications"] = [
        {"ResourceType": launched["resourceType"], "Tags": tag_list(launched["tags"])}
        for launched in inputs.get("tagSpecifications") or []
    ]
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=_tags("launch-template", inputs)
    )["LaunchTemplate"]
    identity = made["LaunchTemplateId"]
    arn = f"arn:aws:ec2:{aws.region}::launch-template/{identity}"
    return identity, {"name": name, "arn": arn, "latestVersion": 1, "defaultVersion": 1}


@answers("aws:ec2/getVpc:getVpc")
def get_vpc(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    filters = _filters(args)
    if args.get("default"):
        filters.append({"Name": "is-default", "Values": ["true"]})
    if identity := args.get("id"):
        filters.append({"Name": "vpc-id", "Values": [identity]})
    found = aws.client("ec2").describe_vpcs(Filters=filters)["Vpcs"]
    if len(found) != 1:
        raise LocalError(f"{len(found)} VPCs match {_asked(args)}, not one")
    vpc = found[0]
    arn = f"arn:aws:ec2:{aws.region}:{vpc['OwnerId']}:vpc/{vpc['VpcId']}"
    return {"id": vpc["VpcId"], "arn": arn, "cidrBlock": vpc["CidrBlock"], "default": vpc["IsDefault"]}


@answers("aws:ec2/getSubnets:getSubnets")
def get_subnets(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    found = aws.client("ec2").describe_subnets(Filters=_filters(args))["Subnets"]
    return {"id": aws.region, "ids": sorted(subnet["SubnetId"] for subnet in found)}


@answers("aws:ec2/getSubnet:getSubnet")
def get_subnet(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    subnet = aws.client("ec2").describe_subnets(SubnetIds=[args["id"]])["Subnets"][0]
    return {
        "id": subnet["SubnetId"],
        "arn": subnet["SubnetArn"],
        "vpcId": subnet["VpcId"],
        "cidrBlock": subnet["CidrBlock"],
        "availabilityZone": subnet["AvailabilityZone"],
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
    }


def _rule(aws: Aws, resource: Resource, method: str) -> Created:
    inputs = resource.inputs
    permission: dict[str, Any] = {"IpProtocol": inputs["ipProtocol"]}
    permission |= {
        key: inputs[name] for name, key in (("fromPort", "FromPort"), ("toPort", "ToPort")) if name in inputs
    }
    note = {"Description": inputs["description"]} if inputs.get("description") else {}
    if peer := inputs.get("referencedSecurityGroupId"):
        permission["UserIdGroupPairs"] = [{"GroupId": peer, **note}]
    if cidr := inputs.get("cidrIpv4"):
        permission["IpRanges"] = [{"CidrIp": cidr, **note}]
    if cidr := inputs.get("cidrIpv6"):
        permission["Ipv6Ranges"] = [{"CidrIpv6": cidr, **note}]
    if prefix_list := inputs.get("prefixListId"):
        permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **note}]
    made = getattr(aws.client("ec2"), method)(GroupId=inputs["securityGroupId"], IpPermissions=[permission])
    rule = made["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    return rule, {"securityGroupRuleId": rule}


def _inline_permission(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule inside of a security group's inputs."""
    note = {"Description": rule["description"]} if rule.get("description") else {}
    return {
        "IpProtocol": rule["protocol"],
        "FromPort": rule["fromPort"],
        "ToPort": rule["toPort"],
        "IpRanges": [{"CidrIp": cidr, **note} for cidr in rule.get("cidrBlocks") or []],
        "UserIdGroupPairs": [{"GroupId": group, **note} for group in rule.get("securityGroups") or []],
    }


def _tags(kind: str, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": tag_list(inputs["tags"])}] if inputs.get("tags") else []


def _filters(args: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": asked["name"], "Values": asked["values"]} for asked in args.get("filters") or []]


def _asked(args: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in args.items()) or "nothing in particular"
