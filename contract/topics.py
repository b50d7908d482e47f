"""One topic of one firm: a row of the Parquet parts."""

from typing import Literal

NamingMethod = Literal["llm", "keywords"]

TOPIC_COLUMNS = (
    "firm_id",
    "firm_name",
    "quarter",
    "permno",
    "gvkey",
    "earnings_call_date",
    "topic_id",
    "local_topic_id",
    "name",
    "summary",
    "naming_method",
    "model",
    "coherent",
    "keywords",
    "n_sentences",
    "share",
    "executive_share",
    "analyst_share",
    "prepared_share",
    "qa_share",
    "n_core",
    "n_attached",
    "sentence_ids",
    "sentence_cosines",
    "processed_at",
)

NAME_COLUMNS = (
    "firm_id",
    "firm_name",
    "quarter",
    "topic_id",
    "local_topic_id",
    "name",
    "summary",
    "naming_method",
    "model",
    "keywords",
    "sentence_ids",
)
"""The columns that a comparison of topic names needs."""


def topic_id(firm_id: str, quarter: str, local_topic_id: int) -> str:
    """The id of a firm's topic in a quarter, counted from 0: `AAPL_2021Q3_0`."""
    return f"{firm_id}_{quarter}_{local_topic_id}"
