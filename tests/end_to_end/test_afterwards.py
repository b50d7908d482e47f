"""Commands after the first run of a quarter, in order: resuming, lists of quarters, other names, load tests."""

import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from contract import env, layout
from contract.resource_names import batch_job_name
from testing.virtual_time import virtual_time
from tests.end_to_end.conftest import Ftm, client

FIRST, SECOND = "2022Q1", "2022Q2"


@pytest.fixture(scope="module", autouse=True)
def quarters(ftm: Ftm) -> None:
    """Two sample quarters and a GPU."""
    assert ftm("prefetch", "sample", FIRST, "--firms", 5).code == 0
    assert ftm("prefetch", "sample", SECOND, "--firms", 4).code == 0
    assert ftm("vllm", "scale", 1, "--wait").code == 0


def test_a_list_of_quarters_continues_after_a_failed_one_which_is_then_resumed(
    ftm: Ftm, s3: Any, stack: dict[str, Any]
) -> None:
    chunk = {"Bucket": stack["outputs"]["bucket"], "Key": layout.chunk_key(FIRST, "chunk_0000.parquet")}
    good = s3.get_object(**chunk)["Body"].read()
    s3.put_object(**chunk, Body=b"not Parquet")

    done = ftm("run-quarters", f"{FIRST}..{SECOND}", "--yes", "--json")

    assert done.code == 1
    assert done.json["failed"] == [FIRST]
    assert [quarter["status"] for quarter in done.json["quarters"]] == ["FAILED", "SUCCEEDED"]
    assert f"{FIRST} failed: " in done.err
    assert ftm("topics", FIRST).code == 3  # no run of this quarter has succeeded

    s3.put_object(**chunk, Body=good)
    resumed = ftm("resume", FIRST, "--yes", "--json")
    assert resumed.code == 0
    assert resumed.json["run"] == done.json["quarters"][0]["run"]
    assert resumed.json["batches"] == {"total": 1, "succeeded": 1, "failed": 0}
    assert resumed.json["firms"]["completed"] + resumed.json["firms"]["skipped"] == 5
    assert "nothing to resume" in ftm("resume", FIRST).err
    assert ftm("topics", FIRST, "--json").json


def test_a_run_is_resumed_only_when_its_jobs_have_ended(
    ftm: Ftm, stack: dict[str, Any], variables: dict[str, str], s3: Any
) -> None:
    run = ftm("runs", SECOND, "--json").json[0]["run"]
    batch = layout.batch_id(SECOND, 0)
    record = layout.RunRef(SECOND, run).progress_key(batch)
    s3.delete_object(Bucket=stack["outputs"]["bucket"], Key=record)
    queue = client(stack, "batch")
    job = queue.submit_job(
        jobName=batch_job_name("ftm-local", run, batch),
        jobQueue=stack["outputs"]["job_queue_arn"],
        jobDefinition=stack["outputs"]["job_definition_arn"],
        containerOverrides={"command": ["python", "-c", "import time; time.sleep(600)"]},
    )["jobId"]

    def resume() -> Result:
        return CliRunner().invoke(app, ["resume", SECOND, run, "--yes"], prog_name="ftm", env=variables)

    with virtual_time():  # `ftm` waits for a minute
        refused = resume()
    assert refused.exit_code == 5
    assert f"run {run} still has jobs that have not ended ({batch})" in refused.stderr

    def sleep(_seconds: float) -> None:
        queue.terminate_job(jobId=job, reason="it ends while ftm waits for it")
        pause(0.05)

    pause = time.sleep
    with patch("time.sleep", sleep):
        resumed = resume()
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stderr.count(f"waiting for jobs of run {run} that are still ending: {batch}\n") == 1


