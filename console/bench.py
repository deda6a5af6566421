"""What `bench` prints: each figure beside its limit, and what follows from them."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from bench.report import times_name
from bench.suites.epoch import LOADER, MINUTES, STEP, WAIT
from bench.suites.loader import times_plain, variant_name
from bench.suites.stages import AUGMENT, BACKWARD, COPY, DECODE, FORWARD, READ, UPDATE
from cache.messages import joined, message
from console.language import _, translated
from console.progress import LogPrinter
from console.text import duration, figure, standard_output, tell

if TYPE_CHECKING:
    from rich.table import Table

    from bench.report import BenchReport, Row
    from cache.choices import Suite

TITLES = {
    "machine": message("MACHINE: what it could do at best"),
    "raster": message("RASTER: polygons to planes"),
    "annotations": message("ANNOTATIONS: JSON to flat arrays"),
    "preprocess": message("PREPROCESS: photos to a cache"),
    "stores": message("STORES: records to disk and back"),
    "verify": message("VERIFY: a cache against its checksums"),
    "loader": message("LOADER: a cache to batches"),
    "stages": message("STAGES: all of the way, each part alone"),
    "model": message("MODEL: the network alone, on random data"),
    "epoch": message("EPOCH: loader and network together"),
    "start": message("START: the first result of each command"),
    "tiers": message("TIERS: minutes per epoch of 45,174 images"),
}
_COMPARISONS = (
    (
        "raster",
        times_name("planes", "pycocotools"),
        message("Masks are drawn {times} times as fast as by pycocotools."),
    ),
    (
        "loader",
        times_plain(variant_name("native", "none")),
        message("Batches come {times} times as fast as from a DataLoader that makes them anew."),
    ),
)
"""Suite, row and conclusion; they are printed when no epoch was measured."""

UNITS = (message("images/s"), message("samples/s"), message("annotations/s"), message("times"), message("pixels"))
"""The units of rows that are words, and so are translated."""

LESS_IS_BETTER = ("s", "min", "MB")
"""Units in which the limit is the lowest possible value, not the highest."""

TIERS_NOTE = message(
    "est.: nobody has measured it, see `estimate`. The guide promises; its U-Net's width it does not say."
)


class BenchPrinter:
    """Prints on standard error which suite is measured, and what takes long in it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        log = logging.getLogger("bench")
        if not log.handlers:
            log.addHandler(LogPrinter())
            log.setLevel(logging.INFO)

    def __call__(self, suite: Suite, number: int, total: int) -> None:
        """Print the title of a suite that begins."""
        values = {"suite": TITLES[suite], "time": duration(time.monotonic() - self._start)}
        tell(_("⏱️  {number}/{total} {suite} (after {time})", number=number, total=total, **values))


def show_report(report: BenchReport) -> None:
    """Print the tables and, last, what follows from them."""
    out = standard_output()
    values = {**vars(report.environment), "gpus": "".join(f", {gpu.name}" for gpu in report.environment.gpus)}
    out.print(_("=== BENCHMARK: {processor}, {cores} cores{gpus} ===", **values), style="bold")
    for note in report.config.get("notes", ()):
        out.print(_note(note))
    for suite, rows in grouped(report.rows, "suite"):
        out.print(suite_line(suite), style="bold")
        if suite == "tiers":
            out.print(_tier_table(rows))
            out.print(_note(TIERS_NOTE), style="dim")
            continue
        for number, (setup, group) in enumerate(grouped(rows, "setup")):
            out.print(f"   {translated(setup)}", style="dim")
            out.print(_table(group, header=number == 0))
            for note in dict.fromkeys(row.note for row in group if row.note):
                out.print(_note(note), style="dim")
    out.print()
    for line in conclusions(report):
        out.print(_("➡️  {line}", line=line), style="bold")


def grouped(rows: Iterable[Any], field: str) -> list[tuple[str, list[Any]]]:
    """Consecutive rows that have the same value in a field, such as `suite` or `setup`, with that value."""
    return [(value, list(group)) for value, group in itertools.groupby(rows, key=attrgetter(field))]


def suite_line(suite: str) -> str:
    """The title above a suite's tables."""
    return "\n" + _("📊 {suite}", suite=TITLES.get(suite, suite))


def _note(note: str) -> str:
    return _("   Note: {note}", note=translated(note))


def conclusions(report: BenchReport) -> list[str]:
    """What follows from the figures, in a sentence or two; nothing about what was not measured."""
    minutes, wait = report.find("epoch", MINUTES), report.find("epoch", WAIT)
    lines = _bottleneck(report)
    if minutes and wait:
        network, how = report.config["network"], _("; extrapolated") if "extrapolated" in minutes.note else ""
        values = {"network": network["name"], "width": network["width"], "time": duration(60 * minutes.value)}
        template = message(
            "An epoch of {images:,} images takes about {time} here ({network} {width}, side {side}, "
            "batch {batch_size}{how}), {wait:.1f}% of it waiting for data."
        )
        lines.append(_(template, **{**report.config, **values, "how": how, "wait": wait.value}))
    for suite, name, sentence in _COMPARISONS:
        row = report.find(suite, name)
        if row and not minutes:
            lines.append(_(sentence, times=figure(row.value)))
    return lines


