"""The suite `epoch`: loader and network together, as training runs them, and how long an epoch takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from time import perf_counter

from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Rates, Work
from bench.workloads import (
    LEARNING_RATE,
    PeakMemory,
    build_step,
    describe,
    endless,
    learn,
    loader_config,
    pull,
    random_batch,
    skip,
)
from cache.messages import joined, message
from loader.batch import Batch
from loader.loader import Loader, open_loader
from train.step import TrainStep

LOADER, STEP, BOTH = message("loader alone"), message("training step alone"), message("loader and training step")
OVERLAP, WAIT, WARMUP = "overlap", message("data wait"), "warm-up"
MEMORY, HELD, MINUTES = message("peak memory"), message("peak memory, held"), message("minutes per epoch")
"""Names of the rows."""

PROBES = 3
"""Steps after the first one; the fastest decides how many steps are affordable."""

STEPS = 200
"""Steps of all windows together, where the time allows so many."""

USUALLY, AT_MOST = 3, 25
"""Time of the measurement in units of that of other suites: a step takes long, and its rate is what matters most."""


def epoch_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Images per second of training, in turn with the loader alone and the step alone, and minutes per epoch."""
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
        works = {LOADER: pull(alone), STEP: learn(step, batch), BOTH: together.work(plan)}
        found = setup.measure(works, share=USUALLY, rounds=plan.rounds)
    both, slower = found[BOTH], min((LOADER, STEP), key=lambda name: found[name].median)
    feeding = message("{backend} loader, {augment} augmentation", backend=backend, augment=training.loader.augment)
    described = joined(", ", [setup.network, setup.shape, describe(training), feeding])
    row = partial(Row.measured, suite="epoch", setup=described)
    yield row(found[LOADER], name=LOADER, unit="images/s")
    yield row(found[STEP], name=STEP, unit="images/s")
    note = joined("; ", [joined(", ", [material.cache_name, setup.parallel]), plan.describe(setup.batch_size)])
    yield row(both, name=BOTH, unit="images/s", limit=found[slower], limit_name=slower, note=note)
    note = message("100%: the faster of both is hidden behind the slower; on a CPU they share the cores")
    yield row(overlap(found[LOADER], found[STEP], both), name=OVERLAP, unit="%", note=note)
    yield row(Rates(tuple(100 * share for share in together.waits)), name=WAIT, unit="%")
    note = message(
        "the first step, apart: compiles, or looks for kernels; what was compiled before comes from torch's cache"
    )
    yield row(warmup, name=WARMUP, unit="s", note=note)
    for name, (what, size) in zip((MEMORY, HELD), memory.found().items(), strict=False):
        yield row(size / 1e6, name=name, unit="MB", note=what)
    note = message("{images:,} images, extrapolated; validation not included", images=images)
    if plan.whole:
        note = message("{images:,} images; validation not included", images=images)
    minutes, fewest = both.each(lambda rate: images / rate / 60), images / found[slower].median / 60
    yield row(minutes, name=MINUTES, unit="min", limit=fewest, limit_name=slower, note=note)


def overlap(loader: Rates, step: Rates, both: Rates) -> Rates:
    """Percent of the time of both together that the slower of both takes alone, run by run, as in `Rates.over`."""
    slower = Rates(tuple(min(pair) for pair in zip(loader.values, step.values, strict=True)))
    return both.over(slower).each(lambda share: 100 * share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """How much of an epoch is measured."""

    whole: bool  # whether each run is a true epoch, from its first batch to its last
    steps: int  # in a run
    rounds: int

    def describe(self, batch_size: int) -> str:
        """The plan in words."""
        if self.whole:
            return message("a true epoch of {steps:,} images", steps=self.steps * batch_size)
        return message("windows, {steps} steps", steps=self.steps * self.rounds)


def plan_epoch(*, images: int, samples: int, batch_size: int, rate: float, seconds: float, rounds: int) -> EpochPlan:
    """Plan a true epoch if the cache has its images and it takes no longer than windows may, else windows.

    An epoch has so many images, the cache so many samples; `rate` is about the images/s of training, `seconds` the time
    of a measurement of other suites, `rounds` the most runs.
    """
    most, steps = AT_MOST * seconds, images // batch_size
    if 0 < steps * batch_size <= rate * most and images <= samples:
        return EpochPlan(whole=True, steps=steps, rounds=min(rounds, int(rate * most / (steps * batch_size))))
    affordable = int(rate * most / batch_size)
    total = max(min(STEPS, affordable), int(rate * USUALLY * seconds / batch_size))
    each = max(1, -(-total // rounds) if total >= STEPS else total // rounds)
    return EpochPlan(whole=False, steps=each, rounds=rounds)


class Training:
    """Training steps on the batches of a loader; `waits` has the share of each that was spent waiting for its batch."""

    def __init__(self, loader: Loader, step: TrainStep, memory: PeakMemory) -> None:
        self._loader, self._step, self._memory = loader, step, memory
        self._batches: Generator[Batch] = endless(loader)
        self.waits: list[float] = []

    def close(self) -> None:
        """End the loader's epoch."""
        self._batches.close()

    def train(self, steps: int = 1) -> None:
        """Train for so many more steps."""
        for _ in range(steps):
            asked = perf_counter()
            batch = next(self._batches)
            got = perf_counter()
            self._step(batch.image, batch.person, batch.ignore, LEARNING_RATE)
            # On a GPU the step is only queued here; once the queue is full it takes as long as the step.
            self.waits.append((got - asked) / (perf_counter() - asked))
            self._memory.look()

    def work(self, plan: EpochPlan) -> Work:
        """Train as planned; an item is an image."""
        images = self._loader.config.batch_size
        if plan.whole:
            train, steps = partial(self.train, plan.steps), plan.steps
            return Work(run=train, items=steps * images, prepare=self._begin_epoch, calls=1)
        return Work(run=self.train, items=images, prepare=self._drain, calls=plan.steps)

    def _begin_epoch(self) -> None:
        """Start an epoch whose first batch is not prepared before the clock starts."""
        self._batches.close()
        self._batches = endless(self._loader)

    def _drain(self) -> None:
        """Take the batches that were prefetched while something else was measured."""
        skip(self._batches, self._loader.config.prefetch + 1)
