"""Converts registered resources to CloudFormation, to check them against AWS's resource schemas.

Pulumi's inputs differ from CloudFormation's properties in case, plurals and a few structures. The schemas have AWS's
spelling, so one rule converts most inputs; exceptions are listed by type. An input without a property is an error.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from local.deploy.program import Resource

Inputs = dict[str, Any]


class MappingError(Exception):
    """A resource or an input that this module cannot convert to CloudFormation."""


@dataclass(frozen=True)
class TypeMapping:
    """How resources of one Pulumi type are converted to a CloudFormation type."""

    type: str
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    dropped: tuple[str, ...] = ()
    """Inputs for Pulumi's provider that are not sent to AWS."""
    reshape: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """Applied before `renamed`."""


def write_template(resources: Iterable[Resource], region: str) -> dict[str, Any]:
    """A template of all `resources`. Those that are properties in CloudFormation, such as a bucket's versioning, are
    merged into their parent.

    Raises:
        MappingError: for a type without a mapping, or an input without a place in its schema.
    """
    written: dict[str, Any] = {}
    for resource in resources:
        mapping = _MAPPINGS.get(resource.type)
        if mapping is None:
            raise MappingError(f"testing/cloudformation.py has no mapping for {resource.type}: add it")
        properties = _properties(mapping, resource, region)
        logical_id = "".join(filter(str.isalnum, f"{resource.name.title()}{mapping.type}"))
        if logical_id in written:
            properties |= written[logical_id]["Properties"]
        written[logical_id] = {"Type": mapping.type, "Properties": properties}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": written}


def _properties(mapping: TypeMapping, resource: Resource, region: str) -> Inputs:
    inputs = mapping.reshape({key: item for key, item in resource.inputs.items() if key not in mapping.dropped})
    renamed = {mapping.renamed.get(key, key): item for key, item in inputs.items()}
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, mapping.type).schema
    return _Writer(schema, str(resource)).write(renamed, schema, "")


class _Writer:
    """Converts values to the structure of one resource type's schema."""

    def __init__(self, schema: Inputs, resource: str) -> None:
        self._root = schema
        self._resource = resource

    def write(self, value: Any, schema: Inputs, path: str) -> Any:
        schema = self._resolve(schema)
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        if isinstance(value, str) and value[:1] in "{[" and {"object", "array"} & set(types) and "string" not in types:
            value = json.loads(value)  # some inputs are JSON text in Pulumi, such as containerDefinitions
        if "properties" in schema and isinstance(value, list) and len(value) == 1:
            value = value[0]
        match value:
            case dict() if "array" in types:
                return [{"Key": key, "Value": item} for key, item in value.items()]
            case dict() if "properties" in schema:
                return self._object(value, schema, path)
            case list() if "items" in schema:
                return [self.write(item, schema["items"], path) for item in value]
            case bool() | dict() | list():
                return value
            case str() if "boolean" in types and value in ("true", "false"):
                return value == "true"
            case str() if {"integer", "number"} & set(types) and value.isdigit():
                return int(value)
            case int() | float() if types == ["string"]:
                return str(value)
            case _:
                return value

    def _object(self, value: Inputs, schema: Inputs, path: str) -> Inputs:
        names = {name.lower(): name for name in schema["properties"]}
        written: Inputs = {}
        for key, item in value.items():
            inner = f"{path}.{key}" if path else key
            name = next((names[one] for one in _spellings(key) if one in names), None)
            if name is None:
                raise MappingError(f"{self._resource}: {self._root['typeName']} has no property for the input {inner}")
            written[name] = self.write(item, schema["properties"][name], inner)
        return written

    def _resolve(self, schema: Inputs) -> Inputs:
        while reference := schema.get("$ref"):
            found: Any = self._root
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        return schema


def _spellings(key: str) -> tuple[str, ...]:
    key = key.lower()
    return key, f"{key}s", key.removesuffix("s"), f"{key.removesuffix('ies')}y"


def _attributes(inputs: Inputs, names: Mapping[str, str]) -> list[Inputs]:
    """Inputs that are attributes in AWS, with text values."""
    return [
        {"Key": key, "Value": str(inputs[name]).lower() if isinstance(inputs[name], bool) else str(inputs[name])}
        for name, key in names.items()
        if inputs.get(name) is not None
    ]


def _without(inputs: Inputs, *keys: str) -> Inputs:
    return {key: item for key, item in inputs.items() if key not in keys}


