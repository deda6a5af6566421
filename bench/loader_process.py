"""What only a fresh process shows of a loader: how long its first batch takes, and whether its memory grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.config import Setup
from bench.material import Material
from bench.process import run_program
from bench.report import Row
from bench.timing import Rates

EPOCHS, QUICK_EPOCHS = 20, 4
WARM_EPOCHS = 2
"""After so many, all buffers are there."""

STARTS, QUICK_STARTS = 3, 2
"""Processes whose first batch is timed."""

_PROGRAM = """
import sys, time
from pathlib import Path
from loader import LEVELS, LoaderConfig, open_loader
import loader.native

def memory():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 / 1e6

cache, batch_size, threads, warm, epochs = sys.argv[1], *map(int, sys.argv[2:])
config = LoaderConfig(
    cache=Path(cache), batch_size=batch_size, backend="native", augment=LEVELS["light"], threads=threads
)
start = time.perf_counter()
with open_loader(config) as batches:
    next(iter(batches))
    first = time.perf_counter() - start
    before = memory()
    for epoch in range(epochs):
        for _ in batches:
            pass
        if epoch == warm - 1:
            before = memory()
    print(first, before, memory())
"""


def process_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """The native loader, augmenting, in processes of their own; memory is the process's, without pages of files."""
    epochs, starts = (QUICK_EPOCHS, QUICK_STARTS) if setup.config.quick else (EPOCHS, STARTS)

    def run(epochs: int) -> list[float]:
        return run_program(_PROGRAM, material.cache, setup.batch_size, setup.threads, WARM_EPOCHS, epochs)

    run(0)  # it may still have to compile
    runs = [*(run(0) for _ in range(starts - 1)), run(epochs)]
    firsts = Rates(tuple(first for first, _, _ in runs))
    _, before, after = runs[-1]
    common: dict[str, Any] = {
        "suite": "loader",
        "setup": f"{setup.shape}, {setup.threads} threads, {material.cache_name}, a process of its own",
    }
    note = "from opening the cache; libraries are imported, kernels compiled by an earlier process"
    yield Row.measured(firsts, name="native, first batch", unit="s", note=note, **common)
    for number, megabytes in ((WARM_EPOCHS, before), (epochs, after)):
        name = f"native, memory after {number} epochs"
        yield Row.measured(Rates((megabytes,)), name=name, unit="MB", note="of the process, not of files", **common)
