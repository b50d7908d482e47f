"""Quarters on the embedded AWS, with the commands of the README. The tests build on each other, in this order."""

import io
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from contract import env, layout
from contract.resource_names import batch_job_name
from contract.topics import TOPIC_COLUMNS
from local.fake_vllm.server import MODEL
from testing.processes import is_alive, until
from testing.virtual_time import virtual_time
from tests.end_to_end.conftest import FIRMS, QUARTER, Ended, Ftm, client, ftm_process

SECOND, THIRD = "2023Q2", "2023Q3"


@pytest.fixture(scope="module")
def run(ftm: Ftm, variables: dict[str, str]) -> Ended:
    """The sample quarter, run as the README says."""
    assert ftm("prefetch", "sample", QUARTER, "--firms", FIRMS).code == 0
    assert ftm("vllm", "scale", 1, "--wait").code == 0
    return ftm_process(variables, "run-quarter", QUARTER, "--yes", "--json")


def test_a_run_succeeds_and_accounts_for_every_firm(run: Ended):
    assert run.code == 0, run.err
    report = run.json
    assert set(report) == {
        "quarter", "run", "execution_arn", "status", "message", "failures", "batches", "firms", "topics", "tokens",
        "fallbacks", "seconds",
    }  # fmt: skip
    assert report["quarter"] == QUARTER
    assert report["status"] == "SUCCEEDED"
    assert report["batches"] == {"total": 1, "succeeded": 1, "failed": 0}
    assert report["firms"]["total"] == FIRMS == report["firms"]["completed"] + report["firms"]["skipped"]
    assert report["topics"]["total"] == report["topics"]["named"] > 0
    assert report["tokens"]["prompt"] > report["tokens"]["cached"] > 0


def test_the_bucket_contains_each_topic_once_with_its_name(run: Ended, s3: Any, stack: dict[str, Any]):
    rows = parts(s3, stack["outputs"]["bucket"], run.json["run"])
    assert all(list(row) == list(TOPIC_COLUMNS) for row in rows)
    assert len(rows) == run.json["topics"]["total"]
    assert max(Counter(row["topic_id"] for row in rows).values()) == 1
    assert all(row["name"] and row["summary"] and row["naming_method"] == "llm" for row in rows)
    assert {row["model"] for row in rows} == {stack["llm"]["model"]}


def test_topics_shows_the_results_of_the_last_run(run: Ended, ftm: Ftm):
    topics = ftm("topics", QUARTER, "--json").json
    assert len(topics) == run.json["topics"]["total"]
    assert set(topics[0]) == {
        "firm_id", "firm_name", "topic_id", "name", "summary", "keywords", "n_sentences", "naming_method",
    }  # fmt: skip
    firm = topics[0]["firm_id"]
    shown = ftm("topics", QUARTER, "--firm", firm).out
    assert topics[0]["name"] in shown
    assert ftm("topics", QUARTER, "--firm", "NO SUCH FIRM").code == 3


def test_vllm_status_knows_the_requests_of_the_run(run: Ended, ftm: Ftm):
    status = ftm("vllm", "status", "--json").json
    (gpu,) = status["gpus"]
    assert (gpu["market"], gpu["state"]) == ("spot", "InService")
    assert status["load"] == {"running": 0, "waiting": 0, "kv_cache_use": 0.0}
    assert status["minutes_idle"] <= gpu["minutes_up"]
    assert status["notes"] == []


def test_a_quarter_does_not_start_without_vllm(run: Ended, ftm: Ftm):
    assert run.code == 0
    assert ftm("vllm", "scale", 0).code == 0
    refused = ftm("run-quarter", QUARTER, "--yes")
    assert refused.code != 0
    assert "ftm --stack local vllm scale 1" in refused.err


@pytest.fixture(scope="module")
def listed(run: Ended, ftm: Ftm, s3: Any, stack: dict[str, Any]) -> Ended:
    """A list of two quarters, for which vLLM is started. A chunk of the first cannot be read: that of its last firm."""
    for quarter, firms in ((SECOND, 4), (THIRD, 3)):
        assert ftm("prefetch", "sample", quarter, "--firms", firms).code == 0
    manifest = {"Bucket": stack["outputs"]["bucket"], "Key": layout.prefetch_manifest_key(SECOND)}
    prefetch = json.loads(s3.get_object(**manifest)["Body"].read())
    *_, last = prefetch["firm_to_chunk"]
    prefetch["firm_to_chunk"][last] = "chunk_0001.parquet"
    prefetch |= {"n_chunks": 2, "chunk_sizes": {"chunk_0000.parquet": 3, "chunk_0001.parquet": 1}}
    s3.put_object(**manifest, Body=json.dumps(prefetch))
    s3.put_object(**unreadable_chunk(stack), Body=b"PAR1 not really")
    return ftm(
        "run-quarters",
        f"{SECOND}..{THIRD}",
        "--batch-size",
        3,
        "--vllm",
        1,
        "--keep-vllm",
        "--no-smoke-test",
        "--yes",
        "--json",
    )