def _launch_template(inputs: Inputs) -> Inputs:
    outside = ("name", "tags", "description")
    data = _without(inputs, *outside)
    if groups := data.pop("vpcSecurityGroupIds", None):
        data["SecurityGroupIds"] = groups
    kept = {"LaunchTemplateName": inputs["name"], "LaunchTemplateData": data}
    return kept | {"TagSpecifications": [{"ResourceType": "launch-template", "Tags": inputs["tags"]}]}


def _task_definition(inputs: Inputs) -> Inputs:
    volumes = [
        {"Name": one["name"], "Host": {"SourcePath": one["hostPath"]}} if "hostPath" in one else one
        for one in inputs.get("volumes", [])
    ]
    return {**inputs, "volumes": volumes}


def _group(inputs: Inputs) -> Inputs:
    metrics = inputs.get("enabledMetrics")
    collected = {"MetricsCollection": [{"Granularity": "1Minute", "Metrics": metrics}]} if metrics else {}
    return _without(inputs, "enabledMetrics") | collected


def _service(inputs: Inputs) -> Inputs:
    moved = {
        "deploymentMaximumPercent": "MaximumPercent",
        "deploymentMinimumHealthyPercent": "MinimumHealthyPercent",
        "deploymentCircuitBreaker": "DeploymentCircuitBreaker",
    }
    configuration = {name: inputs[key] for key, name in moved.items() if key in inputs}
    return {**_without(inputs, *moved), "DeploymentConfiguration": configuration}


_BALANCER_ATTRIBUTES = {
    "idleTimeout": "idle_timeout.timeout_seconds",
    "enableDeletionProtection": "deletion_protection.enabled",
    "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
    "clientKeepAlive": "client_keep_alive.seconds",
}


def _load_balancer(inputs: Inputs) -> Inputs:
    logs = {f"logs.{key}": item for key, item in (inputs.get("accessLogs") or {}).items()}
    names = {f"logs.{key}": f"access_logs.s3.{key}" for key in ("enabled", "bucket", "prefix")}
    attributes = _attributes(inputs | logs, _BALANCER_ATTRIBUTES | names)
    scheme = "internal" if inputs.get("internal") else "internet-facing"
    kept = _without(inputs, "internal", "accessLogs", *_BALANCER_ATTRIBUTES)
    return {**kept, "Scheme": scheme, "LoadBalancerAttributes": attributes}


_GROUP_ATTRIBUTES = {
    "deregistrationDelay": "deregistration_delay.timeout_seconds",
    "loadBalancingAlgorithmType": "load_balancing.algorithm.type",
    "slowStart": "slow_start.duration_seconds",
}
_HEALTH_CHECK = {
    "interval": "HealthCheckIntervalSeconds",
    "path": "HealthCheckPath",
    "healthyThreshold": "HealthyThresholdCount",
    "unhealthyThreshold": "UnhealthyThresholdCount",
    "timeout": "HealthCheckTimeoutSeconds",
    "port": "HealthCheckPort",
    "protocol": "HealthCheckProtocol",
}


def _target_group(inputs: Inputs) -> Inputs:
    check = dict(inputs.get("healthCheck", {}))
    matcher = {"Matcher": {"HttpCode": check.pop("matcher")}} if "matcher" in check else {}
    flat = {_HEALTH_CHECK[key]: item for key, item in check.items()}
    attributes = {"TargetGroupAttributes": _attributes(inputs, _GROUP_ATTRIBUTES)}
    return {**_without(inputs, "healthCheck", *_GROUP_ATTRIBUTES), **flat, **matcher, **attributes}


def _listener(inputs: Inputs) -> Inputs:
    certificate = inputs.get("certificateArn")
    certificates = {"Certificates": [{"CertificateArn": certificate}]} if certificate else {}
    return _without(inputs, "certificateArn") | certificates


def _function(inputs: Inputs) -> Inputs:
    """The content of the archive is not checked: any text is valid in its place in the template."""
    return {**inputs, "code": {"ZipFile": "archive"}}


def _state_machine(inputs: Inputs) -> Inputs:
    logging = dict(inputs.get("loggingConfiguration") or {})
    destination = {"CloudWatchLogsLogGroup": {"LogGroupArn": logging.pop("logDestination", "")}}
    return {**inputs, "loggingConfiguration": {**logging, "Destinations": [destination]}}


