"""A benchmark's report as a page that stands for itself: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from html import escape
from itertools import groupby

from bench.report import BenchReport
from console.bench import TITLES, conclusions
from console.html_bars import WORDS, bars, swatch
from console.html_style import STYLE
from console.html_tables import tables
from console.language import ENGLISH, speaking
from console.text import size
from console.tier_chart import tier_svg

_LIMITS = """<section id="limits">
<h2>Speed of light</h2>
<p>Each figure against what this machine could do at best, which was measured in the same run. A full bar is at the
limit, whether more is better (images a second) or less (minutes, megabytes). A limit is the speed of a plain way to do
the same, so it can be passed: an arrow says that the bar was cut off there.</p>
{key}
{bars}
</section>"""


def html_page(report: BenchReport) -> str:
    """The whole page, in English: machine, conclusions, figures against their limits, minutes per epoch, tables."""
    with speaking(ENGLISH):
        return _page(report)


def _page(report: BenchReport) -> str:
    machine = report.environment
    title = escape(f"{machine.processor}, {machine.cores} cores" + "".join(f", {gpu.name}" for gpu in machine.gpus))
    drawn, kinds = bars(report.rows), {row.kind for row in report.rows if row.limit is not None}
    key = "".join(f"<li>{swatch(kind)}{word}</li>" for kind, word in WORDS.items() if kind in kinds)
    limits = _LIMITS.format(key=f'<ul class="key">{key}</ul>', bars=drawn) if drawn else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmark: {title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="kicker">maskcache, benchmark</p>
<h1>{title}</h1>
{_facts(report)}
{_conclusions(report)}
{_contents(report, limits=bool(limits))}
</header>
<main>
{limits}
{_tiers(report)}
<section id="tables">
<h2>All figures</h2>
<p>The median of the runs; a tenth of them gave less than p10, a tenth more than p90.
An estimate has its range there.</p>
{tables(report.rows)}
</section>
</main>
<footer>Written by <code>cli.py bench --html</code>.</footer>
</body>
</html>
"""


def _facts(report: BenchReport) -> str:
    machine, config = report.environment, report.config
    features = f" ({', '.join(machine.features)})" if machine.features else ""
    driver = f"; driver {machine.driver}" if machine.driver else ""
    gpus = "; ".join(f"{gpu.name}, {size(gpu.memory)}, compute capability {gpu.capability}" for gpu in machine.gpus)
    network = config.get("network", {})
    setup = (
        f"profile {config['profile']}" if "profile" in config else "",
        f"{network['name']} {network['width']}" if network else "",
        *(f"{word} {config[name]}" for name, word in (("side", "side"), ("batch_size", "batch")) if name in config),
        config.get("precision", ""),
    )
    facts = {
        "Processor": f"{machine.processor}, {machine.cores} cores{features}",
        "Memory": f"{size(machine.memory_total)}, {size(machine.memory_free)} of it free",
        "GPU": f"{gpus}{driver}" if gpus else "none",
        "System": machine.system,
        "Versions": ", ".join(
            (f"Python {machine.python}", *(f"{name} {number}" for name, number in machine.versions.items()))
        ),
        "Setup": ", ".join(str(part) for part in setup if part),
    }
    lines = "\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text)
    return f'<dl class="facts">\n{lines}\n</dl>'


def _conclusions(report: BenchReport) -> str:
    lines = "\n".join(f"<p>{escape(line)}</p>" for line in conclusions(report))
    said = f'<section class="conclusions" aria-label="Conclusions">\n{lines}\n</section>' if lines else ""
    notes = "\n".join(f"<li>{escape(str(note))}</li>" for note in report.config.get("notes", ()))
    return said + (f'\n<ul class="notes">\n{notes}\n</ul>' if notes else "")


def _contents(report: BenchReport, *, limits: bool) -> str:
    suites = [suite for suite, _ in groupby(report.rows, key=lambda row: row.suite)]
    links = [("limits", "Speed of light")] if limits else []
    links += [("hardware", "Hardware compared")] if "tiers" in suites else []
    links += [(suite, TITLES.get(suite, suite).partition(":")[0].capitalize()) for suite in suites]
    items = "".join(f'<li><a href="#{escape(name)}">{escape(text)}</a></li>' for name, text in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _tiers(report: BenchReport) -> str:
    if not any(row.suite == "tiers" for row in report.rows):
        return ""
    return f"""<section id="hardware">
<h2>Hardware compared</h2>
<figure class="tiers">
{tier_svg(report.rows, narrow=False)}
{tier_svg(report.rows, narrow=True)}
</figure>
</section>"""
