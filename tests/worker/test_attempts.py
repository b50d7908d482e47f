"""Overlapping attempts at one batch: no interleaving and no fault loses a topic or counts it twice."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testing.attempts import FIRMS, TOPICS_PER_FIRM, simulate

TOPICS = len(FIRMS) * TOPICS_PER_FIRM


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=160), st.integers(2, 3), st.booleans())
def test_any_interleaving_ends_with_one_record_and_each_topic_once(choices: bytes, attempts: int, repair: bool) -> None:
    history = simulate(choices, attempts, repair)

    assert history.problems == []
    assert (history.topics, history.rows, history.lost, history.doubled) == (TOPICS, TOPICS, 0, 0)