def _bottleneck(report: BenchReport) -> list[str]:
    """Whether loader or network is slower, by the suite `epoch`, else by the stages; and which stages cause it."""
    found = [report.find("epoch", name) for name in (LOADER, STEP)]
    loader, step = (row.value if row else 0.0 for row in found)
    stages = {row.name: row.value for row in report.rows if row.suite == "stages"}
    parts = {name: 1 / stages[name] for name in (FORWARD, BACKWARD, UPDATE) if name in stages}
    template = message("The network is the bottleneck: the loader alone could feed {times} of these{more}.")
    if not all(found) and parts and AUGMENT in stages:
        loader, step = stages[AUGMENT], 1 / sum(parts.values())
        template = message("The network is the bottleneck: augmenting alone could feed {times} of these{more}.")
    if not loader or not step:
        return []
    if loader < step:
        slow = [name for name in (READ, DECODE, COPY, AUGMENT) if stages.get(name, step) < step]
        more = _("; slower even alone: {stages}", stages=joined(", ", slow)) if slow else ""
        template = message(
            "The loader is the bottleneck: the network alone could take {times} times as many images{more}."
        )
        return [_(template, times=figure(step / loader), more=more)]
    more = ""
    if parts:
        slowest = max(parts, key=parts.__getitem__)
        share = 100 * parts[slowest] / sum(parts.values())
        more = _("; {stage} takes {share:.0f}% of a step", stage=slowest, share=share)
    return [_(template, times=figure(loader / step), more=more)]


def _table(rows: list[Row], *, header: bool) -> Table:
    """Rows of one setup. Widths are fixed, so that the tables of a suite stand below each other."""
    table = bare_table(
        (_("what"), 31, "left"),
        (_("median"), 16, "right"),
        (_("p10 to p90"), 15, "right"),
        (_("limit"), 23, "left"),
        (_("of it"), 7, "right"),
        header=header,
    )
    for row in rows:
        limit = f"{figure(row.limit)} {translated(row.limit_name)}" if row.limit is not None else ""
        table.add_row(translated(row.name), value_text(row), spread_text(row), limit, ratio_text(row))
    return table


def _tier_table(rows: list[Row]) -> Table:
    """The promise is a column; what is measured stands out."""
    promised = {row.name: f"~{row.value:g}" for row in rows if row.kind == "guide"}
    table = bare_table(
        (_("profile"), 8, "left"),
        (_("model, side, batch, where"), 39, "left"),
        (_("minutes"), 9, "right"),
        (_("range"), 9, "right"),
        (_("guide"), 5, "right"),
        (_("how known"), 22, "left"),
    )
    for row in rows:
        if row.kind == "guide":
            continue
        profile = row.name.partition(",")[0]  # what follows is the network, or the file, which `how` tells
        how, value, style = translated(row.note), _("est. {value}", value=figure(row.value)), "dim"
        if row.kind == "measured":
            how, value, style = _("measured, {note}", note=how), figure(row.value), "green"
        cells = (translated(row.setup), value, spread_text(row), promised.get(profile, ""), how)
        table.add_row(profile, *cells, style=style)
    return table


def bare_table(*columns: tuple[str, int, Literal["left", "right"]], header: bool = True) -> Table:
    """An empty table without lines, of columns with a title, a width and a side to which they are aligned."""
    from rich.table import Table

    table = Table(box=None, show_header=header, header_style="underline", padding=(0, 0, 0, 1), pad_edge=True)
    for title, width, side in columns:
        table.add_column(title, width=width, justify=side)
    return table


def value_text(row: Row) -> str:
    """A median with its unit, marked unless it was measured: `10.0 s`, `~8 min`, `est. 7.42 min`; or nothing."""
    if row.kind == "failed":
        return ""
    if row.kind == "guide":
        return f"~{row.value:g} {_(row.unit)}"
    value = f"{figure(row.value)} {_(row.unit)}"
    return _("est. {value}", value=value) if row.kind == "estimated" else value


def spread_text(row: Row) -> str:
    """From p10 to p90; empty where there was no run."""
    return f"{figure(row.p10)}–{figure(row.p90)}" if row.p10 is not None and row.p90 is not None else ""


def percent(share: float) -> str:
    """`46 %`; below ten `4.6 %`, below one `0.46 %`."""
    if share >= 10:
        return "> 999 %"
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def ratio_text(row: Row) -> str:
    """Value / limit: a percentage, or a factor where the limit is the lowest possible value."""
    if row.ratio is None:
        return ""
    return f"{row.ratio:.2f}×" if row.unit in LESS_IS_BETTER else percent(row.ratio)
