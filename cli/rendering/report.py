"""The report of a run as one HTML page that needs no network: plotly's script and all data are in it."""

from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any

from cli.errors import UsageError
from cli.output import count
from cli.rendering.cost import dollars
from cli.rendering.runs import duration, share
from cli.services.report import RunReport, Themes, Work
from cli.services.themes import Theme

_COLOURS = {"complete": "#2a7f62", "failed": "#b3261e", "running": "#7a7a7a"}

_THEMES_IN_CHART = 12

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ text-align: left; padding: .25em 1em .25em 0; border-bottom: 1px solid #ddd; vertical-align: top; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
details {{ margin: .25em 0; }}
summary {{ cursor: pointer; }}
.failed {{ color: #b3261e; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def to_html(found: RunReport) -> str:
    """The page.

    Raises:
        UsageError: when plotly is not installed.
    """
    report = found.report
    title = f"ftm: {report['quarter']}, run {report['run']}"
    charts = _Charts()
    parts = [
        _summary(found),
        _section("Time line of the batches", charts.time_line(found.work)),
        _section("Failed batches", _failures(found)) if report["failures"] else "",
        _section("Why topics keep their keywords", _fallbacks(found)),
        _section("Topics per firm", charts.histogram(found.topics_per_firm)),
        _section("Names that most firms share", charts.bars(found.names, "firms")),
        _section("Most frequent keywords", charts.bars(found.keywords, "topics")),
        *_theme_sections(found.themes, charts),
        _section("Firms", _firms(found)),
    ]
    return _PAGE.format(title=escape(title), body="\n".join(filter(None, parts)))


class _Charts:
    """Plotly's charts as HTML; the first one carries the script."""

    def __init__(self) -> None:
        try:
            self._plotly: Any = import_module("plotly.graph_objects")
        except ImportError as error:
            raise UsageError("the report needs plotly: pip install -e '.[report]'") from error
        self._has_script = False

    def time_line(self, work: Sequence[Work]) -> str:
        """A bar per batch, from its first attempt to its last checkpoint."""
        if not work:
            return ""
        bars = self._plotly.Bar(
            orientation="h",
            y=[one.batch_id for one in work],
            base=[one.started_at for one in work],
            x=[(one.ended_at - one.started_at).total_seconds() * 1000 for one in work],
            marker_color=[_COLOURS.get(one.state, "#7a7a7a") for one in work],
            text=[f"{one.attempts} attempts" if one.attempts > 1 else "" for one in work],
        )
        figure = self._plotly.Figure(bars)
        figure.update_xaxes(type="date")
        figure.update_yaxes(autorange="reversed", type="category")
        return self._html(figure, height=120 + 22 * len(work))

    def histogram(self, values: Sequence[int]) -> str:
        if not values:
            return ""
        bins = {"start": -0.5, "size": 1}  # one bar for each whole number
        figure = self._plotly.Figure(self._plotly.Histogram(x=list(values), xbins=bins, marker_color="#3b6ea5"))
        figure.update_xaxes(title="topics", dtick=1)
        figure.update_layout(bargap=0.1)
        figure.update_yaxes(title="firms")
        return self._html(figure, height=320)

    def bars(self, counts: Sequence[tuple[str, int]], unit: str) -> str:
        if not counts:
            return ""
        names, numbers = zip(*counts, strict=True)
        figure = self._plotly.Figure(
            self._plotly.Bar(orientation="h", y=[escape(name) for name in names], x=numbers, marker_color="#3b6ea5")
        )
        figure.update_yaxes(autorange="reversed", type="category")
        figure.update_xaxes(title=unit)
        return self._html(figure, height=120 + 22 * len(counts))

    def shares(self, themes: Sequence[Theme], quarters: Sequence[str]) -> str:
        """A line per theme over the quarters; of one quarter, a bar per theme."""
        if len(quarters) == 1:
            bars = self._plotly.Bar(
                orientation="h",
                y=[escape(theme["name"]) for theme in themes],
                x=[theme["share"][quarters[0]] for theme in themes],
                marker_color="#3b6ea5",
            )
            figure = self._plotly.Figure(bars)
            figure.update_yaxes(autorange="reversed", type="category")
            figure.update_xaxes(tickformat=".1%")
            return self._html(figure, height=120 + 22 * len(themes))
        figure = self._plotly.Figure(
            [
                self._plotly.Scatter(
                    x=list(quarters), y=[theme["share"][each] for each in quarters], name=escape(theme["name"])
                )
                for theme in themes
            ]
        )
        figure.update_yaxes(title="share of the sentences of all topics", tickformat=".1%", rangemode="tozero")
        figure.update_xaxes(type="category")
        return self._html(figure, height=480)

    def _html(self, figure: Any, height: int) -> str:
        figure.update_layout(height=height, margin={"l": 10, "r": 10, "t": 10, "b": 40}, template="plotly_white")
        figure.update_yaxes(automargin=True)
        script, self._has_script = not self._has_script, True
        return figure.to_html(full_html=False, include_plotlyjs=script, config={"displayModeBar": False})


def _summary(found: RunReport) -> str:
    report = found.report
    batches, firms, topics, tokens = report["batches"], report["firms"], report["topics"], report["tokens"]
    rows = [
        ("Status", f"{report['status']} in {duration(report['seconds'])}"),
        ("Model", ", ".join(found.models) or "none"),
        ("Batches", f"{batches['succeeded']:,} of {batches['total']:,} succeeded"),
        ("Firms", f"{firms['completed']:,} completed, {firms['skipped']:,} skipped, {firms['failed']:,} failed"),
        ("Topics", f"{topics['total']:,}, {share(topics['named'], topics['total'])} named by the LLM"),
        (
            "Tokens",
            f"{tokens['prompt']:,} prompt ({share(tokens['cached'], tokens['prompt'])} cached), "
            f"{tokens['completion']:,} completion",
        ),
    ]
    if spent := found.spent:
        rows.append(("Cost", f"{dollars(spent['dollars'])}; ${spent['hosted_dollars']:.2f} at the hosted API"))
        rows += [("", text) for text in spent["assumptions"]]
    message = f'<p class="failed">{escape(report["message"])}</p>' if report["message"] else ""
    return message + _table((), rows)


def _failures(found: RunReport) -> str:
    rows = [(failure["batch_id"], failure["reason"]) for failure in found.report["failures"]]
    return _table(("batch", "reason"), rows)


def _fallbacks(found: RunReport) -> str:
    if not found.fallbacks:
        return "<p>All topics were named by the LLM.</p>"
    rows = [(item["reason"].replace("_", " "), f"{item['topics']:,}", item["example"]) for item in found.fallbacks]
    return _table(("reason", "topics", "example"), rows)


def _theme_sections(found: Themes | None, charts: _Charts) -> list[str]:
    if found is None:
        return []
    largest = sorted(found.themes, key=lambda theme: -theme["share"][found.quarters[-1]])[:_THEMES_IN_CHART]
    sections = [_section(f"Themes of {found.range}: the largest", charts.shares(largest, found.quarters))]
    if len(found.quarters) > 1:
        before, last = found.quarters[-2:]
        sections += [
            _section(f"Themes that are new in {last}", _theme_table(found.new, last)),
            _section(f"Themes that have vanished since {before}", _theme_table(found.vanished, before)),
        ]
    return sections


def _theme_table(themes: Sequence[Theme], quarter: str) -> str:
    if not themes:
        return "<p>None.</p>"
    rows = [
        (theme["name"], f"{theme['share'][quarter]:.2%}", f"{theme['n_firms']:,}", ", ".join(theme["keywords"][:6]))
        for theme in themes
    ]
    return _table(("theme", f"share in {quarter}", "firms", "keywords"), rows)


def _firms(found: RunReport) -> str:
    """A section per firm, which opens on a click."""
    parts = [
        f'<details id="firm-{escape(firm.firm_id)}"><summary>{escape(firm.firm_id)}, {escape(firm.firm_name)}: '
        f"{count(len(firm.topics), 'topic')}</summary>\n"
        + _table(
            ("topic", "sentences", "theme", "summary"),
            [(topic.name, f"{topic.sentences:,}", topic.theme, topic.summary) for topic in firm.topics],
        )
        + "</details>"
        for firm in found.firms
    ]
    if found.without_topics:
        rows = [(each["firm_id"], each["outcome"], each["reason"]) for each in found.without_topics]
        parts.append(f"<h3>Firms without topics</h3>\n{_table(('firm', 'outcome', 'reason'), rows)}")
    return "\n".join(parts)


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + (f"<tr>{head}</tr>" if head else "") + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
