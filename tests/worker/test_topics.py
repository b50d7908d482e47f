"""The topics of a firm: which sentences are used, which words become keywords, and determinism."""

import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from testing.worker import SUBJECTS, call
from worker.firm import Firm, Sentence
from worker.naming.prompt import fallback_name
from worker.topics.discovery import find_topics
from worker.topics.text import content_words, is_boilerplate, names, with_one_number

VOCABULARY = [
    f"{first}{second}"
    for first in ("mar", "vol", "tar", "cas", "lin", "der")
    for second in ("gin", "ume", "iff", "ting", "ing", "ive", "ent", "ous", "able", "ion", "age", "ure")
]


def sentences(texts: list[str], **other: str) -> list[Sentence]:
    return [Sentence(f"s{n}", text, text.lower(), position=n, **other) for n, text in enumerate(texts)]


def firm(texts: list[str], name: str = "Acme Robotics, Inc.") -> Firm:
    return Firm("ACME", name, None, None, None, sentences(texts))


def random_firm(rows: int, seed: int) -> Firm:
    """A firm with several subjects, each with its own words and some shared ones."""
    chance = random.Random(seed)
    subjects = [chance.sample(VOCABULARY, 9) for _ in range(max(2, rows // 14))]
    texts = [
        " ".join(chance.choices(subjects[n * len(subjects) // rows], k=6) + chance.choices(VOCABULARY, k=3))
        for n in range(rows)
    ]
    return firm(texts)


@pytest.mark.parametrize(
    "text",
    [
        "Our next question comes from the line of John Smith with Credit Suisse.",
        "Now let me turn the call over to Jane Miller, our Chief Financial Officer.",
        "Actual results may differ materially from those projected in forward-looking statements.",
        "Such statements are based on assumptions that we believe to be appropriate under the circumstances.",
        "A replay of this call will be available on our website.",
        "Please turn to slide 7.",
        "Good morning and thank you for joining us today.",
        "Thanks, John.",
        "This concludes today's conference call.",
        "With me today are Jane Miller, our Chief Executive Officer, and Tom Reed, our Chief Financial Officer.",
        "Jane Miller, Chairman and CEO; Tom Reed, Chief Financial Officer; and other members of the management.",
        "This morning I will review our first quarter results, our balance sheet and our capital spending program.",
        "Tom will then provide a summary of financial performance by segment, cost reduction and restructuring.",
    ],
)
def test_phrases_common_to_all_calls_are_boilerplate(text: str) -> None:
    (sentence,) = sentences([text])
    assert is_boilerplate(sentence, len(content_words(sentence)))


@pytest.mark.parametrize(
    "text",
    [
        "Revenue increased 12% on strong demand for industrial pumps.",
        "On slide 5 you see that organic growth in Europe outpaced our plan, with freight and wage inflation absorbed.",
        "We turned over inventory faster than last year because of the new warehouse in Ohio.",
        "As Tom will discuss in more detail later, the securitization supports growth of the loan portfolio.",
        "Gross margin rose on freight savings and lower scrap, which I will discuss in more detail shortly.",
        "The new Chief Financial Officer of the division leads the cost reduction program in Ohio.",
    ],
)
def test_sentences_about_the_firm_are_not_boilerplate(text: str) -> None:
    (sentence,) = sentences([text])
    assert not is_boilerplate(sentence, len(content_words(sentence)))


def test_sentences_of_operators_are_excluded_by_role() -> None:
    (sentence,) = sentences(["We expect margin expansion in the second half."], speaker_type="Operator")
    assert is_boilerplate(sentence, words=6)


def test_names_are_distinguished_from_common_words() -> None:
    texts = [
        "Thank you, Jonathan Weatherby.",
        "Our next question comes from the line of Priya Raman with Credit Suisse.",
        "With me is Tom Reed, our Chief Financial Officer.",
        "As Wendy mentioned, demand in China is strong, and the launch of Zelvora in Texas went well.",
        "The Hackwell acquisition closed; AROB and the European platform grew.",
        "Acme Robotics sells the PowerArm and the Flexo® in Ohio.",
        "Credit losses fell, and credit quality is stable.",
        "EBITDA and CapEx rose at Acme, as robotics demand and robotics orders grew.",
    ]
    one = Firm("AROB", "Acme Robotics, Inc.", None, None, None, sentences(texts))
    assert names(one) == {
        "acme", "arob", "jonathan", "weatherby", "priya", "raman", "tom", "reed", "wendy", "zelvora", "hackwell",
        "powerarm", "flexo", "acme robotics",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("firm_id", "name", "expected"),
    [
        ("T", "AT&T Inc.", {"at t"}),
        ("MMM", "3M Company", {"3m"}),
        ("FFIV", "F5 Networks, Inc.", {"f5", "f5 networks"}),
        ("GE", "GE Aerospace", {"ge", "aerospace", "ge aerospace"}),
        ("BP", "BP p.l.c.", {"bp", "bp p l c"}),
        ("GES", "Guess?, Inc.", {"guess"}),
        ("NVGR", "The Navigator Company", {"navigator"}),
        ("BBBY", "Bed Bath and Beyond Inc.", {"bed", "bath", "bed bath and beyond"}),
        ("IT", "Gartner, Inc.", {"gartner"}),
        ("10", "10", set()),
        ("ON", "On Holding AG", set()),
    ],
)
def test_the_firm_is_identified_by_its_name_and_not_by_common_words_in_it(
    firm_id: str, name: str, expected: set[str]
) -> None:
    texts = ["It grew on IT demand, and on the backlog.", "ON demand, it fell 10% and more of it went on."]
    assert names(Firm(firm_id, name, None, None, None, sentences(texts))) == expected


def test_a_word_in_many_firms_names_counts_as_a_name_where_the_call_writes_it_as_one() -> None:
    said = sentences(["Valmont Energy grew, and its systems sell."])
    assert names(Firm("VE", "Valmont Energy Group", None, None, None, said)) == {
        "valmont", "energy", "valmont energy group",
    }  # fmt: skip


def test_the_last_word_of_a_longer_name_is_not_a_brand() -> None:
    texts = [
        "Costs of the Northern Channel acquisition and the Vexor launch fell.",
        "Our Plenty brand and the Ellora brand grew after Brexit, as they called Brexit.",
    ]
    assert names(firm(texts, "ACME")) == {"acme", "vexor", "plenty", "ellora"}


def test_technical_terms_are_not_brands() -> None:
    texts = [
        "Our mRNA vaccines and SiC devices sell.",
        "RevPAR rose, and WiFi, LiDAR and the DoD paid for it; Tom's did.",
    ]
    assert names(firm(texts, "ACME")) == {"acme"}


def test_words_are_complete_in_any_script_and_limited_in_length() -> None:
    text = f"बिक्री और लाभ में वृद्धि, cafe\u0301s, naïveté, {'x' * 41} {'売' * 10_000} 2nd-quarter B2B"
    (sentence,) = sentences([text])
    assert content_words(sentence) == ["बिक्री", "लाभ", "में", "वृद्धि", "cafe\u0301s", "naïveté"]


def test_singular_and_plural_count_as_one_word_in_the_more_common_form() -> None:
    said = [["shipments", "policy", "price"], ["shipment", "policies", "process"], ["shipments", "policy", "prices"]]
    assert with_one_number(said) == [
        ["shipments", "policy", "price"], ["shipments", "policy", "process"], ["shipments", "policy", "price"],
    ]  # fmt: skip


def test_a_sentence_without_a_word_of_its_topic_is_dropped() -> None:
    rows = [row["raw_text"] for row in call("ACME")]
    rows.insert(len(rows) // 2, "Litigation settlement proceeds arrived unexpectedly, litigation settlement proceeds.")
    found = find_topics(firm(rows))
    assert f"s{len(rows) // 2}" not in {number for topic in found.topics for number in topic.sentence_ids}


def test_a_word_in_one_sentence_of_a_topic_is_not_a_keyword() -> None:
    rows = [row["raw_text"] for row in call("ACME")]
    for first in range(0, len(rows), len(rows) // len(SUBJECTS)):
        rows[first] += " despite hurricane damage"
    found = find_topics(firm(rows))
    assert len(found.topics) == len(SUBJECTS)
    assert not [topic.keywords for topic in found.topics if "hurricane" in " ".join(topic.keywords)]


def test_topics_are_found_and_names_are_not_keywords() -> None:
    rows = [row["raw_text"].replace("In segment", "At Acme, said Zelda,") for row in call("ACME")]
    found = find_topics(firm([*rows, "Thanks, Zelda."], "Acme"))
    assert len(found.topics) == len(SUBJECTS)
    for topic in found.topics:
        words = set(" ".join(topic.keywords).split())
        assert max(len(words & set(subject.split())) for subject in SUBJECTS) >= 3
        assert not words & {"acme", "zelda"}
        assert 1 <= len(topic.shown) <= 8


@pytest.mark.parametrize(("rows", "topics"), [(0, 0), (1, 0), (2, 0), (3, 1), (11, 1), (12, 1)])
def test_a_firm_of_three_usable_sentences_has_a_topic(rows: int, topics: int) -> None:
    found = find_topics(firm([f"Freight costs and inventory levels changed by {n} percent." for n in range(rows)]))
    assert len(found.topics) == topics
    assert bool(found.skipped) == (topics == 0)
    if topics:
        assert len(found.topics[0].sentence_ids) == rows


def test_repeated_sentence_ids_are_reported_when_too_few_sentences_remain() -> None:
    repeated = [
        replace(sentence, sentence_id="same") for sentence in sentences([f"Pump margins rose {n}%." for n in range(15)])
    ]
    found = find_topics(Firm("ACME", "Acme", None, None, None, repeated))
    assert found.skipped == "1 usable of 15 sentences, 3 needed; 14 repeat a sentence id"


@pytest.mark.parametrize("rows", [30, 31, 60])
def test_a_firm_that_repeats_no_word_has_a_topic(rows: int) -> None:
    chance = random.Random(rows)
    clauses = ["".join(chance.choices("売上高利益営業為替影響増減市場顧客投資事業", k=9)) for _ in range(4 * rows)]
    found = find_topics(firm(["、".join(clauses[n::rows]) + "。" for n in range(rows)]))
    assert [len(topic.sentence_ids) for topic in found.topics] == [rows]


def test_words_of_a_hindi_call_are_complete() -> None:
    text = "इस तिमाही में हमारी कंपनी की बिक्री और लाभ में वृद्धि हुई क्योंकि मांग मजबूत रही"
    (topic,) = find_topics(firm([text] * 15)).topics
    assert set(" ".join(topic.keywords).split()) <= set(text.split())


@pytest.mark.parametrize("long", ["x" * 10_000, "売" * 10_000, "क्षि" * 2_500])
def test_an_endless_word_is_not_in_a_keyword(long: str) -> None:
    (topic,) = find_topics(firm([f"Revenue growth {long} {n} demand margin" for n in range(12)])).topics
    assert set(" ".join(topic.keywords).split()) == {"revenue", "growth", "demand", "margin"}
    assert len(fallback_name(topic.keywords)) < 80


def test_a_very_long_call_stays_within_its_time() -> None:
    began = time.process_time()
    found = find_topics(random_firm(2_000, seed=1))
    assert 10 <= len(found.topics) <= 40
    assert time.process_time() - began < 20


def test_a_normal_call_uses_a_fraction_of_its_allowed_time() -> None:
    firms = [random_firm(390, seed) for seed in range(3)]
    find_topics(firms[0])
    began = time.process_time()
    for one in firms:
        find_topics(one)
    assert (time.process_time() - began) / len(firms) < 0.5  # seconds; 0.05 on an idle machine


SCRIPT = """
import pickle, sys
from worker.topics.discovery import find_topics
found = [find_topics(firm) for firm in pickle.load(sys.stdin.buffer)]
sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_results_do_not_depend_on_threads_hash_seed_or_processor() -> None:
    """Another process has another hash seed, an older processor's arithmetic, and two threads for it."""
    firms = [random_firm(rows, rows) for rows in (9, 40, 150, 390)]
    elsewhere = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=pickle.dumps(firms),
        env={**os.environ, "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
             "OPENBLAS_CORETYPE": "Nehalem"},
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    found = [find_topics(firm) for firm in firms]
    assert pickle.loads(elsewhere) == found  # noqa: S301
    assert len(found[3].topics) > 10


def test_remarks_of_transcribers_and_markup_are_not_words() -> None:
    text = "And thats what weve (technical difficulty): dont expect [inaudible] freight, its gonna rise indecipherable"
    (sentence,) = sentences([text])
    assert content_words(sentence) == ["freight", "rise"]


def test_two_letter_words_count_in_chinese_japanese_and_korean() -> None:
    (sentence,) = sentences(["葡萄 收成 减少 了 ワイン 売上 포도 수확 ab"])
    assert content_words(sentence) == ["葡萄", "收成", "减少", "ワイン", "売上", "포도", "수확"]


def test_a_topic_is_described_by_its_central_sentences() -> None:
    """A sentence that shares only a generic word with the others stays in the topic but is not shown to the LLM."""
    subjects = {
        "tax": "effective tax rate and deferred tax jurisdiction",
        "mine": "copper mine tonnage and ore grade",
        "shop": "apparel shoppers and footwear markdowns",
    }
    texts = [f"Our {words} moved by {n} points." for words in subjects.values() for n in range(14)]
    texts.insert(5, "The slaughter rate in cattle hurts everybody badly.")
    found = find_topics(firm(texts))
    assert len(found.topics) == len(subjects)
    assert not any("slaughter" in shown for topic in found.topics for shown in topic.shown)


def test_generic_words_come_after_specific_ones() -> None:
    texts = [f"Growth in the business of turbine blades and castings gained {n} points." for n in range(8)]
    (topic,) = find_topics(firm(texts)).topics
    assert not {"growth", "business"} & set(topic.keywords[:3])
