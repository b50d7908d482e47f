"""Roles and what they may do. The embedded AWS stores policies, and checks none."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name
from local.deploy.resources.registry import Created, answers, creates


@creates("aws:iam/role:Role")
def role(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    without = ("name", "namePrefix", "assumeRolePolicy", "forceDetachPolicies", "managedPolicyArns", "inlinePolicies")
    trust = {"assumeRolePolicyDocument": resource.inputs["assumeRolePolicy"]}
    made = aws.call("iam", "create_role", resource.inputs | trust, without, RoleName=name)["Role"]
    for arn in resource.inputs.get("managedPolicyArns") or []:
        aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=arn)
    for inline in resource.inputs.get("inlinePolicies") or []:
        aws.client("iam").put_role_policy(RoleName=name, PolicyName=inline["name"], PolicyDocument=inline["policy"])
    return name, {"name": name, "arn": made["Arn"], "uniqueId": made["RoleId"]}


@creates("aws:iam/rolePolicy:RolePolicy")
def role_policy(aws: Aws, resource: Resource) -> Created:
    name, role_name = physical_name(resource), resource.inputs["role"]
    document = {"policyDocument": resource.inputs["policy"]}
    aws.call("iam", "put_role_policy", document, RoleName=role_name, PolicyName=name)
    return f"{role_name}:{name}", {"name": name}


@creates("aws:iam/policy:Policy")
def policy(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    document = {"policyDocument": resource.inputs["policy"]}
    made = aws.call(
        "iam", "create_policy", resource.inputs | document, ("name", "namePrefix", "policy"), PolicyName=name
    )
    arn = made["Policy"]["Arn"]
    return arn, {"name": name, "arn": arn}


@creates("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
def role_policy_attachment(aws: Aws, resource: Resource) -> Created:
    role_name, arn = resource.inputs["role"], resource.inputs["policyArn"]
    aws.client("iam").attach_role_policy(RoleName=role_name, PolicyArn=arn)
    return f"{role_name}-{arn}", {}


@creates("aws:iam/instanceProfile:InstanceProfile")
def instance_profile(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call(
        "iam", "create_instance_profile", resource.inputs, ("name", "namePrefix", "role"), InstanceProfileName=name
    )
    if role_name := resource.inputs.get("role"):
        aws.client("iam").add_role_to_instance_profile(InstanceProfileName=name, RoleName=role_name)
    return name, {"name": name, "arn": made["InstanceProfile"]["Arn"]}


@answers("aws:index/getCallerIdentity:getCallerIdentity")
def get_caller_identity(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - every answer takes both
    who = aws.client("sts").get_caller_identity()
    return {"id": who["Account"], "accountId": who["Account"], "arn": who["Arn"], "userId": who["UserId"]}


@answers("aws:index/getRegion:getRegion")
def get_region(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    region = args.get("region") or aws.region
    return {"id": region, "region": region, "name": region, "endpoint": f"ec2.{region}.amazonaws.com"}


@answers("aws:index/getPartition:getPartition")
def get_partition(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - every answer takes both
    return {"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws"}


@answers("aws:iam/getRole:getRole")
def get_role(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    found = aws.client("iam").get_role(RoleName=args["name"])["Role"]
    return {"id": found["RoleName"], "name": found["RoleName"], "arn": found["Arn"], "uniqueId": found["RoleId"]}
