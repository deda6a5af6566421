"""Loaders as work to be measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path

from bench.config import Setup
from bench.timing import Work
from loader.augment import AugmentConfig, Level
from loader.batch import Backend, Batch, LoaderConfig
from loader.loader import Loader

PULLED_SAMPLES = 256
"""About so many samples are one call; the next one goes on where it ended."""


def loader_config(setup: Setup, cache: Path, backend: Backend, level: Level | AugmentConfig) -> LoaderConfig:
    """The loader of a training run."""
    return dataclasses.replace(setup.training.loader, cache=cache, backend=backend, augment=level)


def pull(loader: Loader) -> Work:
    """Take batches and throw them away: `PULLED_SAMPLES` a call, each going on where the last one ended.

    A run begins and ends in mid-flow, with as many batches being made ahead. An item is a sample.
    """
    batches = max(1, PULLED_SAMPLES // loader.config.batch_size)
    flow: Iterator[Batch] = iter(())

    def prepare() -> None:
        nonlocal flow
        flow = endless(loader)
        _take(flow, loader.config.prefetch + 1)  # else the first ones would have been made before the clock starts

    def run() -> None:
        _take(flow, batches)

    return Work(run=run, items=batches * loader.config.batch_size, prepare=prepare)


def _take(flow: Iterator[Batch], batches: int) -> None:
    for _ in islice(flow, batches):
        pass


def endless(loader: Loader) -> Generator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader
