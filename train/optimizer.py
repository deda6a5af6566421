"""The optimizers, by name."""

from __future__ import annotations

import torch
from torch import nn

from cache.choices import OptimizerName as OptimizerName

WEIGHT_DECAY: dict[OptimizerName, float] = {"adamw": 1e-2, "adam": 1e-6, "sgd": 1e-4}
"""Of each, unless said otherwise. The guide's 1e-6 is meant for Adam, which adds it to the gradient. AdamW multiplies
the weights by 1 - learning rate * weight decay each step (Loshchilov and Hutter 2019): there 1e-6 would do nothing."""

LEARNING_RATE: dict[OptimizerName, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2}
"""Peak of each, unless said otherwise."""


def build_optimizer(
    network: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    name: OptimizerName = "adamw",
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """Give an optimizer in its fused form (one kernel for all weights).

    Only kernels decay: drawing a BatchNorm's gain or a bias towards zero makes nothing simpler.

    Args:
        network: where it will train.
        learning_rate: of the first step.
        weight_decay: see `WEIGHT_DECAY`.
        name: `adamw`, `adam`, or `sgd` with Nesterov's momentum.
        momentum: of `sgd`.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=learning_rate, fused=True)
