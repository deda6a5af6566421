"""A running average of a network's weights: it scores better than the weights of any one step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from model.base import SegmentationNetwork


class WeightAverage:
    """Exponential moving average of weights and of BatchNorm's statistics (Polyak and Juditsky 1992).

    The decay rises with the number of updates n, as (1 + n) / (10 + n), up to its final value: else a short run would
    remember the weights that it began with. It never waits for the device.

    Attributes:
        network: has the averages; in eval mode, of the same memory format as the one that learns.

    Args:
        learning: the network that learns, not compiled.
        decay: final share of the average that an update keeps, 0 to below 1.
    """

    def __init__(self, learning: SegmentationNetwork, decay: float) -> None:
        self.network = copy.deepcopy(learning).eval().requires_grad_(False)
        self._decay, self._updates = decay, 0
        pairs = list(zip(_tensors(self.network), _tensors(learning), strict=True))
        self._averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._counted = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in what the network has learned in a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        mine, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for average, count in self._counted:
            average.copy_(count)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; its tensors are the live ones."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    # Parameters themselves, not the detached ones of a state_dict: whoever replaces their memory is followed.
    return [*network.parameters(), *network.buffers()]
