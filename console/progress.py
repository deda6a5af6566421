from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from console.language import _, message
from console.text import duration, size

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal to redraw."""

_BYTES = "bytes"
_UNITS = (message("images"), message("samples"))
"""What else is counted, as a rule."""


@contextmanager
def progress_bar(label: str, unit: str = "images", *, transient: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, with its rate and the time left, on standard error.

    Yields a function to call with (done, total). Without a terminal it prints a line now and then. A `transient` bar
    goes away when it is done. With the unit `bytes` it tells them as `1.4 GB`.
    """
    if sys.stderr.isatty():
        with _terminal_bar(label, unit, transient=transient) as update:
            yield update
    else:
        yield _line_printer(label, unit)


@contextmanager
def _terminal_bar(label: str, unit: str, *, transient: bool) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            speed = task.speed or 0
            return Text(f"{size(int(speed))}/s" if unit == _BYTES else f"{speed:,.0f} {_(unit)}/s")

    class Amount(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(_amount(int(task.completed), int(task.total or 0), unit))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        Amount(""),
        Rate(""),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
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
        seconds = (total - done) / rate if rate and done < total else 0
        if unit == _BYTES:
            left = _(", {time} left").format(time=duration(seconds)) if seconds else ""
            print(f"{label}: {_amount(done, total, unit)}, {size(int(rate))}/s{left}", file=sys.stderr, flush=True)
        else:
            left = _(", {time} left").format(time=f"{seconds:.0f} s") if seconds else ""
            print(f"{label}: {done:,}/{total:,} {_(unit)}, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)

    return update


def _amount(done: int, total: int, unit: str) -> str:
    if unit == _BYTES:
        return _("{done} of {total}").format(done=size(done), total=size(total))
    return f"{done:,}/{total:,}"
