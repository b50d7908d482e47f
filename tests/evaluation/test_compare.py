"""`evaluation.compare`: which topics are the same, how similar their names are, and which names identify the firm."""

import pytest

from evaluation import compare
from evaluation.topic_names import NamedTopic, TopicNames

QUARTER = "2023Q1"


def topic(
    name: str, summary: str = "What is said.", firm_name: str = "Acme", firm: str = "ACME", number: int = 0
) -> NamedTopic:
    sentences = frozenset({f"{firm}-{number}"})
    return NamedTopic(firm, firm_name, f"{firm}_{number}", name, summary, is_fallback=False, sentence_ids=sentences)


@pytest.mark.parametrize(
    ("firm_name", "name", "summary", "generalisable"),
    [
        ("The Toro Company", "Mower Demand", "The company says the outlook is good.", True),
        ("The Toro Company", "Toro Mower Demand", "", False),
        ("THE TORO COMPANY", "Mower Demand", "Sales at Toro rise.", False),
        ("The Gap, Inc.", "Margins", "The gap to its peers narrows.", True),
        ("The Gap, Inc.", "Margins", "Sales at Gap fall.", False),
        ("American Eagle Outfitters, Inc.", "North American Market", "Americans buy more.", True),
        ("American Eagle Outfitters, Inc.", "American Eagle Stores", "", False),
        ("Global Payments Inc.", "Global Demand", "", True),
        ("United States Steel Corporation", "Demand in the United States", "", True),
        ("AT&T Inc.", "Wireless Growth", "AT&T adds subscribers.", False),
        ("O'Reilly Automotive, Inc.", "Store Growth", "O'Reilly opens stores.", False),
        ("", "Store Growth", "", True),
    ],
)
def test_a_name_that_identifies_the_firm_is_not_generalisable(
    firm_name: str, name: str, summary: str, generalisable: bool
) -> None:
    names = TopicNames("run", [], [topic(name, summary, firm_name)])

    assert compare.quality(names)["generalisable"] == generalisable


def test_sampled_pairs_are_not_the_first_in_the_alphabet() -> None:
    firms = [f"F{number:03}" for number in range(200)]
    a, b = (TopicNames(name, [], [topic(name, firm=firm) for firm in firms]) for name in ("Margins", "Currency"))

    result, differing = compare.compare(QUARTER, a, b, show=10)
    shown = [pair["firm_id"] for pair in result["differ_most"]]
    judged = [match.a.firm_id for match in compare.sample(QUARTER, differing, 50)]

    assert result["differing"] == 200
    assert max(shown) > "F100"
    assert min(judged) < "F020"
    assert max(judged) > "F180"
    assert len(set(judged)) == 50
    assert judged == [match.a.firm_id for match in compare.sample(QUARTER, differing, 50)]


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("Gross margin expansion", "Expansion of gross margins", 1),
        ("Gross margin expansion", "Currency headwinds", 0),
        ("Store openings", "New store openings", 0.8),
        ("Product prices", "Pricing of products", 1),
        ("Currencies", "Currency", 1),
        ("Interest", "Interim", 0),
        ("Internal", "International", 0),
        ("Product", "Production", 0),
        ("Transaction", "Transportation", 0),
    ],
)
def test_names_are_compared_by_their_words(first: str, second: str, similarity: float) -> None:
    assert compare.word_similarity(first, second) == similarity
