"""A benchmark's report as Markdown tables, for pages that people read."""

from __future__ import annotations

from bench.report import BenchReport, Row
from console.bench import TITLES, grouped
from console.text import figure

HEAD = "| what | median | p10 to p90 | limit | of it |\n| --- | ---: | ---: | --- | ---: |"


def markdown_tables(report: BenchReport) -> str:
    """One table a suite and setup, each figure beside its limit; the tiers are left out."""
    machine = report.environment
    gpus = "".join(f", {gpu.name}" for gpu in machine.gpus)
    features = f" ({', '.join(machine.features)})" if machine.features else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines = [f"{machine.processor}, {machine.cores} cores{features}{gpus}; {machine.system}; {versions}."]
    for suite, rows in grouped((row for row in report.rows if row.suite != "tiers"), "suite"):
        lines += ["", f"### {TITLES[suite]}"]
        for setup, group in grouped(rows, "setup"):
            lines += ["", f"{setup}:", "", HEAD, *(_line(row) for row in group)]
            notes = dict.fromkeys(f"*{row.name}*: {row.note}." for row in group if row.note)
            lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    spread = f"{figure(row.p10)} to {figure(row.p90)}" if row.p10 is not None and row.p90 is not None else ""
    limit = f"{figure(row.limit)} {row.limit_name}" if row.limit is not None else ""
    ratio = f"{100 * row.ratio:.3g} %" if row.ratio is not None else ""
    return f"| {row.name} | {figure(row.value)} {row.unit} | {spread} | {limit} | {ratio} |"