def unreadable_chunk(stack: dict[str, Any]) -> dict[str, str]:
    return {"Bucket": stack["outputs"]["bucket"], "Key": layout.chunk_key(SECOND, "chunk_0001.parquet")}


def test_a_list_of_quarters_continues_after_a_failed_one(listed: Ended):
    assert listed.code == 1
    assert listed.json["failed"] == [SECOND]
    assert [quarter["status"] for quarter in listed.json["quarters"]] == ["FAILED", "SUCCEEDED"]
    assert f"{SECOND} failed: " in listed.err


def test_a_failed_batch_is_reported_and_the_others_are_kept(listed: Ended, ftm: Ftm, s3: Any, stack: dict[str, Any]):
    report, _ = listed.json["quarters"]
    assert report["batches"] == {"total": 2, "succeeded": 1, "failed": 1}
    assert report["firms"] == {"total": 4, "completed": 3, "skipped": 0, "failed": 1}
    failed = layout.batch_id(SECOND, 1)
    shown = ftm("status", SECOND)
    assert failed in shown.out + shown.err
    assert "chunk_0001.parquet of the prefetch cannot be read as Parquet" in json.dumps(report["failures"])
    assert len({row["firm_id"] for row in parts(s3, stack["outputs"]["bucket"], report["run"], SECOND)}) == 3
    assert ftm("topics", SECOND).code == 3  # no run of this quarter has succeeded
    assert ftm("topics", SECOND, "--run", report["run"], "--json").json


def test_a_run_is_resumed_only_when_its_jobs_have_ended(listed: Ended, ftm: Ftm, stack: dict[str, Any], s3: Any):
    run, batch = listed.json["quarters"][0]["run"], layout.batch_id(SECOND, 1)
    good = {"Bucket": stack["outputs"]["bucket"], "Key": layout.chunk_key(SECOND, "chunk_0000.parquet")}
    s3.copy_object(**unreadable_chunk(stack), CopySource=good)  # it has the sentences of all firms
    queue = client(stack, "batch")
    job = queue.submit_job(
        jobName=batch_job_name("ftm-local", run, batch),
        jobQueue=stack["outputs"]["job_queue_arn"],
        jobDefinition=stack["outputs"]["job_definition_arn"],
        containerOverrides={"command": ["sleep", "600"]},
    )["jobId"]

    with virtual_time():  # `ftm` waits for a minute
        refused = ftm("resume", SECOND, run, "--yes")
    assert refused.code == 5
    assert f"run {run} still has jobs that have not ended ({batch})" in refused.err

    def sleep(seconds: float) -> None:
        queue.terminate_job(jobId=job, reason="it ends while ftm waits for it")
        pause(seconds)

    pause = time.sleep
    with patch("time.sleep", sleep):
        resumed = ftm("resume", SECOND, run, "--yes", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.err.count(f"waiting for jobs of run {run} that are still ending: {batch}\n") == 1
    assert resumed.json["run"] == run
    assert resumed.json["batches"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert resumed.json["firms"]["completed"] == 4
    assert "nothing to resume" in ftm("resume", SECOND).err
    assert ftm("topics", SECOND, "--json").json


def test_names_from_another_llm_are_compared_with_the_results(listed: Ended, ftm: Ftm, tmp_path: Path):
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


def test_themes_of_two_quarters(listed: Ended, ftm: Ftm):
    found = ftm("themes", f"{QUARTER}..{SECOND}", "--yes", "--json")

    assert found.code == 0, found.err
    assert "themes named" in found.err
    assert found.json["range"] == f"{QUARTER}..{SECOND}"
    themes = found.json["themes"]
    assert themes
    assert all(theme["n_firms"] >= 3 and theme["naming_method"] == "llm" for theme in themes)
    assert all(list(theme["share"]) == list(theme["change"]) == [QUARTER, SECOND] for theme in themes)
    assert ftm("themes", f"{QUARTER.lower()}..{SECOND}", "--run", "last", "--json").json == found.json
    assert themes[0]["name"] in ftm("themes", f"{QUARTER}..{SECOND}", "--run", found.json["run"]).out


def test_a_themes_job_that_ends_before_its_first_record_is_explained_by_its_log(
    listed: Ended, ftm: Ftm, stack: dict[str, Any], variables: dict[str, str]
):
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
        (f"{SECOND}..{QUARTER}", 2, f"runs backwards: write {QUARTER}..{SECOND}"),
        ("2022", 2, "'2022' is not a quarter"),
        (f"{THIRD}..2023Q4", 3, "2023Q4 has no run: start one with"),
    ],
)
def test_themes_of_unavailable_quarters_are_rejected(listed: Ended, ftm: Ftm, quarters: str, code: int, reason: str):
    refused = ftm("themes", quarters, "--yes")
    assert refused.code == code
    assert reason in refused.err


