"""One training step, one validation step. Tensor suffixes: N images, 3 RGB, 1 logit or plane, H and W pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from model.base import SegmentationNetwork
from model.loss import Loss
from model.metrics import count_pixels
from model.network import NetworkConfig, build_network
from train.config import Precision

_AUTOCAST = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def prepare_network(config: NetworkConfig, *, channels_last: bool, device: str) -> SegmentationNetwork:
    """Build a network where and in the memory format in which it will train. Only then build its optimizer."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return build_network(config, memory_format=memory_format).to(device)


def build_optimizer(network: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Give AdamW in its fused form (one kernel for all weights).

    Only kernels decay: drawing a BatchNorm's gain or a bias towards zero makes nothing simpler.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


class _Forward(nn.Module):
    """Network, loss and pixel counts under autocast: what is compiled as one graph."""

    def __init__(self, network: SegmentationNetwork, loss: Loss, precision: Precision, device: str) -> None:
        super().__init__()
        self.network, self._loss = network, loss
        self._device, self._dtype = device, _AUTOCAST[precision]
        self._narrow = precision != "fp32"

    def forward(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss (float32 scalar) and `counts_4` (int64)."""
        with torch.autocast(self._device, dtype=self._dtype, enabled=self._narrow):
            logits_N1HW = self.network(image_N3HW)
        loss = self._loss(logits_N1HW, person_N1HW, ignore_N1HW)
        return loss, count_pixels(logits_N1HW.detach(), person_N1HW, ignore_N1HW)


def _compiled(forward: _Forward, backend: str | None) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    # `dynamic=False`: every batch has the same shape, and a graph for just that shape is the fastest.
    return forward if backend is None else torch.compile(forward, backend=backend, fullgraph=True, dynamic=False)


class TrainStep:
    """Forward, loss, backward, clip, update; and running pixel counts of what was predicted on the way.

    It never waits for the device: what it returns and counts stays there until somebody reads it.

    Args:
        network: on its device and in its memory format.
        optimizer: of the network's parameters.
        precision: of the convolutions. fp16 scales the loss (Micikevicius et al. 2018), bf16 needs no scaling.
        loss: of logits and planes.
        compile: backend of `torch.compile`, or None to run eagerly.
        device: `cuda` or `cpu`, the network's.
        clip: largest norm of the gradient over all parameters.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        loss: Loss,
        compile: str | None,
        device: str,
        clip: float,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=device)
        self._forward = _compiled(_Forward(network, loss, precision, device), compile)
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._clip = clip

    def __call__(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, learning_rate: float) -> Tensor:
        """Learn from a batch (as `loader.Batch` has it) and give its loss: float32 scalar on the device."""
        if not self.network.training:
            self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, counts_4 = self._forward(image_N3HW, person_N1HW, ignore_N1HW)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self.optimizer)  # before clipping: the limit is on the true gradient
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.counts_4 += counts_4
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Give what the next step depends on. Its tensors are the live ones: save or copy them at once."""
        return {
            "network": self.network.state_dict(),
            # As it is, in the weights' memory format: a fused update walks weights and moments in storage order.
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "counts": self.counts_4,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, in a step that was made with the same arguments."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.counts_4.copy_(state["counts"])


class EvalStep:
    """Forward and loss without gradients; pixel counts and loss add up on the device.

    Args: as `TrainStep`.
    """

    def __init__(
        self, network: SegmentationNetwork, *, precision: Precision, loss: Loss, compile: str | None, device: str
    ) -> None:
        self.network = network
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.images = 0
        self._forward = _compiled(_Forward(network, loss, precision, device), compile)

    def reset(self) -> None:
        """Forget what was counted."""
        self.counts_4.zero_()
        self.loss_sum.zero_()
        self.images = 0

    @torch.no_grad()
    def __call__(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, valid: int) -> None:
        """Count a batch of which the first `valid` images matter; the planes of the others are all `ignore`."""
        self.network.eval()
        loss, counts_4 = self._forward(image_N3HW, person_N1HW, ignore_N1HW)
        self.counts_4 += counts_4
        self.loss_sum += loss * valid  # a mean over pixels, weighted so that a filled-up batch counts for less
        self.images += valid
