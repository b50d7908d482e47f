"""The content check: good names are accepted, worthless ones rejected with the reason, and few errors are made."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import pytest

from tests.worker.labelled_names import TOPICS, Labelled
from worker.firm import Firm, FirmTopics, Sentence, Topic
from worker.naming.validation import Problem, read_answer
from worker.topics import text
from worker.vocabulary import stem

MAX_FALSE_REFUSALS = 0.02
MAX_BAD_NAMES = 0.05

LOOP = "Finance is a business that helps people to make money. It is a business that helps people to make money."


def check(
    topic: Labelled, name: str, summary: str = "", firm_id: str = "QBVN", firm_name: str = "Quillbrook, Inc."
) -> str:
    """The kind of the problem, or "" when the answer becomes a name."""
    found = words_of(tuple(topic.sentences), firm_id, firm_name)
    answer = json.dumps({"name": name, "summary": summary or topic.summary})
    result = read_answer(answer, Topic(topic.keywords, [], topic.sentences), firm_id, found)
    return str(result.kind) if isinstance(result, Problem) else ""


@cache
def words_of(sentences: tuple[str, ...], firm_id: str, firm_name: str) -> FirmTopics:
    rows = [Sentence(f"s{n}", said, said.lower(), position=n) for n, said in enumerate(sentences)]
    firm = Firm(firm_id, firm_name, None, None, None, rows)
    return FirmTopics(names=text.names(firm), call_words=text.call_words(firm))


def topic(subject: str) -> Labelled:
    return next(one for one in TOPICS if one.subject == subject)


def custom(keywords: str, *sentences: str) -> Labelled:
    return Labelled("", keywords.split(", "), list(sentences), "It is said.", [], [])


def test_few_good_names_are_rejected() -> None:
    refused = {name: kind for one in TOPICS for name in one.good if (kind := check(one, name))}
    assert len(refused) <= MAX_FALSE_REFUSALS * sum(len(one.good) for one in TOPICS), refused


def test_few_bad_names_are_accepted() -> None:
    passed = [(one.subject, name) for one in TOPICS for name in one.bad if not check(one, name)]
    assert len(passed) <= MAX_BAD_NAMES * sum(len(one.bad) for one in TOPICS), passed


def test_few_answers_about_another_topic_are_accepted() -> None:
    """Some of these answers are valid after all: a statement about restaurants may also fit hotels."""
    pairs = [(one, other) for one, other in product(TOPICS, TOPICS) if one is not other]
    passed = [
        (one.subject, other.good[0]) for one, other in pairs if not check(one, other.good[0], other.summary)
    ]  # fmt: skip
    assert len(passed) <= MAX_BAD_NAMES * len(pairs), passed


def test_few_names_of_another_topic_are_accepted_with_the_right_summary() -> None:
    pairs = [(one, other) for one, other in product(TOPICS, TOPICS) if one is not other]
    passed = [(one.subject, other.good[0]) for one, other in pairs if not check(one, other.good[0], one.summary)]
    assert len(passed) <= MAX_BAD_NAMES * len(pairs), passed


@pytest.mark.parametrize(
    "name",
    [
        "Finance and Business",
        "The Business Update",
        "The Company",
        "The company",
        "Finance",
        "Company Performance",
        "Company",
        "The Business",
        "Business Update",
        "Key Highlights",
        "Products and services",
        "Customer update",
        "Strategic growth initiatives",
        "Future outlook",
    ],
)
def test_a_name_that_fits_any_company_is_rejected(name: str) -> None:
    assert {check(one, name) for one in TOPICS} == {"vacuous"}


@pytest.mark.parametrize("name", ["Floating Fares", "Flying Fares", "cloud"])
def test_a_name_unrelated_to_the_topic_is_rejected(name: str) -> None:
    assert check(topic("solar"), name) == "unrelated"


@pytest.mark.parametrize("name", ["Bank of America", "AirAsia", "Airbus", "China's largest listed company", "A&T"])
def test_a_name_foreign_to_the_call_is_rejected(name: str) -> None:
    kinds = {check(one, name) for one in TOPICS if one.subject != "china"}
    assert kinds <= {"foreign_name", "unrelated", "vacuous"}


@pytest.mark.parametrize(
    ("summary", "kind"),
    [
        ("Wages rose at Deutsche Bank as open positions took longer to fill.", "foreign_name"),
        ("Wages and overtime rose in the U.S. in January, as EBITDA and R&D show.", ""),
        (LOOP, "looping_summary"),
        ("The company talks about the company. " * 4, "looping_summary"),
        ("工资上涨了。" * 5, "looping_summary"),
        ("Sales of eggs, butter and cheese grew in Belgian supermarkets.", "foreign_name"),
        ("Sales of eggs, butter and cheese grew in supermarkets.", "unrelated"),
    ],
)
def test_a_summary_is_checked_too(summary: str, kind: str) -> None:
    assert check(topic("labor"), "Labor cost inflation", summary) == kind


def test_an_example_from_the_prompt_is_accepted_only_if_it_fits() -> None:
    kinds = {one.subject: check(one, "Foreign exchange headwinds") for one in TOPICS}
    assert kinds["currency"] == ""
    assert {kinds["labor"], kinds["retail"], kinds["hotel"]} == {"copied_example"}


def test_a_phrase_made_of_keywords_is_accepted() -> None:
    lending = custom(
        "basis, compression, margin, net, income, interest",
        "Loan growth increased net interest income.",
        "We still expect margin compression of a few basis points.",
        "Core margin fell with low rates.",
    )
    assert check(lending, "Net interest margin compression") == ""
    utility = custom(
        "utility, investment, capital, plan", "The utility invests $1 billion.", "Our capital plan is funded by debt."
    )
    assert check(utility, "Utility capital investment plan") == ""
    assert check(utility, "Capital, plan, investment") == "keyword_list"


def test_a_common_word_of_the_firms_name_may_be_used_in_lower_case() -> None:
    stores = custom(
        "online, footwear, customers",
        "Dick's Sporting Goods grows online, and Sporting Goods stores sell footwear online.",
        "Customers who shop online also shop in the store.",
    )
    own = {"firm_id": "DKS", "firm_name": "DICK'S Sporting Goods, Inc."}
    assert check(stores, "E-commerce push in sporting goods", **own) == ""
    assert check(stores, "Sporting goods sold online", **own) == ""
    assert check(stores, "Online growth at Sporting Goods", **own) == "firm_name"


def test_languages_other_than_english_are_not_judged_by_english_words() -> None:
    german = custom("rohöl, preise", "Die Preise für Rohöl sind gefallen.", "Wir bohren das zweite Feld nicht mehr.")
    assert check(german, "Preise für Rohöl") == ""
    assert check(german, "Crude oil prices") == ""
    grapes = custom("葡萄, 收成", "霜冻使葡萄收成减少。", "葡萄酒装满了酒窖。")
    assert check(grapes, "葡萄收成减少", "霜冻使葡萄的收成减少。") == ""
    assert check(grapes, "霜冻对葡萄园的影响", "霜冻使葡萄的收成减少。") == ""
    assert check(grapes, "渡轮航班取消", "风暴取消了渡轮的航班。") == "unrelated"


@pytest.mark.parametrize(
    "name",
    [
        "公司业绩",
        "业务更新",
        "公司的财务状况",
        "主要业务发展情况",
        "会社の業績",
        "사업 현황",
        "Geschäftsentwicklung",
        "Überblick über das Unternehmen",
        "Résultats de l'entreprise",
        "Mise à jour",
        "Resultados de la empresa",
    ],
)
def test_a_vacuous_name_is_refused_in_other_languages_too(name: str) -> None:
    grapes = custom("葡萄, 收成", "霜冻使葡萄收成减少。", "葡萄酒装满了酒窖。")
    assert check(grapes, name, "霜冻使葡萄的收成减少。") == "vacuous"


def test_a_rejection_says_what_is_wrong() -> None:
    one = topic("solar")
    result = read_answer(
        json.dumps({"name": "Business update", "summary": one.summary}),
        Topic(one.keywords, [], one.sentences),
        "QBVN",
        FirmTopics(),
    )
    assert isinstance(result, Problem)
    assert result.sentence == (
        "the name 'Business update' would fit any company; name what most of the sentences share"
    )


def test_words_are_stemmed_in_several_threads_at_once() -> None:
    """A checkpoint is made in a thread while answers are read."""
    words = ["".join(letters) + "ations" for letters in product("abcdefghij", "aeiou", "bcdfghj")]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            stems = list(threads.map(stem, words))
    finally:
        sys.setswitchinterval(interval)
    assert stems == [word.removesuffix("ions") for word in words]
