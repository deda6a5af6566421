"""Loaders as work to be measured."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

from bench.config import Setup
from bench.timing import Work
from loader.augment import LEVELS, Level
from loader.batch import Backend, Batch, LoaderConfig
from loader.loader import Loader

PULLED_SAMPLES = 256
"""About so many samples are one call; the next one goes on where it ended."""


def loader_config(setup: Setup, cache: Path, backend: Backend, level: Level) -> LoaderConfig:
    """The loader of a training run."""
    return LoaderConfig(
        cache=cache,
        batch_size=setup.batch_size,
        backend=backend,
        device=setup.device,
        augment=LEVELS[level],
        threads=setup.threads,
    )


def pull(loader: Loader) -> Work:
    """Take batches and throw them away: `PULLED_SAMPLES` a call. An item is a sample.

    Nothing is made ahead when a call begins, and nothing goes on when it ends.
    """
    batches = max(1, PULLED_SAMPLES // loader.config.batch_size)

    def run() -> None:
        left = batches
        while left:
            with closing(_epoch(loader)) as epoch:
                for _ in islice(epoch, left):
                    left -= 1

    return Work(run=run, items=batches * loader.config.batch_size)


def endless(loader: Loader) -> Generator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader


def _epoch(loader: Loader) -> Generator[Batch]:
    # A generator, so that it can be closed: the loader's iterator only promises to be one.
    yield from loader
