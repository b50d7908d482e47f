"""A simulated account, the resources that the program registers in it, and the variants of a stack."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local.deploy.program import Resource, Run

ACCOUNT = "123456789012"
REGION = "us-east-1"

LONGEST_NAME = "a" + "b" * 62 + "c"
"""The longest name that a stack may have."""

_HEX = "01234567-89ab-cdef-0123-456789abcdef"

Deploy = Callable[..., "Deployed"]


@dataclass
class PaperCloud:
    """Answers data sources from its fields, and gives each created resource an id and an ARN."""

    buckets: dict[str, str] = field(default_factory=lambda: {"calls": REGION, "access-logs": REGION})
    """The buckets of the account, and their regions."""
    subnets: dict[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "subnet-a1": ("vpc-1", "us-east-1a"),
            "subnet-b1": ("vpc-1", "us-east-1b"),
            "subnet-a2": ("vpc-2", "us-east-1a"),
        }
    )
    """VPC and availability zone of each subnet."""
    default_vpc: str | None = "vpc-1"
    private_subnets: tuple[str, ...] = ()
    """Subnets that give instances no public address."""
    default_routes: dict[str, str] = field(default_factory=dict[str, str])
    """Subnets that are associated with a route table, and the gateway or NAT gateway of its default route."""
    account: str = ACCOUNT
    partition: str = "aws"
    security_groups: dict[str, str] = field(default_factory=dict[str, str])
    """Names and VPCs of existing security groups of the stack."""
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    """Names and values of existing SSM parameters."""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Names of existing image repositories, with their `tags` and `kmsKey`."""
    desired_capacity: int | None = None
    """The size of the stack's Auto Scaling group, if it exists."""
    invoked: list[str] = field(default_factory=list[str])

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        kind = resource.type.split(":")[1]
        arn = f"arn:{self.partition}:{kind.split('/')[0]}:{REGION}:{ACCOUNT}:{resource.name}"
        made: dict[str, Any] = {
            "arn": arn,
            "arnPrefix": arn,
            "latestVersion": 7,
            "dnsName": f"internal-{resource.inputs.get('name')}.elb.amazonaws.com",
            "arnSuffix": f"app/{resource.inputs.get('name')}/0123456789abcdef",
            "repositoryUrl": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{resource.inputs.get('name')}",
        }
        return f"{resource.name}-id", made

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        self.invoked.append(token)
        match token.split(":")[-1]:
            case "getCallerIdentity":
                return {"accountId": self.account, "arn": f"arn:aws:iam::{self.account}:user/operator"}
            case "getPartition":
                return {
                    "partition": self.partition,
                    "dnsSuffix": "amazonaws.com" + ".cn" * (self.partition == "aws-cn"),
                }
            case "getRegion":
                return {"region": REGION}
            case "getSubnets":
                return {"ids": self._find_subnets({one["name"]: one["values"] for one in args["filters"]})}
            case "getSubnet" if args["id"] in self.subnets:
                vpc, zone = self.subnets[args["id"]]
                return {"id": args["id"], "vpcId": vpc, "availabilityZone": zone}
            case "getRouteTables":
                ((wanted, (value,)),) = [(one["name"], one["values"]) for one in args["filters"]]
                if wanted == "association.main":
                    return {"ids": ["rtb-main"]}
                return {"ids": [f"rtb-{value}"] if value in self.default_routes else []}
            case "getRouteTable":
                gateway = self.default_routes.get(args["routeTableId"].removeprefix("rtb-"), "igw-1")
                routes = [
                    {"cidrBlock": "172.31.0.0/16", "gatewayId": "local"},
                    {
                        "cidrBlock": "0.0.0.0/0",
                        "gatewayId": gateway if gateway.startswith("igw-") else "",
                        "natGatewayId": gateway if gateway.startswith("nat-") else "",
                    },
                ]
                return {"routes": routes}
            case "getSecurityGroups":
                (name,) = args["filters"][0]["values"]
                return {"vpcIds": [vpc for group, vpc in self.security_groups.items() if group == name]}
            case "getParametersByPath":
                found = {name: value for name, value in self.parameters.items() if name.startswith(args["path"] + "/")}
                return {"names": list(found), "values": list(found.values())}
            case "getRepositories":
                return {"names": list(self.repositories)}
            case "getRepository":
                one = self.repositories[args["name"]]
                key = {"encryptionType": "KMS", "kmsKey": one["kmsKey"]}
                return {"name": args["name"], "tags": one["tags"], "encryptionConfigurations": [key]}
            case "getAmiIds":
                return {"names": [] if self.desired_capacity is None else args["names"]}
            case "getGroup":
                return {"desiredCapacity": self.desired_capacity}
            case "getParameter":
                return {"value": "ami-0123456789abcdef0"}
            case "getBuckets":
                own = [(name, region) for name, region in self.buckets.items() if name.startswith(args["prefix"])]
                return {"buckets": [{"name": name, "bucketRegion": region} for name, region in own]}
            case _:
                raise LookupError(f"{token} finds nothing for {args}")

    def _find_subnets(self, filters: dict[str, list[str]]) -> list[str]:
        return [
            subnet
            for subnet, (vpc, zone) in self.subnets.items()
            if vpc in filters.get("vpc-id", [vpc])
            and zone in filters.get("availability-zone", [zone])
            and subnet in filters.get("subnet-id", [subnet])
            and ("default-for-az" not in filters or vpc == self.default_vpc)
            and ("map-public-ip-on-launch" not in filters or subnet not in self.private_subnets)
        ]


