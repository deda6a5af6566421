"""How much of an epoch is measured: all of it where that is short, else windows of its steps."""

from __future__ import annotations

import dataclasses
import math

STEPS = 200
"""Of all windows together, where there is time for so many."""

USUALLY, AT_MOST = 3, 25
"""Times as long as a measurement of other suites: a step takes long, and its rate is what most people come for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """What is measured.

    Attributes:
        whole: whether each run is a true epoch, from its first batch to its last.
        steps: in a run.
        rounds: runs.
        wanted: seconds for each measurement with which the windows would have `STEPS`; None if they have.
    """

    whole: bool
    steps: int
    rounds: int
    wanted: float | None = None

    def describe(self, batch_size: int) -> str:
        """In words, as rows give it."""
        if self.whole:
            return f"a true epoch of {self.steps * batch_size:,} images"
        enough = "" if self.wanted is None else f": --seconds {self.wanted:g} for {STEPS}"
        return f"windows, {self.steps * self.rounds} steps{enough}"


def plan_epoch(*, images: int, samples: int, batch_size: int, rate: float, seconds: float, rounds: int) -> EpochPlan:
    """A true epoch if the cache has its images and it takes no longer than windows may, else windows.

    Args:
        images: of an epoch.
        samples: that the cache has.
        batch_size: images in a step.
        rate: images/s of training, about.
        seconds: of a measurement of other suites.
        rounds: at most so many runs.
    """
    most, steps = AT_MOST * seconds, images // batch_size
    if 0 < steps * batch_size <= rate * most and images <= samples:
        return EpochPlan(whole=True, steps=steps, rounds=min(rounds, int(rate * most / (steps * batch_size))))
    affordable = int(rate * most / batch_size)
    total = max(min(STEPS, affordable), int(rate * USUALLY * seconds / batch_size))
    each = max(1, -(-total // rounds) if total >= STEPS else total // rounds)
    wanted = None
    if each * rounds < STEPS:
        wanted = _rounded_up(-(-STEPS // rounds) * rounds * batch_size / rate / AT_MOST)
    return EpochPlan(whole=False, steps=each, rounds=rounds, wanted=wanted)


def _rounded_up(value: float) -> float:
    """Two digits, never less."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit) * unit, 10)
