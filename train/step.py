"""One training step, one validation step. Tensor suffixes: N images, 3 RGB, 1 logit or plane, H and W pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cache.choices import Precision
from model.base import SegmentationNetwork
from model.loss import LOSSES, Loss
from model.metrics import count_boundary, count_pixels
from model.network import NetworkConfig, build_network
from train.config import TrainConfig
from train.optimizer import WeightAverage, build_optimizer
from train.ranks import ALONE, Ranks

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def prepare_network(config: NetworkConfig, *, channels_last: bool, device: str) -> SegmentationNetwork:
    """Build a network where and in the memory format in which it will train. Only then build its optimizer."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return build_network(config, memory_format=memory_format).to(device)


class _Forward(nn.Module):
    """Network, loss and pixel counts under autocast: what is compiled as one graph."""

    def __init__(
        self, network: SegmentationNetwork, loss: Loss, precision: Precision, device: str, tolerance: int = 0
    ) -> None:
        super().__init__()
        self.network, self._loss = network, loss
        self._device, self._dtype = device, DTYPES[precision]
        self._narrow = precision != "fp32"
        self._tolerance = tolerance

    def forward(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the loss (float32 scalar), `counts_4` and `boundary_4` (int64; the latter 0 without a tolerance)."""
        with torch.autocast(self._device, dtype=self._dtype, enabled=self._narrow):
            logits_N1HW = self.network(image_N3HW)
        loss = self._loss(logits_N1HW, person_N1HW, ignore_N1HW)
        detached_N1HW = logits_N1HW.detach()
        counts_4 = count_pixels(detached_N1HW, person_N1HW, ignore_N1HW)
        if not self._tolerance:
            return loss, counts_4, torch.zeros_like(counts_4)
        return loss, counts_4, count_boundary(detached_N1HW > 0, person_N1HW, ignore_N1HW, self._tolerance)


def _compiled(
    forward: _Forward, backend: str | None
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    # `dynamic=False`: every batch has the same shape, and a graph for just that shape is the fastest.
    return forward if backend is None else torch.compile(forward, backend=backend, fullgraph=True, dynamic=False)


class TrainStep:
    """Forward, loss, backward, clip, update; and running pixel counts of what was predicted on the way.

    It never waits for the device: what it returns and counts stays there until somebody reads it.

    Attributes:
        counts_4: pixels so far: true and false positives, false and true negatives.
        warm: whether it was called: the first call compiles, or looks for the fastest kernels.

    Args:
        network: on its device and in its memory format.
        optimizer: of the network's parameters.
        precision: of the convolutions. fp16 scales the loss (Micikevicius et al. 2018), bf16 needs no scaling.
        loss: of logits and planes.
        compile: backend of `torch.compile`, or None to run eagerly.
        device: `cuda` or `cpu`, the network's.
        clip: largest norm of the gradient over all parameters.
        average: takes in each update, if there is one.
        ranks: of the run: each learns from a batch of its own, the update is of the mean of their gradients.
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
        average: WeightAverage | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.network, self.optimizer, self.average = network, optimizer, average
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=device)
        self._forward = _compiled(_Forward(network, loss, precision, device), compile)
        self._ranks = ranks
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._clip = clip
        self._accumulated = False
        self.warm = False

    def __call__(
        self,
        image_N3HW: Tensor,
        person_N1HW: Tensor,
        ignore_N1HW: Tensor,
        learning_rate: float,
        *,
        batches: int = 1,
        last: bool = True,
    ) -> Tensor:
        """Learn from a batch (as `loader.Batch` has it) and give its loss: float32 scalar on the device.

        Args:
            image_N3HW, person_N1HW, ignore_N1HW: of the batch.
            learning_rate: of the update.
            batches: whose gradients the update is the mean of.
            last: whether this is the last one of them, after which the weights are updated.
        """
        loss, counts_4 = self.forward(image_N3HW, person_N1HW, ignore_N1HW)
        self.backward(loss / batches if batches > 1 else loss)
        self.counts_4 += counts_4
        self._accumulated, self.warm = not last, True
        if last:
            self.update(learning_rate)
        return loss.detach()

    def forward(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """The first part: give the loss, and `counts_4` of this batch. Forgets the gradients of the last update."""
        if not self.network.training:
            self.network.train()
        if not self._accumulated:
            self.optimizer.zero_grad(set_to_none=True)
        loss, counts_4, _ = self._forward(image_N3HW, person_N1HW, ignore_N1HW)
        return loss, counts_4

    def backward(self, loss: Tensor) -> None:
        """The second part: add to the gradients."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, learning_rate: float) -> None:
        """The last part: clip the gradients, and change the weights by them."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._ranks.average([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        self._scaler.unscale_(self.optimizer)  # before clipping: the limit is on the true gradient
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update()

    def state_dict(self) -> dict[str, Any]:
        """Give what the next update depends on. Its tensors are the live ones: save or copy them at once."""
        assert not self._accumulated, "gradients of a part of an update are not kept"
        return {
            "network": self.network.state_dict(),
            # As it is, in the weights' memory format: a fused update walks weights and moments in storage order.
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "counts": self.counts_4,
            "average": self.average and self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, in a step that was made with the same arguments."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.counts_4.copy_(state["counts"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def make_train_step(
    config: TrainConfig,
    network: SegmentationNetwork,
    *,
    compile: str | None = None,
    average: WeightAverage | None = None,
    ranks: Ranks = ALONE,
) -> TrainStep:
    """Give the step of a run, for a network on its device, with a new optimizer; the others are as `TrainStep` says."""
    optimizer = build_optimizer(
        network, learning_rate=config.peak, weight_decay=config.decay, name=config.optimizer, momentum=config.momentum
    )
    return TrainStep(
        network,
        optimizer,
        precision=config.precision,
        loss=LOSSES[config.loss],
        compile=compile,
        device=config.device,
        clip=config.clip,
        average=average,
        ranks=ranks,
    )


class EvalStep:
    """Forward and loss without gradients; counts of pixels and of boundary pixels, and loss, add up on the device.

    Args: as `TrainStep`, and
        tolerance: pixels within which boundaries match (see `model.metrics`); 0 leaves them out.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        precision: Precision,
        loss: Loss,
        compile: str | None,
        device: str,
        tolerance: int = 0,
    ) -> None:
        self.network = network
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=device)
        self.boundary_4 = torch.zeros_like(self.counts_4)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.images = 0
        self._forward = _compiled(_Forward(network, loss, precision, device, tolerance), compile)

    def reset(self) -> None:
        """Forget what was counted."""
        self.counts_4.zero_()
        self.boundary_4.zero_()
        self.loss_sum.zero_()
        self.images = 0

    @torch.no_grad()
    def __call__(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, valid: int) -> None:
        """Count a batch of which the first `valid` images matter; the planes of the others are all `ignore`."""
        self.network.eval()
        loss, counts_4, boundary_4 = self._forward(image_N3HW, person_N1HW, ignore_N1HW)
        self.counts_4 += counts_4
        self.boundary_4 += boundary_4
        self.loss_sum += loss * valid  # a mean over pixels, weighted so that a filled-up batch counts for less
        self.images += valid
