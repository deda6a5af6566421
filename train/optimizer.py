"""The optimizers by name, the learning rate by step, and a moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cache.choices import OptimizerName, Scheduler
from model.base import SegmentationNetwork
from model.encoder_unet import EncoderUNet

WEIGHT_DECAY: dict[OptimizerName, float] = {"adamw": 1e-2, "adam": 1e-6, "sgd": 1e-4}
"""Default weight decay of each optimizer. The guide's 1e-6 is meant for Adam, which adds it to the gradient. AdamW
multiplies the weights by 1 - learning rate * weight decay in each step (Loshchilov and Hutter 2019), where 1e-6 would
have no effect."""

LEARNING_RATE: dict[OptimizerName, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2}
"""Default peak learning rate of each optimizer."""

PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 5  # epochs
PLATEAU_THRESHOLD = 1e-4  # share of the lowest loss by which a loss must be lower to count


def build_optimizer(
    network: nn.Module,
    *,
    learning_rate: float,
    decay: float,
    name: OptimizerName = "adamw",
    momentum: float = 0.9,
    encoder_lr: float = 1.0,
) -> torch.optim.Optimizer:
    """Give an optimizer in its fused form (one kernel for all weights); `sgd` has Nesterov's momentum.

    Only convolution kernels decay: pulling a BatchNorm's gain or a bias towards zero makes no network simpler. The
    groups of an encoder of timm have a `factor` of the learning rate, `encoder_lr`, where that is not 1.
    """
    encoder = set(network.encoder.parameters() if isinstance(network, EncoderUNet) and encoder_lr != 1 else ())
    groups: list[dict[str, Any]] = []
    for factor, inside in ((1.0, False), (encoder_lr, True)):
        mine = [each for each in network.parameters() if each.requires_grad and (each in encoder) == inside]
        if mine:
            kernels, others = [each for each in mine if each.ndim > 1], [each for each in mine if each.ndim <= 1]
            groups.append({"params": kernels, "weight_decay": decay, "factor": factor})
            groups.append({"params": others, "weight_decay": 0.0, "factor": factor})
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=learning_rate, fused=True)


def learning_rate(
    update: int, *, updates: int, peak: float, warmup: float, scheduler: Scheduler = "cosine_annealing"
) -> float:
    """Give the learning rate of an update as a pure function, so that resuming needs no scheduler's state.

    It rises linearly to `peak` (the warm-up of Goyal et al. 2017). Then `cosine_annealing` follows half a cosine down
    to zero after the last update (Loshchilov and Hutter 2017, "SGDR", without restarts); the others stay at `peak`.

    Args:
        update: of the weights, counted from 0, over all epochs.
        updates: of the whole run.
        peak: the largest learning rate; for `plateau` already multiplied by `plateau_factor`.
        warmup: share of `updates` in which it rises, 0 to below 1.
        scheduler: name of the schedule.
    """
    rising = round(updates * warmup)
    if update < rising:
        return peak * (update + 1) / rising
    if scheduler != "cosine_annealing":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, updates - rising)))


def plateau_factor(losses: Sequence[float]) -> float:
    """The factor for the learning rate after epochs of these validation losses.

    It is halved when the loss has not fallen for more than `PLATEAU_PATIENCE` epochs, as in torch's
    `ReduceLROnPlateau`, but without a state.
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


class WeightAverage:
    """Exponential moving average of weights and of BatchNorm's statistics (Polyak and Juditsky 1992).

    It scores better than the weights of any single step. The decay rises with the number n of updates, as
    (1 + n) / (10 + n), up to its final value, so that a short run forgets its starting weights. An update never waits
    for the device.

    Args:
        learning: the network that is trained, not compiled.
        decay: final share of the average that an update keeps, 0 to below 1.
    """

    def __init__(self, learning: SegmentationNetwork, decay: float) -> None:
        # It has the averages, in eval mode and in the memory format of the trained network.
        self.network = copy.deepcopy(learning).eval().requires_grad_(False)
        self._decay, self._updates = decay, 0
        pairs = list(zip(_tensors(self.network), _tensors(learning), strict=True))
        self._averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._counted = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        mine, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for average, count in self._counted:
            average.copy_(count)

    def state_dict(self) -> dict[str, Any]:
        """Give the state on which the next update depends. Its tensors are not copies."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    # The parameters themselves, not a state_dict's detached ones, which miss it when their memory is replaced.
    return [*network.parameters(), *network.buffers()]
