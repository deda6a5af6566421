from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal to redraw."""


@contextmanager
def progress_bar(label: str, unit: str = "images", *, transient: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, with its rate and the time left, on standard error.

    Yields a function to call with (done, total). Without a terminal it prints a line now and then. A `transient` bar
    goes away when it is done.
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
            return Text(f"{task.speed or 0:,.0f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
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
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        print(f"{label}: {done:,}/{total:,} {unit}, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)

    return update
