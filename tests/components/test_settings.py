"""The settings: error messages for invalid values, derived values, and the generated page."""

import json
from pathlib import Path

import pytest
import yaml

from components import configuration_page
from components.setting_types import Change
from components.settings import KEYS, SECTIONS, Settings, SettingsError

ROOT = Path(__file__).parents[2]


def load(stack: str = "dev", /, **raw: str) -> Settings:
    """Settings in the form in which Pulumi passes them: text, with lists as JSON."""
    return Settings.load(stack, raw.get)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"mapConcurrency": "0"}, "ftm:mapConcurrency is '0': it should be greater than or equal to 1"),
        ({"mapConcurrency": "41"}, "ftm:mapConcurrency is '41': it should be less than or equal to 40"),
        ({"mapConcurrency": "many"}, "ftm:mapConcurrency is 'many': it should be a valid integer"),
        ({"vllmEnabled": "perhaps"}, "ftm:vllmEnabled is 'perhaps': it should be a valid boolean"),
        ({"vllmImage": "vllm/vllm-openai"}, "it should be an image with a version or a digest"),
        ({"vllmImage": "vllm/vllm-openai:latest"}, "it should be an image with a version or a digest"),
        ({"vllmImage": ""}, "ftm:vllmImage is ''"),
        (
            {"batchJobRoleArn": "job-role"},
            "ftm:batchJobRoleArn is 'job-role': it should be an ARN such as arn:aws:iam::",
        ),
        ({"batchJobRoleArn": "arn:aws:iam::123:role/x"}, "it should be an ARN such as arn:aws:iam::123456789012:role/"),
        ({"bucketName": "Not_A_Bucket"}, "ftm:bucketName is 'Not_A_Bucket': it should be the name of a bucket"),
        ({"vpcId": "default"}, "ftm:vpcId is 'default': it should be a VPC's id"),
        ({"vpcId": "vpc-1"}, "ftm:vpcId and ftm:subnetIds belong together"),
        ({"subnetIds": "subnet-1"}, "ftm:subnetIds is 'subnet-1': it should be a list"),
        ({"logRetentionDays": "2"}, "ftm:logRetentionDays is 2: it should be one of 1, 3, 5,"),
        (
            {"batchMaxVcpus": "1"},
            "ftm:batchMaxVcpus is 1: it should be at least the ftm:batchVcpus of one job, 2",
        ),
        ({"batchGpus": "1", "batchInstanceTypes": '["g5", "m7i"]'}, "ftm:batchInstanceTypes holds m7i, without a GPU"),
        (
            {"vllmMinInstances": "3"},
            "ftm:vllmMinInstances is 3: it should be at most ftm:vllmMaxInstances, 2",
        ),
        (
            {"vllmOnDemandInstances": "3"},
            "ftm:vllmOnDemandInstances is 3: it should be at most ftm:vllmMaxInstances, 2",
        ),
        (
            {"vllmInstanceTypes": '["g5.xlarge", "m5.xlarge"]'},
            "ftm:vllmInstanceTypes holds m5.xlarge: each should have one GPU that ftm knows",
        ),
        ({"vllmInstanceTypes": '["g5.12xlarge"]'}, "each should have one GPU"),
        ({"vllmMaxModelLen": "32768"}, "fewer than the 32,768 of one request of vllmMaxModelLen"),
        ({"vllmModel": "Qwen/Qwen3-14B"}, "ftm:vllmModel Qwen/Qwen3-14B does not fit g6.xlarge, g5.xlarge"),
        ({"vllmInstanceTypes": '["g6e.xlarge", "g4dn.xlarge"]'}, "the T4's 14.56 GiB"),
        ({"vllmMemoryMib": "16000"}, "ftm:vllmMemoryMib is 16000: it should be at most 15400"),
        ({"vllmTokensPerRequest": "30000"}, "ftm:vllmTokensPerRequest is 30000: it should be at most the 20174"),
        ({"vllmMemoryMib": "0"}, "ftm:vllmMemoryMib is '0': it should be greater than or equal to 1024"),
        ({"bucketName": ""}, "ftm:bucketName is '': it should be the name of a bucket"),
        (
            {"batchInstanceTypes": '["c7g", "c7i", "m6gd.large", "a1", "g4dn"]'},
            "ftm:batchInstanceTypes holds c7g, m6gd.large, a1 with Arm processors, but the worker's image is",
        ),
        ({"vllmHostname": "vllm.example.com"}, "ftm:vllmCertificateArn and ftm:vllmHostname belong together"),
    ],
)
def test_the_error_for_an_invalid_value_has_the_key_the_value_and_what_is_allowed(
    raw: dict[str, str], sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**raw)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stack", ["Dev", "my_stack", "1st", "prod-", "eu--west", "a" * 65])
