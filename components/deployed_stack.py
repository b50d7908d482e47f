"""Finds the resources that the stack already has, and refuses changes of settings that would lose data or fail halfway.

AWS cannot change some properties of a resource in place: Pulumi would delete the resource and create a new one. For a
resource that holds data, that loses the data; for one that other resources use, the update fails halfway. The program
cannot read Pulumi's state, so it looks these resources up in the account at preview, before it registers anything. The
error message has the steps to take instead.
"""

from collections.abc import Iterator

import pulumi_aws as aws

from components.account import Account
from components.resource_names import fit
from components.running import disturbed_runs, recorded_settings
from components.settings import Settings, SettingsError, StackSettings

TEARDOWN = "docs/teardown.md"


def check_changes(settings: Settings, account: Account) -> list[str]:
    """Compare the settings with the resources that the stack has.

    Returns:
        Warnings: what a deployment would leave as it is, or what the operator must do after it.

    Raises:
        SettingsError: one sentence for each change that cannot be made, with the steps to take instead.
    """
    vpc_ids = _find_own_vpcs(settings.stack)
    parameters = _read_parameters(settings.stack)
    marked = bucket_marker(settings.stack) in parameters
    problems = [
        *_moved_to_another_vpc(settings, account, vpc_ids),
        *_bucket_replaced(settings, account, deployed=bool(vpc_ids), marked=marked),
        *_repository_dropped(settings, account),
    ]
    if problems:
        raise SettingsError("; ".join(problems))
    recorded = parameters.get(recorded_settings(settings.stack))
    return [
        *_repository_keeps_its_key(settings),
        *_instances_without_vllm(settings),
        *(disturbed_runs(settings, account, recorded) if recorded else ()),
    ]


def bucket_name(stack: StackSettings, account: Account) -> str:
    """The name of the bucket that the stack creates when none is given. At most 63 characters, unique in the world."""
    return f"{fit(stack.prefix, 35)}-{account.id}-{account.region}"


def bucket_marker(stack: StackSettings) -> str:
    """The SSM parameter that exists exactly while Pulumi manages the stack's own bucket.

    A bucket that outlives its stack looks the same from outside as one that belongs to it. The parameter is created
    before the bucket and deleted after it, and distinguishes the two.
    """
    return f"/{stack.prefix}/bucket/created"


def _find_own_vpcs(stack: StackSettings) -> set[str]:
    """The VPC in which the stack is deployed; empty when it is not."""
    filters = [
        aws.ec2.GetSecurityGroupsFilterArgs(name="group-name", values=[stack.name("batch", 255)]),
        aws.ec2.GetSecurityGroupsFilterArgs(name="tag:Stack", values=[stack.stack]),
    ]
    return set(aws.ec2.get_security_groups(filters=filters).vpc_ids)


def _moved_to_another_vpc(settings: Settings, account: Account, vpc_ids: set[str]) -> Iterator[str]:
    for vpc_id in vpc_ids:
        if vpc_id != account.vpc_id:
            key = "ftm:vpcId is not given, which means" if settings.adopted.vpc_id is None else "ftm:vpcId is"
            yield (
                f"{key} {account.vpc_id}, but the stack is deployed in {vpc_id}, and its load balancer and security "
                f"groups cannot move: set ftm:vpcId back, or move the stack as {TEARDOWN} describes "
                "(`pulumi destroy`, then `pulumi up`; the bucket's data stays)"
            )


def _read_parameters(stack: StackSettings) -> dict[str, str]:
    """The values of the stack's SSM parameters, by name; empty before the first deployment."""
    found = aws.ssm.get_parameters_by_path(path=f"/{stack.prefix}", recursive=True, with_decryption=False)
    return dict(zip(found.names, found.values, strict=True))


def _bucket_replaced(settings: Settings, account: Account, *, deployed: bool, marked: bool) -> Iterator[str]:
    own = bucket_name(settings.stack, account)
    given = settings.adopted.bucket_name
    if marked:
        if given:
            yield (
                f"ftm:bucketName is {given}, but the stack created its own bucket, {own}, which this would remove from "
                f"the stack: unset it with `pulumi config rm ftm:bucketName`, or follow the steps in {TEARDOWN}"
            )
    # A stack of ftm 0.1.0 has its bucket and no marker, which the next deployment creates.
    elif not given and not deployed and own in [bucket.name for bucket in aws.s3.get_buckets(prefix=own).buckets]:
        yield (
            f"the bucket {own} exists already, left by an earlier deployment of this stack: use it with "
            f"`pulumi config set ftm:bucketName {own}`, or delete it"
        )


def _repository_dropped(settings: Settings, account: Account) -> Iterator[str]:
    name = settings.stack.name("worker", 256)
    if settings.adopted.worker_image and _find_own_repository(settings.stack):
        yield (
            f"ftm:workerImage is {settings.adopted.worker_image}, but the stack has its own image repository, {name}, "
            "which would be deleted with its images: unset it with `pulumi config rm ftm:workerImage` and use "
            "ftm:workerImageTag, or first delete the repository yourself with "
            f"`aws ecr delete-repository --region {account.region} --repository-name {name} --force`"
        )


def _repository_keeps_its_key(settings: Settings) -> Iterator[str]:
    repository = _find_own_repository(settings.stack)
    wanted = settings.stack.kms_key_arn
    if not repository or not repository.encryption_configurations:
        return
    kept = repository.encryption_configurations[0].kms_key
    # Without a customer-managed key, ECR reports the ARN of the AWS-managed key, which the program does not know.
    if wanted and kept != wanted:
        yield (
            f"ftm:kmsKeyArn is {wanted}, but the image repository {repository.name} keeps the key that it was created "
            f"with, {kept or 'that of AWS'}, since ECR cannot change it; everything else uses the new key"
        )


def _find_own_repository(stack: StackSettings) -> aws.ecr.GetRepositoryResult | None:
    name = stack.name("worker", 256)
    if name not in aws.ecr.get_repositories().names:
        return None
    repository = aws.ecr.get_repository(name=name)
    return repository if repository.tags.items() >= stack.tags.items() else None


def _instances_without_vllm(settings: Settings) -> Iterator[str]:
    """A raised minimum starts instances at once, while the service keeps the number of tasks that `ftm` gave it."""
    wanted = settings.vllm.min_instances
    if not settings.vllm.enabled or not wanted:
        return
    name = settings.stack.name("vllm-asg", 255)
    # Pulumi's misleading name for the list of Auto Scaling groups.
    if name not in aws.autoscaling.get_ami_ids(names=[name]).names:
        return
    group = aws.autoscaling.get_group(name=name)
    if group.desired_capacity < wanted:
        yield (
            f"ftm:vllmMinInstances is {wanted}, and {group.desired_capacity} GPU instances run: `pulumi up` starts the "
            f"others, without vLLM on them; run `ftm vllm scale {wanted}` after it"
        )
