"""Looks up the account that the program deploys to, and checks at preview that everything that the settings name
exists there."""

from collections.abc import Iterator
from dataclasses import dataclass

import pulumi_aws as aws

from components.settings import Settings, SettingsError
from contract.resource_names import EMBEDDED_ACCOUNT, LOCAL_STACK


@dataclass(frozen=True)
class Account:
    """Identifiers of the account, all known at preview. ARNs are built from them, so that policies can refer to
    resources that do not exist yet."""

    id: str
    region: str
    partition: str
    dns_suffix: str
    """The domain of AWS's endpoints: `amazonaws.com`, and in China `amazonaws.com.cn`."""
    vpc_id: str
    subnet_ids: list[str]

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource of this account and region, such as `arn:aws:ecs:us-east-1:123456789012:cluster/x`."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.id}:{resource}"

    def bucket_arn(self, bucket: str) -> str:
        """The ARN of a bucket, which contains neither region nor account."""
        return f"arn:{self.partition}:s3:::{bucket}"


def find_account(settings: Settings) -> Account:
    """Look up the account, and check in it all existing resources that `settings` names.

    Raises:
        SettingsError: one sentence for each resource that is missing or belongs to another account or region; also
            when the stack `local` would be deployed to an account other than the embedded one.
    """
    identity = aws.get_caller_identity()
    if settings.stack.stack == LOCAL_STACK and identity.account_id != EMBEDDED_ACCOUNT:
        raise SettingsError(
            f"the stack {LOCAL_STACK} belongs to the embedded AWS on this machine, but the credentials are those of "
            f"the account {identity.account_id}: run `ftm local up`, or deploy another stack, such as prod"
        )
    region = aws.get_region().region
    problems = [*_misplaced_arns(settings, identity.account_id, region), *_missing_buckets(settings, region)]
    if problems:
        raise SettingsError("; ".join(problems))
    vpc_id, subnet_ids = _find_network(settings, region)
    partition = aws.get_partition()
    return Account(identity.account_id, region, partition.partition, partition.dns_suffix, vpc_id, subnet_ids)


def _misplaced_arns(settings: Settings, account_id: str, region: str) -> Iterator[str]:
    for key, arn in settings.arns():
        _, _, _, arn_region, arn_account, _ = arn.split(":", 5)
        if arn_region not in ("", region):
            yield f"ftm:{key} is {arn}, of region {arn_region}: it should be of {region}, as the stack is"
        # Another account may share a key or a topic. A role or a certificate of another account cannot be used.
        if arn_account != account_id and key not in ("kmsKeyArn", "snsTopicArn"):
            yield f"ftm:{key} is {arn}, of account {arn_account}: it should be of {account_id}, as the stack is"


def _missing_buckets(settings: Settings, region: str) -> Iterator[str]:
    """Given buckets that are not among the account's own buckets of this region."""
    adopted = settings.adopted
    for key, name in (("bucketName", adopted.bucket_name), ("accessLogsBucket", adopted.access_logs_bucket)):
        if not name:
            continue
        own = aws.s3.get_buckets(prefix=name).buckets
        regions = [bucket.bucket_region for bucket in own if bucket.name == name]
        if not regions:
            yield f"ftm:{key} is {name}, which is not a bucket of this account: create it, or name another"
        elif regions[0] != region:
            yield f"ftm:{key} is {name}, of region {regions[0]}: it should be of {region}, as the stack is"


def _find_network(settings: Settings, region: str) -> tuple[str, list[str]]:
    """The VPC and the subnets to use, given or the default ones."""
    # Most lookups use list data sources, which return an empty list for a missing resource; the others would fail with
    # an error of Pulumi's engine. Every preview waits for each lookup, so their number does not depend on the number of
    # subnets.
    adopted = settings.adopted
    if adopted.vpc_id and adopted.subnet_ids:
        subnet_ids = adopted.subnet_ids
        _check_membership(adopted.vpc_id, subnet_ids)
    else:
        subnet_ids = sorted(_list_subnets({"default-for-az": ["true"]}))
        if not subnet_ids:
            raise SettingsError(f"the account has no default VPC in {region}: give ftm:vpcId and ftm:subnetIds")
    first = aws.ec2.get_subnet(id=subnet_ids[0])
    zone = first.availability_zone
    if set(subnet_ids) <= set(_list_subnets({"subnet-id": subnet_ids, "availability-zone": [zone]})):
        raise SettingsError(f"ftm:subnetIds are all in {zone}: a load balancer needs at least two availability zones")
    _check_way_out(first.vpc_id, subnet_ids)
    return first.vpc_id, subnet_ids


def _check_membership(vpc_id: str, subnet_ids: list[str]) -> None:
    known = _list_subnets({"vpc-id": [vpc_id]})
    outside = [subnet for subnet in subnet_ids if subnet not in known]
    if outside:
        raise SettingsError(
            f"ftm:subnetIds holds {', '.join(outside)}: it should hold subnets of ftm:vpcId, {vpc_id}, "
            f"which are {', '.join(known) or 'none'}"
        )


def _check_way_out(vpc_id: str, subnet_ids: list[str]) -> None:
    public = _list_subnets({"subnet-id": subnet_ids, "map-public-ip-on-launch": ["true"]})
    cut_off = [subnet for subnet in subnet_ids if subnet not in public and not _has_nat(vpc_id, subnet)]
    if cut_off:
        raise SettingsError(
            f"ftm:subnetIds: instances in {', '.join(cut_off)} would get no public address, and the route table has no "
            "default route to a NAT gateway, so that they could reach neither ECS nor the model hub: turn on public "
            "addresses for these subnets, add a NAT gateway, or give other subnets of the VPC"
        )


def _has_nat(vpc_id: str, subnet_id: str) -> bool:
    """Whether the subnet's default route leads out of the VPC by other means than an internet gateway."""
    tables = _list_route_tables(vpc_id, "association.subnet-id", subnet_id)
    # A subnet that is not associated with a route table uses the VPC's main one.
    tables = tables or _list_route_tables(vpc_id, "association.main", "true")
    return any(
        route.cidr_block == "0.0.0.0/0" and not route.gateway_id.startswith("igw-")
        for table in tables
        for route in aws.ec2.get_route_table(route_table_id=table).routes
    )


def _list_route_tables(vpc_id: str, filter_name: str, value: str) -> list[str]:
    filters = [aws.ec2.GetRouteTablesFilterArgs(name=filter_name, values=[value])]
    return list(aws.ec2.get_route_tables(vpc_id=vpc_id, filters=filters).ids)


def _list_subnets(filters: dict[str, list[str]]) -> list[str]:
    return list(
        aws.ec2.get_subnets(
            filters=[aws.ec2.GetSubnetsFilterArgs(name=name, values=values) for name, values in filters.items()]
        ).ids
    )
