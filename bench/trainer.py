"""Training as work to be measured: the real step, on what a loader gives."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from time import perf_counter

from bench.epoch_plan import EpochPlan
from bench.feed import endless
from bench.learner import LEARNING_RATE
from bench.memory import PeakMemory
from bench.timing import Work
from loader.batch import Batch
from loader.loader import Loader
from train.step import TrainStep


class Training:
    """Steps on what a loader gives.

    Attributes:
        waits: share of each step that was spent waiting for its batch.
    """

    def __init__(self, loader: Loader, step: TrainStep, memory: PeakMemory) -> None:
        self._loader, self._step, self._memory = loader, step, memory
        self._flow: Generator[Batch] = endless(loader)
        self.waits: list[float] = []

    def close(self) -> None:
        """Let go of the loader."""
        self._flow.close()

    def train(self, steps: int = 1) -> None:
        """Go on for so many steps."""
        for _ in range(steps):
            asked = perf_counter()
            batch = next(self._flow)
            got = perf_counter()
            self._step(batch.image, batch.person, batch.ignore, LEARNING_RATE)
            # On a GPU the step is only queued here; once the queue is full it takes as long as the step.
            self.waits.append((got - asked) / (perf_counter() - asked))
            self._memory.look()

    def work(self, plan: EpochPlan) -> Work:
        """Train as planned; an item is an image."""
        images = self._loader.config.batch_size
        if plan.whole:
            return Work(
                run=lambda: self.train(plan.steps), items=plan.steps * images, prepare=self._begin_epoch, calls=1
            )
        return Work(run=self.train, items=images, prepare=self._drain, calls=plan.steps)

    def _begin_epoch(self) -> None:
        """Let the first batch be made when it is asked for, at the beginning of the next epoch."""
        self._flow.close()
        self._flow = endless(self._loader)

    def _drain(self) -> None:
        """Take what was made ahead while something else was measured."""
        for _ in islice(self._flow, self._loader.config.prefetch + 1):
            pass
