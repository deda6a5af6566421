"""Loader and network together, as training runs them: how long an epoch takes, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Any

from bench.config import Setup
from bench.feed import endless, loader_config, pull
from bench.learner import LEARNING_RATE, build_step, describe, learn, random_batch
from bench.material import Material
from bench.report import Row
from bench.timing import Rates, Work, measure_together
from loader.loader import open_loader

LOADER, STEP, BOTH, WAIT, MINUTES = (
    "loader alone",
    "training step alone",
    "loader and training step",
    "data wait",
    "minutes per epoch",
)
"""Names of the rows."""

LONGER = 3
"""Times as long as other suites: a step takes long, and its rate is what most people come for."""


def epoch_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Windows of training, taken in turn with the loader alone and the step alone."""
    training = setup.training
    config = loader_config(setup, material.cache, training.loader, training.augment)
    step, waits = build_step(training), list[float]()
    with open_loader(config) as alone, open_loader(config) as loader, closing(endless(loader)) as batches:
        backend = loader.choice.backend

        def train() -> None:
            asked = perf_counter()
            batch = next(batches)
            got = perf_counter()
            step(batch.image, batch.person, batch.ignore, LEARNING_RATE)
            # On a GPU the step is only queued here; once the queue is full it takes as long as the step.
            waits.append((got - asked) / (perf_counter() - asked))

        works = {
            LOADER: pull(alone),
            STEP: learn(step, random_batch(setup)),
            BOTH: Work(run=train, items=setup.batch_size),
        }
        found = measure_together(
            works, seconds=LONGER * setup.seconds, rounds=setup.rounds, synchronise=setup.synchronise
        )
    images, both = setup.config.images, found[BOTH]
    slower = min((LOADER, STEP), key=lambda name: found[name].median)
    how = f"{describe(training)}, {backend} loader, {training.augment} augmentation"
    common: dict[str, Any] = {"suite": "epoch", "setup": f"{setup.network}, {setup.shape}, {how}"}
    limit: dict[str, Any] = {"limit": found[slower], "limit_name": slower}
    yield Row.measured(found[LOADER], name=LOADER, unit="images/s", **common)
    yield Row.measured(found[STEP], name=STEP, unit="images/s", **common)
    yield Row.measured(
        both, name=BOTH, unit="images/s", note=f"{material.cache_name}, {setup.threads} threads", **limit, **common
    )
    # The first call warmed up.
    yield Row.measured(Rates(tuple(100 * share for share in waits[1:])), name=WAIT, unit="%", **common)

    def minutes(rate: float) -> float:
        return images / rate / 60

    yield Row.measured(
        both.each(minutes),
        name=MINUTES,
        unit="min",
        limit=minutes(found[slower].median),
        limit_name=slower,
        note=f"{images:,} images, extrapolated from {len(waits) - 1} training steps; validation not included",
        **common,
    )
