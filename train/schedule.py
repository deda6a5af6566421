"""The learning rate, as a pure function of the step and the epochs before: resuming needs no scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cache.choices import Scheduler

PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 5
"""Epochs."""
PLATEAU_THRESHOLD = 1e-4
"""Share of the lowest loss by which a lower one must fall below it to count."""


def learning_rate(
    step: int, *, steps: int, peak: float, warmup: float, scheduler: Scheduler = "cosine_annealing"
) -> float:
    """Give the learning rate of a step.

    A straight rise to `peak` (the warm-up of Goyal et al. 2017), then for `cosine_annealing` half a cosine down to zero
    after the last step (Loshchilov and Hutter 2017, "SGDR", without restarts); else `peak` to the end.

    Args:
        step: counted from 0, over all epochs.
        steps: of the whole run.
        peak: the largest learning rate; for `plateau` already times `plateau_factor`.
        warmup: share of `steps` in which it rises, 0 to below 1.
        scheduler: see above.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    if scheduler != "cosine_annealing":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def plateau_factor(losses: Sequence[float]) -> float:
    """What the learning rate is multiplied with after epochs of these validation losses.

    Halved whenever the loss has not fallen for more than `PLATEAU_PATIENCE` epochs: torch's `ReduceLROnPlateau` with
    `PLATEAU_FACTOR`, without its state.
    """
    factor, lowest, bad = 1.0, math.inf, 0
    for loss in losses:
        if loss < lowest * (1 - PLATEAU_THRESHOLD):
            lowest, bad = loss, 0
        else:
            bad += 1
        if bad > PLATEAU_PATIENCE:
            factor, bad = factor * PLATEAU_FACTOR, 0
    return factor