def _encryption(inputs: Inputs) -> Inputs:
    key = "applyServerSideEncryptionByDefault"
    rules = [_without(rule, key) | {"ServerSideEncryptionByDefault": rule[key]} for rule in inputs["rules"]]
    return {"bucket": inputs["bucket"], "BucketEncryption": {"ServerSideEncryptionConfiguration": rules}}


def _lifecycle(inputs: Inputs) -> Inputs:
    rules = [
        {**_without(rule, "filter"), "Prefix": rule["filter"]["prefix"]} if rule.get("filter") else rule
        for rule in inputs["rules"]
    ]
    return {"bucket": inputs["bucket"], "LifecycleConfiguration": {"Rules": rules}}


def _public_access(inputs: Inputs) -> Inputs:
    return {"bucket": inputs["bucket"], "PublicAccessBlockConfiguration": _without(inputs, "bucket", "skipDestroy")}


def _logging(inputs: Inputs) -> Inputs:
    target = {"DestinationBucketName": inputs["targetBucket"], "LogFilePrefix": inputs.get("targetPrefix", "")}
    return {"bucket": inputs["bucket"], "LoggingConfiguration": target}


def _image_expiry(inputs: Inputs) -> Inputs:
    return {"repository": inputs["repository"], "LifecyclePolicy": {"LifecyclePolicyText": inputs["policy"]}}


def _alarm(inputs: Inputs) -> Inputs:
    changed = dict(inputs)
    if dimensions := inputs.get("dimensions"):
        changed["dimensions"] = _dimensions(dimensions)
    if queries := changed.pop("metricQueries", None):
        changed["Metrics"] = [_metric_query(query) for query in queries]
    return changed


def _metric_query(query: Inputs) -> Inputs:
    metric = query.get("metric")
    if not metric:
        return query
    named = {"Namespace": metric["namespace"], "MetricName": metric["metricName"]}
    named["Dimensions"] = _dimensions(metric.get("dimensions") or {})
    stat = {"Metric": named, "Period": metric["period"], "Stat": metric["stat"]}
    return _without(query, "metric") | {"MetricStat": stat}


def _dimensions(dimensions: Mapping[str, str]) -> list[Inputs]:
    return [{"Name": key, "Value": item} for key, item in dimensions.items()]


def _budget(inputs: Inputs) -> Inputs:
    limit = {"Amount": float(inputs["limitAmount"]), "Unit": inputs["limitUnit"]}
    budget = {"BudgetName": inputs["name"], "BudgetType": inputs["budgetType"], "TimeUnit": inputs["timeUnit"]}
    terms = [{"Tags": {"Key": one["tags"]["key"], "Values": one["tags"]["values"]}} for one in _ands(inputs)]
    notices = [_notice(one) for one in inputs.get("notifications", [])]
    return {
        "Budget": budget | {"BudgetLimit": limit} | ({"FilterExpression": {"And": terms}} if terms else {}),
        "NotificationsWithSubscribers": notices,
    }


def _ands(inputs: Inputs) -> list[Inputs]:
    return inputs.get("filterExpression", {}).get("ands", [])


def _event_target(inputs: Inputs) -> Inputs:
    """In CloudFormation, the targets are part of the rule."""
    transformer = inputs.get("inputTransformer") or {}
    named = {"Arn": "arn", "RoleArn": "roleArn", "InputPath": "inputPath"}
    target = {"Id": inputs.get("targetId", "target")} | {
        theirs: inputs[ours] for theirs, ours in named.items() if ours in inputs
    }
    renamed = {"InputPathsMap": transformer.get("inputPaths"), "InputTemplate": transformer.get("inputTemplate")}
    return {"name": inputs["rule"], "Targets": [target | ({"InputTransformer": renamed} if transformer else {})]}


def _notice(notice: Inputs) -> Inputs:
    kinds = {"subscriberEmailAddresses": "EMAIL", "subscriberSnsTopicArns": "SNS"}
    subscribers = [
        {"SubscriptionType": kind, "Address": address} for key, kind in kinds.items() for address in notice.get(key, [])
    ]
    return {"Notification": _without(notice, *kinds), "Subscribers": subscribers}


def _metric_filter(inputs: Inputs) -> Inputs:
    metric = {
        f"metric{key.capitalize()}" if key in ("name", "namespace", "value") else key: item
        for key, item in inputs["metricTransformation"].items()
    }
    return {**_without(inputs, "metricTransformation"), "MetricTransformations": [metric]}