def test_names_from_another_llm_are_compared_with_the_results(ftm: Ftm, tmp_path: Path) -> None:
    llm, out = ftm("vllm", "status", "--json").json["base_url"], tmp_path / "named.parquet"
    before = ftm("topics", SECOND, "--json").json

    named = ftm("name", SECOND, "--sample", 2, "--llm-url", llm, "--out", out, "--json").json
    assert (named["file"], named["firms"]) == (str(out), 2)
    assert named["named"] == named["topics"] > 0
    result = ftm("compare", SECOND, "--with", out, "--json").json

    assert result["firms"] == 2
    assert result["matched"] == result["b"]["topics"] > 0
    assert result["same_names"] == 1  # the fake vLLM is deterministic
    assert ftm("topics", SECOND, "--json").json == before


def test_themes_of_two_quarters(ftm: Ftm) -> None:
    found = ftm("themes", f"{FIRST}..{SECOND}", "--yes", "--json")

    assert found.code == 0, found.err
    assert "themes named" in found.err
    assert found.json["range"] == f"{FIRST}..{SECOND}"
    themes = found.json["themes"]
    assert themes
    assert all(theme["n_firms"] >= 3 and theme["naming_method"] == "llm" for theme in themes)
    assert all(list(theme["share"]) == list(theme["change"]) == [FIRST, SECOND] for theme in themes)
    assert ftm("themes", f"{FIRST.lower()}..{SECOND}", "--run", "last", "--json").json == found.json
    assert themes[0]["name"] in ftm("themes", f"{FIRST}..{SECOND}", "--run", found.json["run"]).out


def test_a_themes_job_that_ends_before_its_first_record_is_explained_by_its_log(
    ftm: Ftm, stack: dict[str, Any], variables: dict[str, str]
) -> None:
    batch, definition = client(stack, "batch"), stack["outputs"]["job_definition_arn"]
    container = batch.describe_job_definitions(jobDefinitions=[definition])["jobDefinitions"][0]["containerProperties"]
    for variable in container["environment"]:
        if variable["name"] == env.LLM_BASE_URL:
            variable["value"] = "nowhere"
    without_llm = batch.register_job_definition(
        jobDefinitionName="without-llm", type="container", containerProperties=container
    )["jobDefinitionArn"]
    state = Path(variables["FTM_LOCAL_DIR"]) / "state.json"
    published = state.read_text()
    state.write_text(published.replace(definition, without_llm))
    try:
        failed = ftm("themes", SECOND, "--yes")
    finally:
        state.write_text(published)

    assert failed.code == 1
    assert "its log ends with: " in failed.err
    assert f"{env.LLM_BASE_URL} is 'nowhere'" in failed.err


@pytest.mark.parametrize(
    ("quarters", "code", "reason"),
    [
        (f"{SECOND}..{FIRST}", 2, f"runs backwards: write {FIRST}..{SECOND}"),
        ("2022", 2, "'2022' is not a quarter"),
        (f"{SECOND}..2022Q3", 3, "2022Q3 has no run: start one with"),
    ],
)
def test_themes_of_unavailable_quarters_are_rejected(ftm: Ftm, quarters: str, code: int, reason: str) -> None:
    refused = ftm("themes", quarters, "--yes")
    assert refused.code == code
    assert reason in refused.err


def test_an_absent_llm_leaves_no_file(ftm: Ftm, tmp_path: Path) -> None:
    out = tmp_path / "named.parquet"
    result = ftm("name", SECOND, "--llm-url", "nowhere", "--out", out)
    assert result.code == 2
    assert "--llm-url is 'nowhere'" in result.err
    assert not out.exists()


def test_load_is_measured_by_jobs_that_start_together(ftm: Ftm) -> None:
    load = ftm("vllm", "bench", "--concurrent", 5, "--levels", 2, "--seconds", 1, "--json").json
    assert load["jobs"] == 5
    assert [level["in_flight"] for level in load["levels"]] == [10]
    assert all(level["requests"] and not level["errors"] for level in load["levels"])
    assert load["knee"] == 10


def test_a_second_up_reports_that_the_daemon_runs(ftm: Ftm) -> None:
    assert "it is already up" in ftm("local", "up").err
