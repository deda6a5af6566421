"""`cli.py bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from commands.options import FILE, FOLDER, NETWORKS, PRECISIONS, network_of
from console.language import _

_SUITES = (
    "machine",
    "raster",
    "annotations",
    "preprocess",
    "stores",
    "verify",
    "loader",
    "convolutions",
    "stages",
    "model",
    "epoch",
)


@click.command(short_help="How fast is each stage, against its physical limit?")
@click.option("--coco", type=FOLDER, help="Measure on this dataset.  [default: drawn people]")
@click.option("--cache", type=FOLDER, help="Load from this cache.  [default: a temporary one]")
@click.option(
    "--suite",
    "suites",
    type=click.Choice(_SUITES),
    multiple=True,
    help="Which; may be repeated.  [default: all but convolutions]",
)
@click.option("--profile", default="auto", show_default=True, help="As in `train`: network, batch, side, precision.")
@click.option("--network", "network_name", type=NETWORKS, help="Which network.  [default: the profile's]")
@click.option("--width", type=int, help="Channels of its first level, a multiple of 8.  [default: the profile's]")
@click.option("--side", type=int, help="Side of the images, pixels.  [default: the cache's, else the profile's]")
@click.option("--batch-size", type=int, help="Images in a batch.  [default: the profile's]")
@click.option("--precision", type=PRECISIONS, help="Of the convolutions.  [default: the profile's]")
@click.option(
    "--compile/--no-compile", "compile", default=None, help="Whether to use torch.compile.  [default: the profile's]"
)
@click.option("--threads", default=0, show_default=True, help="CPU threads; 0 takes one a processor.")
@click.option(
    "--images", type=int, help="Images of an epoch, for the minutes.  [default: 45174, as in the guide's table]"
)
@click.option("--seconds", type=float, help="Time for each measurement.")
@click.option("--quick", is_flag=True, help="Fewer photos and shorter measurements: rough figures in two minutes.")
@click.option(
    "--peers", is_flag=True, help="Measure other libraries' loaders, too, on the same samples: a quarter of an hour."
)
@click.option(
    "--peers-folder",
    type=FOLDER,
    default=Path("data/peers"),
    show_default=True,
    help="Where their environments and datasets are kept, 20 GB.",
)
@click.option(
    "--compare",
    nargs=2,
    type=FILE,
    metavar="BEFORE AFTER",
    help="Measure nothing: compare two reports that --json wrote.",
)
@click.option(
    "--max-regression",
    type=float,
    metavar="PERCENT",
    help="With --compare: exit code 1 if a row got worse by more than this, and clear of the spread.",
)
@click.option("--json", "json_file", type=FILE, help="Write the report, or the comparison, to this file, too.")
@click.option("--markdown", "markdown_file", type=FILE, help="Write its tables to this file, too.")
@click.option("--html", "html_file", type=FILE, help="Write it as a page with charts to this file, too.")
@click.option("--plot", "plot_file", type=FILE, help="Draw minutes per epoch by hardware, a .png or .svg.")
def bench(
    network_name: str | None,
    width: int | None,
    suites: tuple[Any, ...],
    compare: tuple[Path, Path] | None,
    max_regression: float | None,
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    plot_file: Path | None,
    **given: Any,
) -> None:
    """Measure every stage on this machine, each beside what the hardware could do.

    Ends with the minutes of an epoch here, beside the figures that the guide promises for other hardware.
    """
    if compare:
        _compare(*compare, max_regression, json_file)
        return
    if max_regression is not None:
        raise click.UsageError(_("--max-regression needs --compare BEFORE AFTER"))
    from bench.config import BenchConfig
    from bench.suites import run_suites
    from console.bench import BenchPrinter, show_report
    from console.tier_chart import check_picture, draw_tiers
    from train.profiles import profile as find_profile

    if plot_file:
        check_picture(plot_file)
    values = {name: value for name, value in given.items() if value is not None}
    if network_name or width is not None:
        values["network"] = network_of(find_profile(given["profile"]).network, network_name, width)
    if suites:
        values["suites"] = suites
    report = run_suites(BenchConfig(**values), BenchPrinter())
    show_report(report)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        report.write(json_file)
        click.echo(_("📝 Report: {path}").format(path=json_file))
    if markdown_file:
        from console.markdown import markdown_tables

        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        markdown_file.write_text(markdown_tables(report))
        click.echo(_("📝 Tables: {path}").format(path=markdown_file))
    if html_file:
        from console.html import html_page

        html_file.parent.mkdir(parents=True, exist_ok=True)
        html_file.write_text(html_page(report), encoding="utf-8")
        click.echo(_("📝 Page: {path}").format(path=html_file))
    if plot_file:
        click.echo(_("🖼️  Picture: {path}").format(path=draw_tiers(report.rows, plot_file)))


def _compare(before: Path, after: Path, max_regression: float | None, json_file: Path | None) -> None:
    """Two reports instead of a measurement."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in ("compare", "max_regression", "json_file", "lang"):
            said = _("--compare measures nothing; leave out {option}")
            raise click.UsageError(said.format(option=parameter.opts[0]))
    from bench.compare import compare_files
    from console.compare import show_comparison

    comparison = compare_files(before, after, max_regression=max_regression)
    show_comparison(comparison)
    if json_file:
        comparison.write(json_file)
        click.echo(_("📝 Comparison: {path}").format(path=json_file))
    if comparison.regressions:
        sys.exit(1)
