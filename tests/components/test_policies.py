"""IAM policies: no permission is wider than necessary, in any variant of the stack."""

import json
from pathlib import Path
from typing import Any

import pytest

from components import iam_page, policies
from components.account import Account
from components.settings import SECTIONS
from testing.paper_cloud import ACCOUNT, REGION, VARIANTS, Deploy

ROOT = Path(__file__).parents[2]
HERE = Account(ACCOUNT, REGION, "aws", "amazonaws.com", "vpc-1", [])
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"


def actions(document: str) -> dict[str, list[str]]:
    """The resources of each action."""
    return {action: one["Resource"] for one in json.loads(document)["Statement"] for action in one["Action"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_wildcard_action_and_no_needless_wildcard_resource(deploy: Deploy, variant: str) -> None:
    attached = deploy(**VARIANTS[variant]).all("iam/rolePolicy:RolePolicy")
    statements: list[dict[str, Any]] = [
        statement for policy in attached for statement in json.loads(policy.inputs["policy"])["Statement"]
    ]
    for statement in statements:
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action], statement
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= policies.NO_NARROWER_RESOURCE.keys(), statement


def test_every_wildcard_resource_has_its_reason() -> None:
    assert all(policies.NO_NARROWER_RESOURCE.values())


def test_the_worker_may_only_read_its_input_and_write_its_results() -> None:
    statements = json.loads(policies.batch_job("arn:aws:s3:::calls", ""))["Statement"]

    def resources(action: str) -> set[str]:
        return {each for statement in statements if action in statement["Action"] for each in statement["Resource"]}

    topics = "arn:aws:s3:::calls/intermediate/firm-topics/*"
    written = {f"arn:aws:s3:::calls/{prefix}/*" for prefix in ("progress", "themes")} | {topics}
    assert resources("s3:PutObject") == written
    assert resources("s3:GetObject") == written | {f"arn:aws:s3:::calls/{each}/*" for each in ("prefetch", "manifests")}
    assert resources("s3:DeleteObject") == {topics}
    assert resources("s3:ListBucket") == {"arn:aws:s3:::calls"}
    assert actions(policies.batch_job("arn:aws:s3:::calls", KEY))["kms:Decrypt"] == [KEY]


def test_ecs_may_pull_only_from_the_repository_of_the_image() -> None:
    image = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/worker:v3"
    pulled = actions(policies.task_execution(HERE, "/aws/batch/ftm", image, []))
    assert pulled["ecr:BatchGetImage"] == [f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/team/worker"]
    assert pulled["logs:PutLogEvents"] == [f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/batch/ftm:log-stream:*"]
    assert "secretsmanager:GetSecretValue" not in pulled


def test_ecs_needs_no_ecr_permission_for_a_public_image() -> None:
    assert not [one for one in actions(policies.task_execution(HERE, "/l", "vllm/vllm-openai:v1", [])) if "ecr" in one]


def test_ecs_may_read_only_the_configured_secrets() -> None:
    read = actions(policies.task_execution(HERE, "/l", "x:1", ["arn:secret-a"], KEY))
    assert read["secretsmanager:GetSecretValue"] == ["arn:secret-a"]
    assert read["kms:Decrypt"] == [KEY]


def test_roles_can_only_be_assumed_for_this_account() -> None:
    (statement,) = json.loads(policies.trust("ecs-tasks.amazonaws.com", HERE))["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def test_the_page_about_roles_is_generated_from_the_policies() -> None:
    page = (ROOT / "docs/iam.md").read_text()
    assert page == iam_page.document(), "python -m components.iam_page > docs/iam.md"
    roles = [key for key in SECTIONS["adopted"].config_keys() if key.endswith(("RoleArn", "ProfileArn"))]
    assert [key for key in roles if f"## `ftm:{key}`" not in page] == []
