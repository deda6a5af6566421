"""A benchmark's report in English: Markdown tables, and a self-contained HTML page, both by `templates/`."""

from __future__ import annotations

import math

from bench.report import BenchReport, Kind, Row
from console.bench import LESS_IS_BETTER, TITLES, conclusions, grouped, percent, ratio_text, spread_text, value_text
from console.bench_chart import by_profile, tier_svg
from console.language import ENGLISH, speaking
from console.render import template
from console.text import figure, size

KINDS: dict[Kind, str] = {
    "measured": "measured",
    "estimated": "est.",
    "guide": "promised, not measured",
    "failed": "failed",
}


def html_page(report: BenchReport) -> str:
    """Render a page without scripts, and without fonts or pictures from other sites.

    It has the machine, the conclusions, the figures beside their limits, the chart of minutes per epoch, and a table
    for each suite.
    """
    limited = [row for row in report.rows if row.limit is not None]
    limited.sort(key=lambda row: row.suite != "stages")  # the suite that shows the whole way of a sample comes first
    with speaking(ENGLISH):
        return template("bench.html.j2", *_FUNCTIONS).render(
            report=report,
            conclusions=conclusions(report),
            suites=grouped(report.rows, "suite"),
            titles=TITLES,
            kinds=KINDS,
            limits=grouped(limited, "suite"),
            limited_kinds={row.kind for row in limited},
            chart=tier_svg(report.rows) if any(row.suite == "tiers" for row in report.rows) else "",
        )


def share_of_limit(row: Row) -> float | None:
    """The share of the possible speed that a row reaches, 1 at the limit; None without a limit."""
    if row.limit is None or row.unit not in LESS_IS_BETTER:
        return row.ratio
    return row.limit / row.value if row.value else math.inf


_FUNCTIONS = (by_profile, figure, grouped, percent, ratio_text, share_of_limit, size, spread_text, value_text)
"""What the templates call."""


def markdown_tables(report: BenchReport) -> str:
    """A table for each suite and setup, each figure beside its limit; the tiers are left out."""
    return template("bench.md.j2", *_FUNCTIONS).render(
        machine=report.environment,
        suites=grouped((row for row in report.rows if row.suite != "tiers"), "suite"),
        titles=TITLES,
    )