def test_an_absent_llm_leaves_no_file(listed: Ended, ftm: Ftm, tmp_path: Path):
    out = tmp_path / "named.parquet"
    result = ftm("name", SECOND, "--llm-url", "nowhere", "--out", out)
    assert result.code == 2
    assert "--llm-url is 'nowhere'" in result.err
    assert not out.exists()


def test_load_is_measured_by_jobs_that_start_together(listed: Ended, ftm: Ftm):
    load = ftm("vllm", "bench", "--concurrent", 2, "--levels", 2, "--seconds", 1, "--json").json
    assert load["jobs"] == 2
    assert [level["in_flight"] for level in load["levels"]] == [4]
    assert all(level["requests"] and not level["errors"] for level in load["levels"])
    assert load["knee"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run-quarter", "2023Q5", "--yes"], 2, "2023Q5"),
        (["run-quarter", "23Q1", "--yes"], 2, "23Q1"),
        (["run-quarter", "2019Q2", "--yes"], 3, "has no prefetch"),
        (["run-quarter", QUARTER, "--batch-size", "0", "--yes"], 2, "--batch-size"),
        (["run-quarter", QUARTER, "--batch-size", "1000000", "--yes"], 2, "--batch-size"),
        (["--stack", "nowhere", "vllm", "status"], 3, "nowhere"),
        (["topics", "2019Q2"], 3, "2019Q2"),
        (["vllm", "scale", "99"], 2, "0 to 2"),
    ],
)
def test_invalid_input_gives_a_sentence_and_an_exit_code(ftm: Ftm, arguments: list[str], code: int, sentence: str):
    refused = ftm(*arguments)
    assert refused.code == code
    assert sentence in refused.err
    assert not refused.out


def test_a_second_up_changes_nothing(ftm: Ftm, stack: dict[str, Any], variables: dict[str, str]):
    assert stack["llm"] == {"model": MODEL, "fake": True, "url": ""}
    assert stack["outputs"].keys() >= {
        "bucket", "state_machine_arn", "job_queue_arn", "job_definition_arn", "vllm_cluster_name", "vllm_service_name",
        "vllm_asg_name", "vllm_target_group_arn", "vllm_base_url", "vllm_log_group", "batch_log_group", "region",
    }  # fmt: skip
    assert all(stack["outputs"].values())
    assert Path(variables["FTM_LOCAL_DIR"], ".gitignore").read_text() == "*\n"
    assert "it is already up" in ftm("local", "up").err
    assert ftm("local", "up", "--port", 1, "--llm-url", "http://127.0.0.1:9").code == 5
    assert ftm("local", "status", "--json").json == stack


def test_vllm_answers_only_while_the_group_and_the_service_are_scaled_up(stack: dict[str, Any]):
    outputs = stack["outputs"]
    health = outputs["vllm_base_url"].removesuffix("/v1") + "/health"
    group, cluster, service = (outputs[key] for key in ("vllm_asg_name", "vllm_cluster_name", "vllm_service_name"))
    scaling, ecs = client(stack, "autoscaling"), client(stack, "ecs")
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=0)
    ecs.update_service(cluster=cluster, service=service, desiredCount=0)
    assert status_of(health) == 503
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1)
    assert status_of(health) == 503
    ecs.update_service(cluster=cluster, service=service, desiredCount=1)
    assert status_of(health) == 200
    with urllib.request.urlopen(f"{outputs['vllm_base_url']}/models", timeout=10) as answer:  # noqa: S310
        assert json.load(answer)["data"][0]["id"] == MODEL
    scaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=0)
    assert status_of(health) == 503


def test_down_ends_the_daemon_and_its_jobs(ftm: Ftm, stack: dict[str, Any]):
    job = running_job(stack)
    assert (is_alive(stack["pid"]), is_alive(job)) == (True, True)
    assert ftm("local", "down").code == 0
    assert not is_alive(stack["pid"])
    until(lambda: not is_alive(job))
    assert ftm("local", "status").code == 3
    assert ftm("local", "down").code == 0


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def running_job(stack: dict[str, Any]) -> int:
    """Start a Batch job that keeps running; return its process id."""
    batch = client(stack, "batch")
    job = batch.submit_job(
        jobName="long",
        jobQueue=stack["outputs"]["job_queue_arn"],
        jobDefinition=stack["outputs"]["job_definition_arn"],
        containerOverrides={"command": ["sleep", "1000"]},
    )["jobId"]

    def described() -> dict[str, Any]:
        return batch.describe_jobs(jobs=[job])["jobs"][0]

    until(lambda: described()["status"] == "RUNNING")
    return int(described()["container"]["taskArn"].rpartition("pid-")[2])


def parts(s3: Any, bucket: str, run: str, quarter: str = QUARTER) -> list[dict[str, Any]]:
    listing = s3.list_objects_v2(Bucket=bucket, Prefix=layout.RunRef(quarter, run).parts_prefix)
    bodies = [s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listing["Contents"]]
    return [row for body in bodies for row in pq.read_table(io.BytesIO(body)).to_pylist()]
