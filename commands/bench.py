"""`cli.py bench`."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cache.choices import Suite
from cache.messages import message
from commands import options
from commands.options import FILE, FOLDER, group, option
from console.language import _


@click.command(
    cls=options.GroupedCommand,
    short_help=message("Measure each stage beside its physical limit."),
    help=message(
        "Measure every stage on this machine, each beside what the hardware could do.\n\n"
        "The last table gives the minutes of an epoch here, beside the figures for other hardware."
    ),
)
@options.dataset(
    message("Measurements"), option("--coco", "Measure on this dataset.  [default: drawn people]", type=options.DATASET)
)
@group(
    message("Measurements"),
    options.category,
    option("--suite", "Run this suite; may be repeated.  [default: all]", "suites", type=Suite, multiple=True),
    option("--cache", "Load from this cache.  [default: a temporary one]", type=FOLDER),
    option("--images", "Count this many images in an epoch.", default=45174),
    option(
        "--seconds", "Take about this many seconds for each measurement.  [default: 2; with --quick: 0.4]", type=float
    ),
    option("--quick", "Use fewer photos and less time: rough figures in two minutes.", is_flag=True),
    options.threads,
    option("--peers", "Measure other libraries' loaders on the same samples, too, in half an hour.", is_flag=True),
    option("--peers-folder", "Keep what --peers needs in this folder, 30 GB.", type=FOLDER, default=Path("data/peers")),
)
@group(
    message("Network"),
    option("--profile", "Take the values of this profile, as in `train`.", default="auto"),
    options.network,
    option("--side", "Use square images of this side.  [default: the cache's, else the profile's]", type=int),
    options.batch_size,
    options.precision,
    options.compiled,
)
@group(
    message("Reports"),
    option("--json", "Write the report or the comparison to this file, too.", "json_file", type=FILE),
    option("--markdown", "Write the tables to this file, too.", "markdown_file", type=FILE),
    option("--html", "Write a page with charts to this file, too.", "html_file", type=FILE),
    option(
        "--compare", "Only compare two reports that --json wrote.", nargs=2, type=FILE, metavar=message("BEFORE AFTER")
    ),
    option(
        "--max-regression",
        "With --compare, exit with 1 if a row got worse by more than this and by more than the spread.",
        type=float,
        metavar=message("PERCENT"),
    ),
)
def bench(
    compare: tuple[Path, Path] | None,
    max_regression: float | None,
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    **given: Any,
) -> None:
    if compare:
        _compare(*compare, max_regression, json_file)
        return
    if max_regression is not None:
        raise click.UsageError(_("--max-regression needs --compare BEFORE AFTER"))
    from bench.config import BenchConfig
    from bench.report import write_json
    from bench.run import run_suites
    from console.bench import BenchPrinter, show_report
    from console.html import html_page, markdown_tables
    from train.profiles import profile as find_profile

    changes = {name: value for name, value in options.taken(given, "network_").items() if value is not None}
    values = {name: value for name, value in given.items() if value not in (None, ())}
    if changes:
        values["network"] = dataclasses.replace(find_profile(given["profile"]).network, **changes)
    keep = partial(write_json, json_file) if json_file else lambda report: None
    report = run_suites(BenchConfig(**values), BenchPrinter(), keep)
    show_report(report)
    for path in filter(None, (markdown_file, html_file)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if json_file:
        click.echo(_("📝 Report: {path}", path=json_file))
    if markdown_file:
        markdown_file.write_text(markdown_tables(report))
        click.echo(_("📝 Tables: {path}", path=markdown_file))
    if html_file:
        html_file.write_text(html_page(report), encoding="utf-8")
        click.echo(_("📝 Page: {path}", path=html_file))
    if any(row.kind == "failed" for row in report.rows):
        sys.exit(1)


def _compare(before: Path, after: Path, max_regression: float | None, json_file: Path | None) -> None:
    """Compare two reports instead of measuring."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in ("compare", "max_regression", "json_file", "lang"):
            raise click.UsageError(_("--compare measures nothing; leave out {option}", option=parameter.opts[0]))
    from bench.compare import compare_files
    from bench.report import write_json
    from console.compare import show_comparison

    comparison = compare_files(before, after, max_regression=max_regression)
    show_comparison(comparison)
    if json_file:
        write_json(json_file, comparison)
        click.echo(_("📝 Comparison: {path}", path=json_file))
    if comparison.regressions:
        sys.exit(1)
