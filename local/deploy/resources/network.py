"""EC2: lookups of the existing network, security groups, launch templates."""

from collections.abc import Mapping
from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, fit, physical_name, tag_list
from local.deploy.resources.registry import Created, answers, creates


@creates("aws:ec2/securityGroup:SecurityGroup")
def security_group(aws: Aws, resource: Resource) -> Created:
    """Created as the AWS provider does it: the default rule that allows all outbound traffic is revoked."""
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
    data = launch_template_data(aws, inputs)
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=_tags("launch-template", inputs)
    )["LaunchTemplate"]
    identity = made["LaunchTemplateId"]
    arn = f"arn:aws:ec2:{aws.region}::launch-template/{identity}"
    return identity, {"name": name, "arn": arn, "latestVersion": 1, "defaultVersion": 1}


def launch_template_data(aws: Aws, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a launch template's version, from Pulumi's inputs."""
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
    return data


@answers("aws:ec2/getSecurityGroups:getSecurityGroups")
def get_security_groups(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    found = aws.client("ec2").describe_security_groups(Filters=_filters(args))["SecurityGroups"]
    return {"ids": [group["GroupId"] for group in found], "vpcIds": [group["VpcId"] for group in found]}


@answers("aws:ec2/getRouteTables:getRouteTables")
def get_route_tables(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    filters = [*_filters(args), {"Name": "vpc-id", "Values": [args["vpcId"]]}]
    found = aws.client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    return {"ids": [table["RouteTableId"] for table in found]}


@answers("aws:ec2/getRouteTable:getRouteTable")
def get_route_table(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    (table,) = aws.client("ec2").describe_route_tables(RouteTableIds=[args["routeTableId"]])["RouteTables"]
    routes = [
        {
            "cidrBlock": route.get("DestinationCidrBlock", ""),
            "gatewayId": route.get("GatewayId", ""),
            "natGatewayId": route.get("NatGatewayId", ""),
        }
        for route in table["Routes"]
    ]
    return {"id": table["RouteTableId"], "vpcId": table["VpcId"], "routes": routes}


@answers("aws:ec2/getSubnets:getSubnets")
def get_subnets(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    filters = {each["Name"]: each for each in _filters(args)}
    public = filters.pop("map-public-ip-on-launch", None)  # the one filter in use that moto does not know
    found = aws.client("ec2").describe_subnets(Filters=list(filters.values()))["Subnets"]
    ids = [
        each["SubnetId"] for each in found if not public or str(each["MapPublicIpOnLaunch"]).lower() in public["Values"]
    ]
    return {"id": aws.region, "ids": sorted(ids)}


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


def _tags(kind: str, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": tag_list(inputs["tags"])}] if inputs.get("tags") else []


def _filters(args: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"Name": each["name"], "Values": each["values"]} for each in args.get("filters") or []]