def _topic_policy(inputs: Inputs) -> Inputs:
    return {"Topics": [inputs["arn"]], "PolicyDocument": inputs["policy"]}


_BUCKET = "AWS::S3::Bucket"
_MAPPINGS: dict[str, TypeMapping] = {
    "aws:appautoscaling/policy:Policy": TypeMapping(
        "AWS::ApplicationAutoScaling::ScalingPolicy", {"name": "PolicyName"}
    ),
    "aws:appautoscaling/target:Target": TypeMapping("AWS::ApplicationAutoScaling::ScalableTarget", dropped=("tags",)),
    "aws:autoscaling/group:Group": TypeMapping(
        "AWS::AutoScaling::AutoScalingGroup",
        {
            "name": "AutoScalingGroupName",
            "vpcZoneIdentifiers": "VPCZoneIdentifier",
            "protectFromScaleIn": "NewInstancesProtectedFromScaleIn",
        },
        ("waitForCapacityTimeout", "forceDelete", "forceDeleteWarmPool", "suspendedProcesses"),
        _group,
    ),
    "aws:autoscaling/policy:Policy": TypeMapping(
        "AWS::AutoScaling::ScalingPolicy", {"autoscalingGroupName": "AutoScalingGroupName"}, ("name",)
    ),
    "aws:batch/computeEnvironment:ComputeEnvironment": TypeMapping(
        "AWS::Batch::ComputeEnvironment", {"namePrefix": "ComputeEnvironmentName", "name": "ComputeEnvironmentName"}
    ),
    "aws:batch/jobDefinition:JobDefinition": TypeMapping(
        "AWS::Batch::JobDefinition", {"name": "JobDefinitionName"}, ("deregisterOnNewRevision",)
    ),
    "aws:batch/jobQueue:JobQueue": TypeMapping(
        "AWS::Batch::JobQueue", {"name": "JobQueueName", "jobStateTimeLimitActions": "JobStateTimeLimitActions"}
    ),
    "aws:budgets/budget:Budget": TypeMapping("AWS::Budgets::Budget", dropped=("tags",), reshape=_budget),
    "aws:cloudwatch/dashboard:Dashboard": TypeMapping("AWS::CloudWatch::Dashboard"),
    "aws:cloudwatch/eventRule:EventRule": TypeMapping("AWS::Events::Rule"),
    "aws:cloudwatch/eventTarget:EventTarget": TypeMapping("AWS::Events::Rule", reshape=_event_target),
    "aws:cloudwatch/logGroup:LogGroup": TypeMapping("AWS::Logs::LogGroup", {"name": "LogGroupName"}, ("skipDestroy",)),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": TypeMapping(
        "AWS::Logs::MetricFilter", {"name": "FilterName", "pattern": "FilterPattern"}, reshape=_metric_filter
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": TypeMapping(
        "AWS::CloudWatch::Alarm", {"name": "AlarmName"}, reshape=_alarm
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": TypeMapping(
        "AWS::EC2::LaunchTemplate", dropped=("updateDefaultVersion",), reshape=_launch_template
    ),
    "aws:ec2/securityGroup:SecurityGroup": TypeMapping(
        "AWS::EC2::SecurityGroup", {"name": "GroupName", "description": "GroupDescription"}, ("revokeRulesOnDelete",)
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": TypeMapping(
        "AWS::ECR::Repository", {"repository": "RepositoryName"}, reshape=_image_expiry
    ),
    "aws:ecr/repository:Repository": TypeMapping(
        "AWS::ECR::Repository",
        {
            "name": "RepositoryName",
            "encryptionConfigurations": "EncryptionConfiguration",
            "forceDelete": "EmptyOnDelete",
        },
    ),
    "aws:ecs/capacityProvider:CapacityProvider": TypeMapping("AWS::ECS::CapacityProvider"),
    "aws:ecs/cluster:Cluster": TypeMapping("AWS::ECS::Cluster", {"name": "ClusterName", "settings": "ClusterSettings"}),
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": TypeMapping(
        "AWS::ECS::ClusterCapacityProviderAssociations",
        {"clusterName": "Cluster", "defaultCapacityProviderStrategies": "DefaultCapacityProviderStrategy"},
    ),
    "aws:ecs/service:Service": TypeMapping(
        "AWS::ECS::Service",
        {"name": "ServiceName", "capacityProviderStrategies": "CapacityProviderStrategy"},
        ("waitForSteadyState", "forceDelete", "forceNewDeployment", "triggers"),
        _service,
    ),
    "aws:ecs/taskDefinition:TaskDefinition": TypeMapping(
        "AWS::ECS::TaskDefinition", dropped=("skipDestroy", "trackLatest"), reshape=_task_definition
    ),
    "aws:iam/instanceProfile:InstanceProfile": TypeMapping(
        "AWS::IAM::InstanceProfile",
        {"name": "InstanceProfileName"},
        ("tags",),
        lambda inputs: {**_without(inputs, "role"), "Roles": [inputs["role"]]},
    ),
    "aws:iam/role:Role": TypeMapping(
        "AWS::IAM::Role", {"name": "RoleName", "assumeRolePolicy": "AssumeRolePolicyDocument"}
    ),
    "aws:iam/rolePolicy:RolePolicy": TypeMapping(
        "AWS::IAM::RolePolicy", {"name": "PolicyName", "role": "RoleName", "policy": "PolicyDocument"}
    ),
    "aws:kms/key:Key": TypeMapping(
        "AWS::KMS::Key",
        {
            "policy": "KeyPolicy",
            "deletionWindowInDays": "PendingWindowInDays",
            "enableKeyRotation": "EnableKeyRotation",
        },
    ),
    "aws:lambda/function:Function": TypeMapping(
        "AWS::Lambda::Function", {"name": "FunctionName"}, ("skipDestroy", "sourceCodeHash"), _function
    ),
    "aws:lb/listener:Listener": TypeMapping(
        "AWS::ElasticLoadBalancingV2::Listener", dropped=("tags",), reshape=_listener
    ),
    "aws:lb/loadBalancer:LoadBalancer": TypeMapping(
        "AWS::ElasticLoadBalancingV2::LoadBalancer", {"loadBalancerType": "Type"}, reshape=_load_balancer
    ),
    "aws:lb/targetGroup:TargetGroup": TypeMapping("AWS::ElasticLoadBalancingV2::TargetGroup", reshape=_target_group),
    "aws:s3/bucket:Bucket": TypeMapping(_BUCKET, {"bucket": "BucketName"}, ("forceDestroy",)),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": TypeMapping(
        _BUCKET, {"bucket": "BucketName"}, reshape=_lifecycle
    ),
    "aws:s3/bucketLogging:BucketLogging": TypeMapping(_BUCKET, {"bucket": "BucketName"}, reshape=_logging),
    "aws:s3/bucketPolicy:BucketPolicy": TypeMapping("AWS::S3::BucketPolicy", {"policy": "PolicyDocument"}),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": TypeMapping(
        _BUCKET, {"bucket": "BucketName"}, reshape=_public_access
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": TypeMapping(
        _BUCKET, {"bucket": "BucketName"}, reshape=_encryption
    ),
    "aws:s3/bucketVersioning:BucketVersioning": TypeMapping(_BUCKET, {"bucket": "BucketName"}),
    "aws:sfn/stateMachine:StateMachine": TypeMapping(
        "AWS::StepFunctions::StateMachine",
        {"name": "StateMachineName", "definition": "DefinitionString"},
        reshape=_state_machine,
    ),
    "aws:sns/topic:Topic": TypeMapping("AWS::SNS::Topic", {"name": "TopicName"}, ("policy",)),
    "aws:sns/topicPolicy:TopicPolicy": TypeMapping("AWS::SNS::TopicPolicy", reshape=_topic_policy),
    "aws:sns/topicSubscription:TopicSubscription": TypeMapping("AWS::SNS::Subscription", {"topic": "TopicArn"}),
    "aws:ssm/parameter:Parameter": TypeMapping("AWS::SSM::Parameter"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": TypeMapping(
        "AWS::EC2::SecurityGroupEgress",
        {
            "securityGroupId": "GroupId",
            "referencedSecurityGroupId": "DestinationSecurityGroupId",
            "cidrIpv4": "CidrIp",
            "prefixListId": "DestinationPrefixListId",
        },
        ("tags",),
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": TypeMapping(
        "AWS::EC2::SecurityGroupIngress",
        {
            "securityGroupId": "GroupId",
            "referencedSecurityGroupId": "SourceSecurityGroupId",
            "cidrIpv4": "CidrIp",
            "prefixListId": "SourcePrefixListId",
        },
        ("tags",),
    ),
}
