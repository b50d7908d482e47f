"""Storage of data, images and parameters: S3, ECR, SSM."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name, tag_list
from local.deploy.resources.registry import Created, answers, creates


@creates("aws:s3/bucket:Bucket")
def bucket(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource, "bucket")
    aws.call("s3", "create_bucket", resource.inputs, ("bucket", "bucketPrefix", "forceDestroy", "tags"), Bucket=name)
    if tags := resource.inputs.get("tags"):
        aws.client("s3").put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_list(tags)})
    return name, {
        "bucket": name,
        "arn": f"arn:aws:s3:::{name}",
        "region": aws.region,
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{name}.s3.{aws.region}.amazonaws.com",
    }


@creates("aws:s3/bucketVersioning:BucketVersioning")
def bucket_versioning(aws: Aws, resource: Resource) -> Created:
    aws.call("s3", "put_bucket_versioning", resource.inputs)
    return resource.inputs["bucket"], {}


@creates("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration")
def bucket_encryption(aws: Aws, resource: Resource) -> Created:
    return _configure_bucket(aws, resource, "put_bucket_encryption", "serverSideEncryptionConfiguration")


@creates("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
def bucket_public_access_block(aws: Aws, resource: Resource) -> Created:
    return _configure_bucket(aws, resource, "put_public_access_block", "publicAccessBlockConfiguration")


@creates("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")
def bucket_lifecycle(aws: Aws, resource: Resource) -> Created:
    return _configure_bucket(aws, resource, "put_bucket_lifecycle_configuration", "lifecycleConfiguration")


@creates("aws:s3/bucketLogging:BucketLogging")
def bucket_logging(aws: Aws, resource: Resource) -> Created:
    settings = {key: value for key, value in resource.inputs.items() if key != "bucket"}
    status = {"bucket": resource.inputs["bucket"], "bucketLoggingStatus": {"loggingEnabled": settings}}
    aws.call("s3", "put_bucket_logging", status)
    return resource.inputs["bucket"], {}


@creates("aws:s3/bucketPolicy:BucketPolicy")
def bucket_policy(aws: Aws, resource: Resource) -> Created:
    aws.call("s3", "put_bucket_policy", resource.inputs)
    return resource.inputs["bucket"], {}


@creates("aws:ecr/repository:Repository")
def ecr_repository(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    made = aws.call(
        "ecr",
        "create_repository",
        resource.inputs,
        ("name", "forceDelete", "encryptionConfigurations"),
        repositoryName=name,
    )["repository"]
    outputs = {"name": name, "arn": made["repositoryArn"], "repositoryUrl": made["repositoryUri"]}
    return name, {**outputs, "registryId": made["registryId"]}


@creates("aws:ecr/lifecyclePolicy:LifecyclePolicy")
def ecr_lifecycle_policy(aws: Aws, resource: Resource) -> Created:
    name, policy = resource.inputs["repository"], resource.inputs["policy"]
    aws.call("ecr", "put_lifecycle_policy", {"lifecyclePolicyText": policy}, repositoryName=name)
    return name, {}


@creates("aws:ssm/parameter:Parameter")
def ssm_parameter(aws: Aws, resource: Resource) -> Created:
    name = physical_name(resource)
    aws.call("ssm", "put_parameter", resource.inputs, ("name",), Name=name)
    return name, {"name": name, "arn": f"arn:aws:ssm:{aws.region}:{aws.account}:parameter/{name.lstrip('/')}"}


@answers("aws:ssm/getParameter:getParameter")
def get_parameter(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    found = aws.client("ssm").get_parameter(Name=args["name"], WithDecryption=True)["Parameter"]
    return {
        "id": found["Name"],
        "name": found["Name"],
        "arn": found["ARN"],
        "type": found["Type"],
        "value": found["Value"],
        "insecureValue": found["Value"],
        "version": found["Version"],
    }


@answers("aws:ssm/getParametersByPath:getParametersByPath")
def get_parameters_by_path(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    pages = aws.client("ssm").get_paginator("get_parameters_by_path")
    recursive = bool(args.get("recursive"))
    found = [one for page in pages.paginate(Path=args["path"], Recursive=recursive) for one in page["Parameters"]]
    return {"names": [one["Name"] for one in found], "values": [one["Value"] for one in found]}


@answers("aws:ecr/getRepositories:getRepositories")
def get_repositories(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - every answer takes both
    found = aws.client("ecr").describe_repositories()["repositories"]
    return {"names": [one["repositoryName"] for one in found]}


@answers("aws:ecr/getRepository:getRepository")
def get_repository(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    ecr = aws.client("ecr")
    (found,) = ecr.describe_repositories(repositoryNames=[args["name"]])["repositories"]
    tags = ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    key = found["encryptionConfiguration"]
    return {
        "name": args["name"],
        "arn": found["repositoryArn"],
        "tags": {tag["Key"]: tag["Value"] for tag in tags},
        "encryptionConfigurations": [{"encryptionType": key["encryptionType"], "kmsKey": key.get("kmsKey", "")}],
    }


@answers("aws:s3/getBuckets:getBuckets")
def get_buckets(aws: Aws, args: dict[str, Any]) -> dict[str, Any]:
    found = aws.client("s3").list_buckets()["Buckets"]
    names = [bucket["Name"] for bucket in found if bucket["Name"].startswith(args.get("prefix") or "")]
    return {"buckets": [{"name": name, "bucketRegion": aws.region} for name in names]}


def _configure_bucket(aws: Aws, resource: Resource, method: str, parameter: str) -> Created:
    """Pulumi puts the configuration's fields next to the bucket's name; AWS takes them inside one parameter."""
    name = resource.inputs["bucket"]
    configuration = {key: value for key, value in resource.inputs.items() if key not in ("bucket", "skipDestroy")}
    aws.call("s3", method, {"bucket": name, parameter: configuration})
    return name, {}
