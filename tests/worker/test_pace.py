"""A batch at a server of five requests a minute, which is slow and not broken; no time passes."""

from typing import Any

from contract.batch import Pace
from testing.worker import Bucket, FakeTime, LlmServer, Reply, Worker, call

REFUSED = Reply(status=429, body={"error": {"message": "No deployments available for selected model."}})
FIRMS = ["ALPHA", "BRAVO", "CHARLIE", "DELTA"]


def test_a_server_of_five_requests_a_minute_names_all_and_the_end_is_estimated(
    bucket: Bucket, llm: LlmServer, worker: Worker
) -> None:
    bucket.put_firms({firm: call(firm) for firm in FIRMS})
    time = FakeTime()
    admitted: list[float] = []
    estimates: dict[float, Pace] = {}

    def limit(_number: int, _request: dict[str, Any]) -> Reply:
        now = sum(time.slept)
        if pace := bucket.progress().pace:
            estimates.setdefault(now, pace)
        if sum(moment > now - 60 for moment in admitted) >= 5:
            return REFUSED
        admitted.append(now)
        return Reply()

    llm.behave = limit
    done = worker.run(time.clock)

    assert done.returncode == 0, done.stderr
    assert "limits the rate (HTTP 429: No deployments available for selected model.)" in done.stderr
    counts = bucket.progress().counts
    assert (counts.topics, counts.named) == (20, 20)
    first, *_, last = estimates
    assert 60 <= first < 150
    total = sum(time.slept)
    assert abs(first + estimates[first].seconds_left - total) < 0.3 * total
    assert 4 <= estimates[last].topics_per_minute <= 6
    assert estimates[last].in_flight == 1
    assert estimates[last].rate_limited > 0
    assert bucket.progress().pace is None
    assert "topics a minute, 1 in flight" in done.stdout
