"""What `bench` says: each figure beside its limit, and what follows from them."""

from __future__ import annotations

import logging
import sys
import time
from itertools import groupby
from typing import TYPE_CHECKING

from bench.epoch_suite import LOADER, MINUTES, STEP, WAIT
from bench.loader_suite import NATIVE
from bench.loader_suite import TIMES as LOADER_TIMES
from bench.raster_suite import TIMES as RASTER_TIMES
from bench.stage_suite import AUGMENT, BACKWARD, COPY, DECODE, FORWARD, READ, UPDATE
from console.text import duration, figure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.config import Suite
    from bench.report import BenchReport, Row

WIDTH = 100
"""Columns where there is no terminal that says how many it has."""

TITLES = {
    "machine": "MACHINE: what it could do at best",
    "raster": "RASTER: polygons to planes",
    "annotations": "ANNOTATIONS: JSON to flat arrays",
    "preprocess": "PREPROCESS: photos to a cache",
    "stores": "STORES: records to disk and back",
    "verify": "VERIFY: a cache against its checksums",
    "loader": "LOADER: a cache to batches",
    "convolutions": "CONVOLUTIONS: each shape of the network, on its own",
    "stages": "STAGES: all of the way, each part alone",
    "model": "MODEL: the network alone, on random data",
    "epoch": "EPOCH: loader and network together",
    "tiers": "TIERS: minutes per epoch of 45,174 images",
}
_COMPARISONS = (
    ("raster", RASTER_TIMES.format("bytes"), "Masks are drawn {} times as fast as by pycocotools."),
    ("loader", LOADER_TIMES.format(NATIVE), "Batches come {} times as fast as from a DataLoader that makes them anew."),
)
"""Said when no epoch was measured."""

TIERS_NOTE = "est.: nobody has measured it, see `estimate`. The guide promises; its U-Net's width it does not say."


