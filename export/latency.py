"""How long an answer takes on the processor, of several contestants side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch

WARM_UP = 2
LEAST_ROUNDS, MOST_ROUNDS = 5, 100
SECONDS = 10.0
"""Rounds go on until so much time has passed, or there are `MOST_ROUNDS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of one answer: the middle one, and between which a tenth is faster and a tenth slower."""

    median: float
    p10: float
    p90: float
    runs: int


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch use so many threads of the CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(runs: Mapping[str, Callable[[], object]]) -> dict[str, Latency]:
    """Time each, one after the other in every round, so that a slow moment of the machine meets them all.

    Each round begins with another one. Whatever is called must have finished when it returns.
    """
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    started = perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and perf_counter() - started > SECONDS:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before = perf_counter()
            runs[name]()
            found[name].append(1000 * (perf_counter() - before))
    return {name: _latency(values) for name, values in found.items()}


def _latency(values: list[float]) -> Latency:
    p10, median, p90 = np.quantile(values, (0.1, 0.5, 0.9)).tolist()
    return Latency(median=median, p10=p10, p90=p90, runs=len(values))
