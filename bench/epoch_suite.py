"""Loader and network together, as training runs them: how long an epoch takes, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Any

from bench.config import Setup
from bench.epoch_plan import USUALLY, plan_epoch
from bench.feed import loader_config, pull
from bench.learner import LEARNING_RATE, build_step, describe, learn, random_batch
from bench.material import Material
from bench.memory import PeakMemory
from bench.report import Row
from bench.timing import Rates, measure_together
from bench.trainer import Training
from loader.loader import open_loader

LOADER, STEP, BOTH, OVERLAP, WAIT, WARMUP, MEMORY, HELD, MINUTES = (
    "loader alone",
    "training step alone",
    "loader and training step",
    "overlap",
    "data wait",
    "warm-up",
    "peak memory",
    "peak memory, held",
    "minutes per epoch",
)
"""Names of the rows."""

PROBES = 3
"""Steps after the first one; the fastest says how many are affordable."""


def epoch_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Training, in turn with the loader alone and the step alone: a true epoch, or windows of one."""
    training, images = setup.training, setup.config.images
    config = loader_config(setup, material.cache, training.loader.backend, training.loader.augment)
    memory = PeakMemory(setup.device)
    step, batch = build_step(training), random_batch(setup)

    def one_step() -> float:
        started = perf_counter()
        step(*batch, LEARNING_RATE)
        setup.synchronise()
        return perf_counter() - started

    warmup, probes = one_step(), [one_step() for _ in range(PROBES)]
    with (
        open_loader(config) as alone,
        open_loader(config) as loader,
        closing(Training(loader, step, memory)) as together,
    ):
        plan = plan_epoch(
            images=images,
            samples=len(loader.reader),
            batch_size=setup.batch_size,
            rate=setup.batch_size / min(probes),
            seconds=setup.seconds,
            rounds=setup.rounds,
        )
        backend = loader.choice.backend
        found = measure_together(
            {LOADER: pull(alone), STEP: learn(step, batch), BOTH: together.work(plan)},
            seconds=USUALLY * setup.seconds,
            rounds=plan.rounds,
            synchronise=setup.synchronise,
        )
    how = f"{describe(training)}, {backend} loader, {training.loader.augment} augmentation"
    common: dict[str, Any] = {"suite": "epoch", "setup": f"{setup.network}, {setup.shape}, {how}"}
    both, slower = found[BOTH], min((LOADER, STEP), key=lambda name: found[name].median)
    limit: dict[str, Any] = {"limit": found[slower], "limit_name": slower}
    ran = plan.describe(setup.batch_size)
    yield Row.measured(found[LOADER], name=LOADER, unit="images/s", **common)
    yield Row.measured(found[STEP], name=STEP, unit="images/s", **common)
    note = f"{material.cache_name}, {setup.threads} threads; {ran}"
    yield Row.measured(both, name=BOTH, unit="images/s", note=note, **limit, **common)
    note = "100%: the faster of both is hidden behind the slower; on a CPU they share the cores"
    yield Row.measured(overlap(found[LOADER], found[STEP], both), name=OVERLAP, unit="%", note=note, **common)
    yield Row.measured(Rates(tuple(100 * share for share in together.waits)), name=WAIT, unit="%", **common)
    note = "the first step, apart: compiles, or looks for kernels; what was compiled before comes from torch's cache"
    yield Row.measured(Rates((warmup,)), name=WARMUP, unit="s", note=note, **common)
    for name, (what, size) in zip((MEMORY, HELD), memory.found().items(), strict=False):
        yield Row.measured(Rates((size / 1e6,)), name=name, unit="MB", note=what, **common)

    def minutes(rate: float) -> float:
        return images / rate / 60

    yield Row.measured(
        both.each(minutes),
        name=MINUTES,
        unit="min",
        limit=minutes(found[slower].median),
        limit_name=slower,
        note=f"{images:,} images{'' if plan.whole else ', extrapolated'}; validation not included",
        **common,
    )


def overlap(loader: Rates, step: Rates, both: Rates) -> Rates:
    """Percent of the time of both together that the slower of both takes alone, run by run, as in `Rates.over`."""
    slower = Rates(tuple(min(pair) for pair in zip(loader.values, step.values, strict=True)))
    return both.over(slower).each(lambda share: 100 * share)