def test_a_stack_name_that_aws_would_reject_is_rejected(stack: str) -> None:
    with pytest.raises(SettingsError, match="the stack's name is"):
        load(stack)


def test_all_invalid_values_are_reported_together() -> None:
    with pytest.raises(SettingsError, match=r"ftm:mapConcurrency.*ftm:batchVcpus"):
        load(mapConcurrency="0", batchVcpus="0")


def test_a_mistyped_key_is_reported() -> None:
    with pytest.raises(SettingsError, match=r"^ftm:vllmModle is not a setting: did you mean ftm:vllmModel\?$"):
        Settings.load("dev", lambda _: None, given=["aws:region", "ftm:vllmModel", "ftm:vllmModle"])


def test_contradictory_vllm_settings_are_ignored_without_vllm() -> None:
    assert load(vllmEnabled="false", vllmMaxModelLen="131072")


def test_concurrency_is_derived_from_the_cache_unless_configured() -> None:
    usual = load()
    assert (usual.vllm.concurrent_requests, usual.llm_concurrency) == (31, 6)
    assert usual.llm_concurrency * usual.run.map_concurrency <= usual.vllm.concurrent_requests
    assert load(vllmInstanceTypes='["g6e.xlarge"]').vllm.concurrent_requests == 256
    assert load(mapConcurrency="40").llm_concurrency == 1
    given = load(vllmMaxNumSeqs="64", llmMaxConcurrent="8")
    assert (given.vllm.concurrent_requests, given.llm_concurrency) == (64, 8)


def test_warnings() -> None:
    assert list(load().warnings()) == []
    assert "the hosted API needs a key" in next(load(vllmEnabled="false").warnings())
    assert "the others wait in the queue" in next(load(batchMaxVcpus="4").warnings())
    unknown = next(load(vllmModel="acme/Oracle-7B").warnings())
    assert "ftm:vllmModel 'acme/Oracle-7B' is not a model whose memory use ftm knows" in unknown


def test_the_example_stack_is_complete_and_valid() -> None:
    text = (ROOT / "Pulumi.prod.yaml").read_text()
    example = yaml.safe_load(text)["config"]
    raw = {key.removeprefix("ftm:"): json.dumps(value).strip('"') for key, value in example.items()}
    assert Settings.load("prod", raw.get, given=example).stack.deletion_protection
    assert [key for key in SECTIONS["adopted"].config_keys() if f"ftm:{key}:" not in text] == []


def test_the_configuration_page_is_generated_from_the_model() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    assert page == configuration_page.document(), "python -m components.configuration_page > docs/configuration.md"
    assert all(f"| `{key}` |" in page for key in KEYS)


def test_every_setting_declares_the_effect_of_changing_it() -> None:
    for section in SECTIONS.values():
        schema = section.model_json_schema()["properties"]
        for key in section.config_keys():
            assert schema[key]["change"] in list(Change)
            assert schema[key]["change"] != Change.REFUSED or schema[key]["note"], f"{key} lacks the way around"