class BenchPrinter:
    """A `bench.suites.Listener` that says on standard error which suite is being measured."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        _show_steps()

    def on_suite(self, suite: Suite, number: int, total: int) -> None:
        """Say which."""
        seconds = time.monotonic() - self._start
        print(f"⏱️  {number}/{total} {TITLES[suite]} (after {duration(seconds)})", file=sys.stderr, flush=True)

    def on_row(self, row: Row) -> None:
        """Nothing: the tables come at the end, when limits and ratios can be read beside each other."""


def _show_steps() -> None:
    """Let what takes long in a suite say on standard error what it does."""
    log = logging.getLogger("bench")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("   %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def show_report(report: BenchReport, console: Console | None = None) -> None:
    """Print the tables and, last, what follows from them."""
    from rich.console import Console

    out = console or (Console() if sys.stdout.isatty() else Console(width=WIDTH))
    machine = report.environment
    gpus = "".join(f", {gpu.name}" for gpu in machine.gpus)
    out.print(f"=== BENCHMARK: {machine.processor}, {machine.cores} cores{gpus} ===", style="bold", markup=False)
    for note in report.config.get("notes", ()):
        out.print(f"   Note: {note}", markup=False, highlight=False)
    for suite, found in groupby(report.rows, key=lambda row: row.suite):
        rows = list(found)
        out.print(f"\n📊 {TITLES.get(suite, suite)}", style="bold", markup=False, highlight=False)
        if suite == "tiers":
            out.print(_tier_table(rows))
            out.print(f"   Note: {TIERS_NOTE}", style="dim", markup=False, highlight=False)
            continue
        for number, (setup, group) in enumerate(groupby(rows, key=lambda row: row.setup)):
            members = list(group)
            out.print(f"   {setup}", style="dim", markup=False, highlight=False)
            out.print(_table(members, header=number == 0))
            for note in dict.fromkeys(row.note for row in members if row.note):
                out.print(f"   Note: {note}", style="dim", markup=False, highlight=False)
    out.print()
    for line in conclusions(report):
        out.print(f"➡️  {line}", style="bold", markup=False, highlight=False)


def conclusions(report: BenchReport) -> list[str]:
    """What matters, in a sentence or two; what was not measured is not spoken of."""
    minutes, wait = report.find("epoch", MINUTES), report.find("epoch", WAIT)
    lines = _bottleneck(report)
    if minutes and wait:
        config = report.config
        how = "; extrapolated" if "extrapolated" in minutes.note else ""
        lines.append(
            f"An epoch of {config['images']:,} images takes about {duration(60 * minutes.value)} here "
            f"({config['network']['name']} {config['network']['width']}, side {config['side']}, batch "
            f"{config['batch_size']}{how}), {wait.value:.1f}% of it waiting for data."
        )
    for suite, name, sentence in _COMPARISONS:
        row = report.find(suite, name)
        if row and not minutes:
            lines.append(sentence.format(figure(row.value)))
    return lines


def _bottleneck(report: BenchReport) -> list[str]:
    """Who waits for whom, by the suite `epoch`, else by the stages; and which stages it is because of."""
    found = [report.find("epoch", name) for name in (LOADER, STEP)]
    loader, step = (row.value if row else 0.0 for row in found)
    stages = {row.name: row.value for row in report.rows if row.suite == "stages"}
    parts = {name: 1 / stages[name] for name in (FORWARD, BACKWARD, UPDATE) if name in stages}
    who = "the loader"
    if not all(found) and parts and AUGMENT in stages:
        loader, step, who = stages[AUGMENT], 1 / sum(parts.values()), "augmenting"
    if not loader or not step:
        return []
    if loader < step:
        slow = [name for name in (READ, DECODE, COPY, AUGMENT) if stages.get(name, step) < step]
        which = f"; slower even alone: {', '.join(slow)}" if slow else ""
        times = figure(step / loader)
        return [f"The loader is the bottleneck: the network alone could take {times} times as many images{which}."]
    slowest = max(parts, key=parts.__getitem__, default=None)
    share = f"; {slowest} takes {100 * parts[slowest] / sum(parts.values()):.0f}% of a step" if slowest else ""
    return [f"The network is the bottleneck: {who} alone could feed {figure(loader / step)} of these{share}."]


def _table(rows: list[Row], *, header: bool) -> Table:
    """Rows of one setup. Widths are fixed, so that the tables of a suite stand below each other."""
    table = _bare_table(header=header)
    table.add_column("what", width=31)
    table.add_column("median", width=16, justify="right")
    table.add_column("p10 to p90", width=15, justify="right")
    table.add_column("limit", width=23)
    table.add_column("of it", width=6, justify="right")
    for row in rows:
        limit = f"{figure(row.limit)} {row.limit_name}" if row.limit is not None else ""
        table.add_row(row.name, value_text(row), spread_text(row), limit, _ratio(row))
    return table


def _tier_table(rows: list[Row]) -> Table:
    """The promise is a column; what is measured stands out."""
    promised = {row.name: row for row in rows if row.kind == "guide"}
    table = _bare_table(header=True)
    table.add_column("profile", width=8)
    table.add_column("model, side, batch, where", width=39)
    table.add_column("minutes", width=9, justify="right")
    table.add_column("range", width=9, justify="right")
    table.add_column("guide", width=5, justify="right")
    table.add_column("how known", width=22)
    for row in rows:
        profile = row.name.partition(",")[0]  # what follows is the network, or the file, which `how` tells
        if row.kind == "guide":
            continue
        promise = f"~{promised[profile].value:g}" if profile in promised else ""
        how = f"measured, {row.note}" if row.kind == "measured" else row.note
        value = figure(row.value) if row.kind == "measured" else f"est. {figure(row.value)}"
        style = "green" if row.kind == "measured" else "dim"
        table.add_row(profile, row.setup, value, spread_text(row), promise, how, style=style)
    return table


def _bare_table(*, header: bool) -> Table:
    from rich.table import Table

    return Table(box=None, show_header=header, header_style="underline", padding=(0, 0, 0, 1), pad_edge=True)


def value_text(row: Row) -> str:
    """A median with its unit, marked unless it was measured: `10.0 s`, `~8 min`, `est. 7.42 min`."""
    if row.kind == "guide":
        return f"~{row.value:g} {row.unit}"
    return f"{'est. ' if row.kind == 'estimated' else ''}{figure(row.value)} {row.unit}"


def spread_text(row: Row) -> str:
    """From p10 to p90; empty where there was no run."""
    return f"{figure(row.p10)}–{figure(row.p90)}" if row.p10 is not None and row.p90 is not None else ""


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    if row.unit == "min":
        return f"{row.ratio:.2f}×"
    return f"{100 * row.ratio:.0f}%" if row.ratio >= 0.1 else f"{100 * row.ratio:.1f}%"
