"""The account that the program deploys to, and whether what the settings name is really there: looked up at preview,
before anything is created."""

from dataclasses import dataclass

import pulumi_aws as aws

from components.settings import Settings, SettingsError


@dataclass(frozen=True)
class Account:
    """Plain facts, known at preview: names of things are made from them, so that policies can be written in full."""

    id: str
    region: str
    partition: str
    vpc_id: str
    subnet_ids: list[str]

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a thing of this account and region: `arn:aws:ecs:us-east-1:123456789012:cluster/ftm`."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.id}:{resource}"

    def bucket_arn(self, bucket: str) -> str:
        """The ARN of a bucket, which names neither region nor account."""
        return f"arn:{self.partition}:s3:::{bucket}"


def find_account(settings: Settings) -> Account:
    """Look up the account, and check everything that `settings` adopts against it.

    Raises:
        SettingsError: one sentence for each adopted thing that is another account's, another region's or missing.
    """
    identity = aws.get_caller_identity()
    region = aws.get_region().region
    problems = [*_misplaced(settings, identity.account_id, region), *_not_own_buckets(settings, region)]
    if problems:
        raise SettingsError("; ".join(problems))
    vpc_id, subnet_ids = _find_network(settings, region)
    return Account(identity.account_id, region, identity.arn.split(":")[1], vpc_id, subnet_ids)


def _misplaced(settings: Settings, account_id: str, region: str) -> list[str]:
    """Adopted things whose ARN is of another account or region."""
    problems: list[str] = []
    for key in (key for key in type(settings).model_fields if key.endswith("_arn")):
        arn: str = getattr(settings, key)
        if not arn:
            continue
        _, _, _, arn_region, arn_account, _ = arn.split(":", 5)
        name = type(settings).model_fields[key].alias
        given = f"ftm:{name} is {arn}"
        if arn_region not in ("", region):
            problems.append(f"{given}, of region {arn_region}: it should be of {region}, as the stack is")
        # A key or topic may be shared by another account; a role cannot be passed, a certificate cannot be attached.
        if arn_account != account_id and key not in ("kms_key_arn", "sns_topic_arn"):
            problems.append(
                f"ftm:{name} is {arn}, of account {arn_account}: it should be of {account_id}, as the stack is"
            )
    return problems


def _not_own_buckets(settings: Settings, region: str) -> list[str]:
    """Adopted buckets that are not among the account's own in this region; S3 lists no bucket of anybody else."""
    problems: list[str] = []
    for key, name in (("bucketName", settings.bucket_name), ("accessLogsBucket", settings.access_logs_bucket)):
        if not name:
            continue
        own = aws.s3.get_buckets(prefix=name).buckets
        regions = [bucket.bucket_region for bucket in own if bucket.name == name]
        if not regions:
            problems.append(f"ftm:{key} is {name}, which is not a bucket of this account: create it, or name another")
        elif regions[0] != region:
            problems.append(f"ftm:{key} is {name}, of region {regions[0]}: it should be of {region}, as the stack is")
    return problems


def _find_network(settings: Settings, region: str) -> tuple[str, list[str]]:
    # Only lists are asked for: a lookup of a single thing that is not there would end in the engine's own words.
    if settings.vpc_id:
        _check_subnets(settings)
        return settings.vpc_id, settings.subnet_ids
    subnet_ids = sorted(_list_subnets("default-for-az", "true"))
    if not subnet_ids:
        raise SettingsError(f"the account has no default VPC in {region}: give ftm:vpcId and ftm:subnetIds")
    return aws.ec2.get_subnet(id=subnet_ids[0]).vpc_id, subnet_ids


def _check_subnets(settings: Settings) -> None:
    known = _list_subnets("vpc-id", settings.vpc_id)
    strangers = [subnet for subnet in settings.subnet_ids if subnet not in known]
    if strangers:
        raise SettingsError(
            f"ftm:subnetIds holds {', '.join(strangers)}: it should hold subnets of ftm:vpcId, {settings.vpc_id}, "
            f"which are {', '.join(known) or 'none'}"
        )
    zones = {aws.ec2.get_subnet(id=subnet).availability_zone for subnet in settings.subnet_ids}
    if len(zones) < 2:
        raise SettingsError(
            f"ftm:subnetIds are all in {', '.join(zones)}: a load balancer needs two availability zones at least"
        )


def _list_subnets(filter_name: str, value: str) -> list[str]:
    return list(aws.ec2.get_subnets(filters=[aws.ec2.GetSubnetsFilterArgs(name=filter_name, values=[value])]).ids)
