"""The learning rate, as a pure function of the step: a resumed run needs no scheduler's state."""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Give the learning rate of a step.

    A straight rise to `peak`, then half a cosine down to zero after the last step (Loshchilov and Hutter 2017, "SGDR",
    without restarts; the warm-up is that of Goyal et al. 2017).

    Args:
        step: counted from 0, over all epochs.
        steps: of the whole run.
        peak: the largest learning rate.
        warmup: share of `steps` in which it rises, 0 to below 1.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
