"""What is shown while a command runs: a bar or lines of progress, notes that are logged, and a question."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cache.messages import message
from console.language import _, translated
from console.text import duration, size, tell

LINE_EVERY = 10.0  # seconds between lines where there is no terminal to redraw

_UNITS = (message("images"), message("samples"))  # Babel finds them here; callers give plain words


@contextmanager
def progress_bar(label: str, unit: str = "images", *, transient: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done, with the rate and the time left, on standard error.

    Yields a function to call with (done, total). Without a terminal it prints a line every ten seconds. A `transient`
    bar disappears when it is done. The unit `bytes` shows amounts such as `1.4 GB`.
    """
    if not sys.stderr.isatty():
        yield _line_printer(label, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{_rate(task.speed or 0, unit)}{'' if unit == 'bytes' else f' {_(unit)}'}/s")

    class Amount(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(_amount(int(task.completed), int(task.total or 0), unit))

    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), Amount(""), Rate(""), remaining)
    with Progress(*columns, console=Console(stderr=True), transient=transient) as bar:
        task = bar.add_task(label, total=1)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _line_printer(label: str, unit: str) -> Callable[[int, int], None]:
    start = last = time.monotonic()
    first: int | None = None

    def update(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first
        if now - last < LINE_EVERY and done < total:
            return
        last = now
        rate = (done - first) / (now - start) if now > start else 0.0
        amount, left = _amount(done, total, unit), ""
        if unit != "bytes":
            amount += f" {_(unit)}"
        if rate and done < total:
            seconds = (total - done) / rate
            left = _(", {time} left", time=duration(seconds) if unit == "bytes" else f"{seconds:.0f} s")
        tell(f"{label}: {amount}, {_rate(rate, unit)}/s{left}")

    return update


def _amount(done: int, total: int, unit: str) -> str:
    if unit == "bytes":
        return _("{done} of {total}", done=size(done), total=size(total))
    return f"{done:,}/{total:,}"


def _rate(rate: float, unit: str) -> str:
    return size(int(rate)) if unit == "bytes" else f"{rate:,.0f}"


def confirmed(question: str, *, default: bool) -> bool:
    """Ask until the answer is yes or no; an empty one is the default. English answers are always understood.

    Raises `click.Abort`: there is nobody to answer.
    """
    yes, no = _("y"), _("n")
    hint = f"{yes.upper()}/{no}" if default else f"{yes}/{no.upper()}"
    while True:
        answer = click.prompt(f"{question} [{hint}]", default="", show_default=False)
        word = answer.strip().casefold()
        if not word:
            return default
        if word in (yes, _("yes"), "y", "yes"):
            return True
        if word in (no, _("no"), "n", "no"):
            return False
        print(_("Please answer {yes} or {no}.", yes=yes, no=no), file=sys.stderr)


class LogPrinter(logging.Handler):
    """Prints each record as a line of its own, by a template with `{note}`."""

    def __init__(self, template: str = "   {note}") -> None:
        super().__init__()
        self._template = template

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        tell(_(self._template, note=translated(record.getMessage())))


@contextmanager
def kernel_notes() -> Iterator[None]:
    """Within the block, print that kernels are compiled, and where they are kept if not where they should be."""
    log, printer = logging.getLogger("cache.kernel"), LogPrinter(message("   Note: {note}"))
    log.addHandler(printer)
    log.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it cannot write to the home
    before = _compiling()
    try:
        yield
    finally:
        log.removeHandler(printer)
        log.setLevel(logging.NOTSET)
        if (seconds := _compiling() - before) >= 1:
            tell(_("   Note: compiling kernels took {time}", time=duration(seconds)))


def _compiling() -> float:
    """Seconds that this process has compiled kernels; the module is there once one is loaded, as Numba then is."""
    kernel = sys.modules.get("cache.kernel")
    return kernel.compiled.seconds if kernel else 0.0
