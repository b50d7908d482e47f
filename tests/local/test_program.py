"""Running Pulumi programs in this process, with small programs and a cloud that only records what it creates."""

import textwrap
import threading
from pathlib import Path
from typing import Any

import pulumi
import pytest

from local.deploy import program
from local.deploy.program import Resource
from local.state import LocalError


class Memory:
    """A cloud that creates every resource except those named in `refused`."""

    def __init__(self, refused: str = "") -> None:
        self.created: list[str] = []
        self._refused = refused
        self._lock = threading.Lock()

    def create(self, resource: Resource) -> tuple[str, dict[str, Any]]:
        if resource.name == self._refused:
            raise ValueError("no such\n  thing")
        with self._lock:
            self.created.append(resource.name)
        return f"id-{resource.name}", {"arn": f"arn:{resource.name}"}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        if self._refused == token:
            raise ValueError("no answer")
        return {"accountId": "123456789012", "asked": args}


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a project with the given `__main__.py` and returns its folder."""

    def write(source: str, project: str = "name: ftm\n", settings: str = "config: {}\n") -> Path:
        (tmp_path / "Pulumi.yaml").write_text(textwrap.dedent(project))
        (tmp_path / "Pulumi.test.yaml").write_text(textwrap.dedent(settings))
        header = "import pulumi, pulumi_aws as aws\nfrom pulumi import ResourceOptions, export\n"
        (tmp_path / "__main__.py").write_text(header + textwrap.dedent(source))
        return tmp_path

    return write


CHAIN = """
    class Pair(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("ftm:test:Pair", name)
            options = ResourceOptions(parent=self, protect=True, ignore_changes=["tags"])
            self.bucket = aws.s3.Bucket("bucket", bucket="calls", opts=options)
            self.url = aws.ssm.Parameter("url", type="String", value=self.bucket.arn, opts=ResourceOptions(parent=self))
            self.register_outputs({})

    pair = Pair("pair")
    last = aws.sns.Topic("last", opts=ResourceOptions(depends_on=[pair.url]))
    export("bucket", pair.bucket.arn)
    export("account", aws.get_caller_identity().account_id)
    export("list", [last.id, 3])
"""


def test_up_creates_in_order_of_dependency_and_exports(write: Any):
    cloud = Memory()
    run = program.up("test", cloud, root=write(CHAIN))
    assert cloud.created == ["bucket", "url", "last"]
    assert run.outputs == {"bucket": "arn:bucket", "account": "123456789012", "list": ["id-last", 3]}


def test_preview_registers_and_exports_the_same_and_creates_nothing(write: Any):
    cloud, root = Memory(), write(CHAIN)
    preview = program.preview("test", cloud, root=root)
    assert cloud.created == []
    run = program.up("test", cloud, root=root)
    assert {str(resource) for resource in preview.resources} == {str(resource) for resource in run.resources}
    assert preview.outputs.keys() == run.outputs.keys()


def test_a_resource_shows_its_parent_and_options(write: Any):
    run = program.up("test", Memory(), root=write(CHAIN))
    resources = {resource.name: resource for resource in run.resources}
    assert not resources["pair"].custom
    assert resources["bucket"].parent.endswith("ftm:test:Pair::pair")
    assert resources["bucket"].protect
    assert resources["bucket"].ignore_changes == ["tags"]
    assert [urn.split("::")[-1] for urn in resources["last"].depends_on] == ["url"]


def test_inputs_are_plain_values(write: Any):
    root = write("""
        aws.ssm.Parameter("secret", type="SecureString", value=pulumi.Output.secret("hush"), tags={"n": "1"})
        aws.lb.TargetGroup("numbers", port=8000, health_check={"interval": 15})
    """)
    inputs = {resource.name: resource.inputs for resource in program.up("test", Memory(), root=root).resources}
    assert inputs["secret"]["value"] == "hush"
    assert inputs["numbers"] == {"port": 8000, "healthCheck": {"interval": 15}}
    assert type(inputs["numbers"]["port"]) is int


def test_settings_come_from_overrides_then_stack_then_defaults(write: Any):
    root = write(
        """
        config = pulumi.Config()
        export("size", config.require_int("size"))
        export("on", config.require_bool("active"))
        export("types", config.require_object("types"))
        export("name", config.require("name"))
        export("absent", config.get("absent"))
        export("region", pulumi.Config("aws").require("region"))
        """,
        project="""
        name: ftm
        config:
          size: {type: integer, default: 1}
          name: {type: string, default: theirs}
          active: {type: boolean, default: false}
          types: {type: array, items: {type: string}, default: [g6, g5]}
          absent: {type: string}
          aws:region: {value: us-east-1}
        """,
        settings="""
        config:
          ftm:size: 2
          ftm:active: true
          ftm:name: ours
        """,
    )
    run = program.up("test", Memory(), {"ftm:name": "mine"}, root=root)
    assert run.outputs == {
        "size": 2,
        "on": True,
        "types": ["g6", "g5"],
        "name": "mine",
        "region": "us-east-1",
    }


def test_runs_do_not_see_each_other(write: Any):
    root = write("export('name', pulumi.Config().get('name'))")
    assert program.up("test", Memory(), {"ftm:name": "first"}, root=root).outputs == {"name": "first"}
    assert program.up("test", Memory(), root=root).outputs == {}
    with pytest.raises(pulumi.ConfigMissingError):
        pulumi.Config("ftm").require("name")


def test_warnings_of_the_program_are_kept(write: Any):
    assert program.up("test", Memory(), root=write("pulumi.log.warn('careful')")).warnings == ["careful"]


def test_a_resource_that_cannot_be_created_is_named_and_the_deployment_stops(
    write: Any, capfd: pytest.CaptureFixture[str]
):
    cloud = Memory(refused="url")
    with pytest.raises(LocalError) as error:
        program.up("test", cloud, root=write(CHAIN))
    assert (
        str(error.value) == "the program could not create url (aws:ssm/parameter:Parameter): ValueError: no such thing"
    )
    assert "last" not in cloud.created
    assert "Traceback" not in capfd.readouterr().err


def test_a_data_source_without_a_result_is_named(write: Any):
    source = "aws:index/getCallerIdentity:getCallerIdentity"
    with pytest.raises(LocalError, match=f"could not create {source}: ValueError: no answer"):
        program.up("test", Memory(refused=source), root=write(CHAIN))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise pulumi.RunError('ftm:size is 0: it should be positive')", r"^ftm:size is 0: it should be positive$"),
        ("{}['size']", r"^the program __main__.py failed: KeyError: 'size'$"),
        ("def broken(", r"^the program __main__.py failed: SyntaxError: "),
        ("raise SystemExit(3)", r"^the program __main__.py failed: SystemExit: 3$"),
        ("pulumi.Output.from_input(1).apply(lambda n: n / 0)", r"ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_program_is_reported_in_one_sentence(write: Any, source: str, sentence: str):
    with pytest.raises(LocalError, match=sentence):
        program.up("test", Memory(), root=write(source))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("config: {ftm:key: {secure: AAABAD}}", "Pulumi.test.yaml encrypts ftm:key"),
        ("config: [", "Pulumi.test.yaml is not valid YAML"),
    ],
)
def test_unreadable_settings_are_reported_in_one_sentence(write: Any, settings: str, sentence: str):
    with pytest.raises(LocalError, match=sentence):
        program.up("test", Memory(), root=write("", settings=settings))


def test_a_stack_without_settings_is_reported_in_one_sentence(write: Any):
    with pytest.raises(LocalError, match=r"Pulumi\.other\.yaml is missing"):
        program.up("other", Memory(), root=write(""))
