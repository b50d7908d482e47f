"""The load balancer in front of vLLM. The embedded AWS only records it; requests go to `local.fake_vllm.alb`."""

from typing import Any

from local.deploy.program import Resource
from local.deploy.resources.calls import Aws, physical_name
from local.deploy.resources.registry import Created, creates

_BALANCER_ATTRIBUTES = {
    "idleTimeout": "idle_timeout.timeout_seconds",
    "enableDeletionProtection": "deletion_protection.enabled",
    "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
    "enableHttp2": "routing.http2.enabled",
    "desyncMitigationMode": "routing.http.desync_mitigation_mode",
    "preserveHostHeader": "routing.http.preserve_host_header.enabled",
    "enableCrossZoneLoadBalancing": "load_balancing.cross_zone.enabled",
}
_GROUP_ATTRIBUTES = {
    "deregistrationDelay": "deregistration_delay.timeout_seconds",
    "loadBalancingAlgorithmType": "load_balancing.algorithm.type",
    "slowStart": "slow_start.duration_seconds",
}
_HEALTH_CHECK = {
    "enabled": "healthCheckEnabled",
    "path": "healthCheckPath",
    "port": "healthCheckPort",
    "protocol": "healthCheckProtocol",
    "interval": "healthCheckIntervalSeconds",
    "timeout": "healthCheckTimeoutSeconds",
    "healthyThreshold": "healthyThresholdCount",
    "unhealthyThreshold": "unhealthyThresholdCount",
}


@creates("aws:lb/loadBalancer:LoadBalancer")
def load_balancer(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    renamed = {
        "scheme": "internal" if inputs.get("internal") else "internet-facing",
        "type": inputs.get("loadBalancerType", "application"),
    }
    without = ("name", "namePrefix", "internal", "loadBalancerType", "accessLogs", *_BALANCER_ATTRIBUTES)
    made = aws.call("elbv2", "create_load_balancer", inputs | renamed, without, Name=name)["LoadBalancers"][0]
    arn = made["LoadBalancerArn"]
    attributes = _attributes(inputs, _BALANCER_ATTRIBUTES) + _access_logs(inputs.get("accessLogs"))
    if attributes:
        aws.client("elbv2").modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=attributes)
    outputs = {"name": name, "arn": arn, "arnSuffix": arn.partition(":loadbalancer/")[2], "dnsName": made["DNSName"]}
    return arn, {**outputs, "zoneId": made["CanonicalHostedZoneId"], "vpcId": made["VpcId"]}


@creates("aws:lb/targetGroup:TargetGroup")
def target_group(aws: Aws, resource: Resource) -> Created:
    inputs, name = resource.inputs, physical_name(resource)
    check = inputs.get("healthCheck") or {}
    flat = {_HEALTH_CHECK[key]: value for key, value in check.items() if key != "matcher"}
    if matcher := check.get("matcher"):
        flat["matcher"] = {"httpCode": matcher}
    without = ("name", "namePrefix", "healthCheck", *_GROUP_ATTRIBUTES)
    made = aws.call("elbv2", "create_target_group", inputs | flat, without, Name=name)["TargetGroups"][0]
    arn = made["TargetGroupArn"]
    if attributes := _attributes(inputs, _GROUP_ATTRIBUTES):
        aws.client("elbv2").modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
    return arn, {"name": name, "arn": arn, "arnSuffix": arn.rpartition(":")[2]}


@creates("aws:lb/listener:Listener")
def listener(aws: Aws, resource: Resource) -> Created:
    inputs = resource.inputs
    certificates = [{"CertificateArn": inputs["certificateArn"]}] if inputs.get("certificateArn") else []
    made = aws.call("elbv2", "create_listener", inputs, ("certificateArn",), Certificates=certificates)
    arn = made["Listeners"][0]["ListenerArn"]
    return arn, {"arn": arn}


def _attributes(inputs: dict[str, Any], names: dict[str, str]) -> list[dict[str, str]]:
    """AWS's attributes, whose values are all text, from Pulumi's inputs."""
    return [_attribute(key, inputs[name]) for name, key in names.items() if inputs.get(name) is not None]


def _access_logs(logs: dict[str, Any] | None) -> list[dict[str, str]]:
    if not logs:
        return []
    names = {"enabled": "access_logs.s3.enabled", "bucket": "access_logs.s3.bucket", "prefix": "access_logs.s3.prefix"}
    return _attributes({"enabled": True, **logs}, names)


def _attribute(key: str, value: Any) -> dict[str, str]:
    return {"Key": key, "Value": str(value).lower() if isinstance(value, bool) else str(value)}