_KEY = "01234567-89ab-cdef-0123-456789abcdef"
_SHAPES = {
    "autoscaling/group": ("{name}", "autoscaling:{at}:autoScalingGroup:" + _HEX + ":autoScalingGroupName/{name}"),
    "batch/computeEnvironment": ("{name}", "batch:{at}:compute-environment/{name}"),
    "batch/jobDefinition": ("{name}", "batch:{at}:job-definition/{name}:1"),
    "batch/jobQueue": ("{name}", "batch:{at}:job-queue/{name}"),
    "cloudwatch/logGroup": ("{name}", "logs:{at}:log-group:{name}"),
    "ec2/launchTemplate": ("lt-0123456789abcdef0", "ec2:{at}:launch-template/lt-0123456789abcdef0"),
    "ec2/securityGroup": ("sg-0123456789abcdef0", "ec2:{at}:security-group/sg-0123456789abcdef0"),
    "kms/key": (_KEY, "kms:{at}:key/" + _KEY),
    "ecs/taskDefinition": ("{name}", "ecs:{at}:task-definition/{name}:1"),
    "iam/instanceProfile": ("{name}", "iam::{account}:instance-profile/{name}"),
    "iam/role": ("{name}", "iam::{account}:role/{name}"),
    "lambda/function": ("{name}", "lambda:{at}:function:{name}"),
    "lb/loadBalancer": ("{name}", "elasticloadbalancing:{at}:loadbalancer/app/{name}/0123456789abcdef"),
    "lb/targetGroup": ("{name}", "elasticloadbalancing:{at}:targetgroup/{name}/0123456789abcdef"),
    "s3/bucket": ("{name}", "s3:::{name}"),
    "sfn/stateMachine": ("{name}", "states:{at}:stateMachine:{name}"),
    "sns/topic": ("{name}", "sns:{at}:{name}"),
}
"""Ids and ARNs of the types that others refer to."""


