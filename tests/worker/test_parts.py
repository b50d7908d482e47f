"""What a part says of a topic: how much of the call it is, who speaks of it, and in which part of the call."""

import pytest

from testing.worker import QUARTER, SUBJECTS, Bucket, Worker, sentence
from worker.firm import Sentence
from worker.speech import spoken

OPERATOR, EXECUTIVE, ANALYST = "Operator", "Executive", "Analyst"


def call_with_questions(firm: str) -> list[dict[str, object]]:
    """Remarks on two subjects, and questions and answers on a third."""
    remarks = [(EXECUTIVE, f"In segment {n} we saw {SUBJECTS[n // 10]} improve by {n} percent.") for n in range(20)]
    opening = [(OPERATOR, "Our first question comes from the line of Ada Thornquist.")]
    answers = [
        (ANALYST if n % 2 else EXECUTIVE, f"In region {n} {SUBJECTS[4]} may change by {n} percent.") for n in range(10)
    ]
    lines = [*remarks, *opening, (ANALYST, "What of the trials?"), *answers]
    return [sentence(firm, n, text, speaker_type=speaker) for n, (speaker, text) in enumerate(lines)]


def test_shares_of_speakers_and_sections(bucket: Bucket, worker: Worker) -> None:
    bucket.put_firms({"ALPHA": call_with_questions("ALPHA")})

    assert worker.run().returncode == 0

    topics = bucket.topics()
    asked = next(topic for topic in topics if "trial" in " ".join(topic["keywords"]))
    assert asked["topic_id"] == f"ALPHA_{QUARTER}_{asked['local_topic_id']}"
    assert asked["share"] == round(asked["n_sentences"] / 32, 4)
    assert asked["qa_share"] == 1
    assert asked["analyst_share"] == pytest.approx(0.5, abs=0.05)
    assert asked["executive_share"] == pytest.approx(0.5, abs=0.05)
    for topic in topics:
        if topic is not asked:
            assert (topic["prepared_share"], topic["executive_share"]) == (1, 1)
        assert all(0 < cosine <= 1 for cosine in topic["sentence_cosines"])


def test_a_call_that_does_not_name_its_speakers(bucket: Bucket, worker: Worker) -> None:
    rows = [{**row, "speaker_type": "Unknown"} for row in call_with_questions("ALPHA")]
    silent = [row for row in rows if "first question" not in str(row["raw_text"])]
    bucket.put_firms({"ALPHA": rows, "BRAVO": [{**row, "firm_id": "BRAVO"} for row in silent]})

    assert worker.run().returncode == 0

    topics = bucket.topics()
    assert {topic["executive_share"] for topic in topics} == {None}
    assert {topic["qa_share"] for topic in topics if topic["firm_id"] == "BRAVO"} == {None}
    assert {topic["qa_share"] for topic in topics if topic["firm_id"] == "ALPHA"} == {0, 1}


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("Executives", "executive"),
        ("Chief Executive Officer", "executive"),
        ("CFO", "executive"),
        ("Company Representative", "executive"),
        ("ANALYST", "analyst"),
        ("Analysts", "analyst"),
        ("Conference Operator", "operator"),
        ("Unknown", None),
        ("", None),
    ],
)
def test_the_roles_that_data_providers_write(speaker: str, role: str | None) -> None:
    assert spoken([Sentence("a", "Rates fell.", "rates fell", speaker)])["a"].role == role


def test_each_transcript_has_its_own_sections() -> None:
    sentences = [
        Sentence(f"{call}{n}", "Rates fell.", "rates fell", speaker, call, n)
        for call in "ab"
        for n, speaker in enumerate([EXECUTIVE, OPERATOR, ANALYST, EXECUTIVE])
    ]
    sections = [each.section for each in spoken(reversed(sentences)).values()]
    assert sorted(map(str, sections)) == ["prepared"] * 2 + ["qa"] * 6
    assert {each.section for each in spoken(sentences[:1]).values()} == {"prepared"}  # a call without analysts
