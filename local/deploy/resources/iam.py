"""IAM roles and policies. The embedded AWS stores policies and does not enforce them."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name
from local.deploy.resources.registry import Created, answers, creates


@creates("aws:iam/role:Role")
def role(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    without = ("name", "namePrefix", "assumeRolePolicy", "forceDetachPolicies")
    trust = {"assumeRolePolicyDocument": resource.inputs["assumeRolePolicy"]}
    made = aws.call("iam", "create_role", resource.inputs | trust, without, RoleName=name)["Role"]
    return name, {"name": name, "arn": made["Arn"], "uniqueId": made["RoleId"]}


@creates("aws:iam/rolePolicy:RolePolicy")
def role_policy(aws: Aws, resource: Resource) -> Created:
    name, role_name = physical_name(resource), resource.inputs["role"]
    document = {"policyDocument": resource.inputs["policy"]}
    aws.call("iam", "put_role_policy", document, RoleName=role_name, PolicyName=name)
    return f"{role_name}:{name}", {"name": name}


@creates("aws:iam/instanceProfile:InstanceProfile")
def instance_profile(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call(
        "iam", "create_instance_profile", resource.inputs, ("name", "namePrefix", "role"), InstanceProfileName=name
    )
    if role_name := resource.inputs.get("role"):
        aws.client("iam").add_role_to_instance_profile(InstanceProfileName=name, RoleName=role_name)
    return name, {"name": name, "arn": made["InstanceProfile"]["Arn"]}


@creates("aws:kms/key:Key")
def key(aws: Aws, resource: Resource) -> Created:
    without = ("enableKeyRotation", "deletionWindowInDays", "tags")
    tags = [{"TagKey": key, "TagValue": value} for key, value in (resource.inputs.get("tags") or {}).items()]
    made = aws.call("kms", "create_key", resource.inputs, without, Tags=tags)["KeyMetadata"]
    if resource.inputs.get("enableKeyRotation"):
        aws.client("kms").enable_key_rotation(KeyId=made["KeyId"])
    return made["KeyId"], {"keyId": made["KeyId"], "arn": made["Arn"]}


@answers("aws:index/getCallerIdentity:getCallerIdentity")
def get_caller_identity(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - every answerer takes both
    who = aws.client("sts").get_caller_identity()
    return {"id": who["Account"], "accountId": who["Account"], "arn": who["Arn"], "userId": who["UserId"]}


@answers("aws:index/getRegion:getRegion")
def get_region(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    region = args.get("region") or aws.region
    return {"id": region, "region": region, "name": region, "endpoint": f"ec2.{region}.amazonaws.com"}


@answers("aws:index/getPartition:getPartition")
def get_partition(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - every answerer takes both
    return {"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws"}