@dataclass
class LifelikeCloud(PaperCloud):
    """A simulated account with ids and ARNs in AWS's format, for checks of that format."""

    subnets: dict[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "subnet-0123456789abcdef0": ("vpc-0123456789abcdef0", "us-east-1a"),
            "subnet-0123456789abcdef1": ("vpc-0123456789abcdef0", "us-east-1b"),
        }
    )
    default_vpc: str | None = "vpc-0123456789abcdef0"

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        plain_id, made = super().create(resource)
        if (kind := resource.type.split(":")[1]) not in _SHAPES:
            return plain_id, made
        inputs = resource.inputs
        keys = ("name", "namePrefix", "family", "bucket")
        name = next((inputs[key] for key in keys if key in inputs), resource.name)
        known = {"name": name, "at": f"{REGION}:{ACCOUNT}", "account": ACCOUNT}
        id_, arn = (shape.format(**known) for shape in _SHAPES[kind])
        arns = {"arn": f"arn:aws:{arn}", "arnPrefix": f"arn:aws:{arn}".removesuffix(":1")}
        return id_, made | arns


@dataclass
class Deployed:
    """What the program registered and exported, and the data sources that it read."""

    run: Run
    asked: list[str]

    def all(self, kind: str) -> list[Resource]:
        """The resources of a type, such as `lb/listener:Listener`."""
        return [resource for resource in self.run.resources if resource.type == f"aws:{kind}"]

    def one(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """The inputs of the only resource of a type, or of the one called `name`."""
        (found,) = [resource for resource in self.all(kind) if name in (None, resource.name)]
        return found.inputs

    @property
    def custom(self) -> list[Resource]:
        return [resource for resource in self.run.resources if resource.custom]


EVERYTHING_GIVEN = {
    "bucketName": "calls",
    "vpcId": "vpc-1",
    "subnetIds": ["subnet-a1", "subnet-b1"],
    "workerImage": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/elsewhere:v3",
    "snsTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:runs",
    "kmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012",
    "accessLogsBucket": "access-logs",
    "vllmInstanceProfileArn": f"arn:aws:iam::{ACCOUNT}:instance-profile/vllm-instance",
    "vllmExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/vllm-execution",
    "batchInstanceProfileArn": f"arn:aws:iam::{ACCOUNT}:instance-profile/batch-instance",
    "batchExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/batch-execution",
    "batchJobRoleArn": f"arn:aws:iam::{ACCOUNT}:role/batch-job",
    "functionsRoleArn": f"arn:aws:iam::{ACCOUNT}:role/functions",
    "stateMachineRoleArn": f"arn:aws:iam::{ACCOUNT}:role/state-machine",
}
CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/12345678-1234-1234-1234-123456789012"
HUGGING_FACE_TOKEN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:hf-AbCdEf"
LLM_API_KEY = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:llm-AbCdEf"
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything given": EVERYTHING_GIVEN | {"monthlyBudgetUsd": 50},
    "every option": {
        "batchGpus": 1,
        "batchInstanceTypes": ["g4dn", "g5"],
        "batchOnDemandFallback": True,
        "batchTimeoutHours": 2,
        "deletionProtection": False,
        "huggingFaceTokenSecretArn": HUGGING_FACE_TOKEN,
        "llmApiKeySecretArn": LLM_API_KEY,
        "llmMaxConcurrent": 8,
        "logRetentionDays": 30,
        "mapConcurrency": 7,
        "minNamedPercent": 90,
        "monthlyBudgetUsd": 50,
        "notificationEmails": ["operator@example.com"],
        "topicEmbeddingModel": "all-MiniLM-L6-v2",
        "vllmCertificateArn": CERTIFICATE,
        "vllmHostname": "vllm.example.com",
        "vllmInstanceTypes": ["g4dn.xlarge", "g5.xlarge"],
        "vllmMinInstances": 1,
        "vllmModel": "Qwen/Qwen3-4B",
        "vllmOnDemandFallbackMinutes": 20,
        "vllmOnDemandInstances": 1,
        "vllmServedModelName": "namer",
        "workerImageTag": "v7",
    },
    "vLLM disabled": {
        "vllmEnabled": False,
        "accessLogsBucket": "access-logs",
        "kmsKeyArn": EVERYTHING_GIVEN["kmsKeyArn"],
        "llmApiKeySecretArn": LLM_API_KEY,
        "notificationEmails": ["operator@example.com"],
    },
}
"""Settings of stacks that differ in the resources they create. Evaluating the program takes half a second, so that
tests of different settings share a stack."""
