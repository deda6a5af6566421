"""The training step and the validation step. Tensor suffixes: N images, 3 RGB, 1 logit or plane, H and W pixels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cache.choices import Precision
from cache.messages import UserError
from model.base import SegmentationNetwork
from model.encoder_unet import EncoderUNet
from model.loss import LOSSES
from model.metrics import count_boundary, count_pixels
from model.network import build_network
from train.config import TrainConfig
from train.optimizer import WeightAverage, build_optimizer
from train.ranks import ALONE, Ranks, lost_ranks

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,  # as `train.process.kernels` sets it
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: str, precision: Precision) -> torch.autocast:
    """A block in which a network computes in a precision."""
    dtype = DTYPES[precision]
    return torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)


def prepare_network(config: TrainConfig) -> SegmentationNetwork:
    """Build the network on its device and in its memory format. Build its optimizer afterwards."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    return build_network(config.network, memory_format=memory_format).to(config.device)


class _Forward(nn.Module):
    """Network, loss and pixel counts under autocast, which are compiled as one graph."""

    def __init__(self, config: TrainConfig, network: SegmentationNetwork, tolerance: int = 0) -> None:
        super().__init__()
        self.network, self._loss, self._tolerance = network, LOSSES[config.loss], tolerance
        self._device, self._precision = config.device, config.precision

    def forward(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the loss (float32 scalar), `counts_4` and `boundary_4` (int64; the latter 0 without a tolerance)."""
        with autocast(self._device, self._precision):
            logits_N1HW = self.network(image_N3HW)
        loss = self._loss(logits_N1HW, person_N1HW, ignore_N1HW)
        detached_N1HW = logits_N1HW.detach()
        counts_4 = count_pixels(detached_N1HW, person_N1HW, ignore_N1HW)
        if not self._tolerance:
            return loss, counts_4, torch.zeros_like(counts_4)
        return loss, counts_4, count_boundary(detached_N1HW > 0, person_N1HW, ignore_N1HW, self._tolerance)


def _compiled(forward: _Forward, backend: str | None) -> nn.Module:
    if backend is None:
        return forward
    # `dynamic=False`: every batch has the same shape, and a graph for that shape alone is the fastest.
    compiled = cast(nn.Module, torch.compile(forward, backend=backend, fullgraph=True, dynamic=False))
    # Before torch 2.13, Dynamo refuses a process's ninth step, for it counts all of them as one function's.
    compiled.forward = torch._dynamo.config.patch(recompile_limit=256)(compiled.forward)
    return compiled


def _common_statistics(network: nn.Module, world: int) -> list[Tensor]:
    """BatchNorm's running statistics, whose means over all ranks are those of one process that accumulates.

    That one updates them `world` times where each rank does it once; so the ranks' momentum is larger. Those that are
    fixed are left out.
    """
    fixed = set(network.fixed_norms() if isinstance(network, EncoderUNet) else ())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module not in fixed]
    for norm in norms:
        if norm.momentum is not None:
            norm.momentum = 1 - (1 - norm.momentum) ** world
    return [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]


class TrainStep:
    """Forward, loss, backward, clip, update; and running counts of the predicted pixels.

    It never waits for the device: losses and counts stay there until they are read.

    Args:
        config: has optimizer, loss, precision and device. fp16 scales the loss (Micikevicius et al. 2018). What it
            leaves open about an encoder is that of one from scratch.
        network: as `prepare_network` gives it.
        compile: backend of `torch.compile`, or None to run eagerly.
        average: is updated with the weights.
        ranks: of the run. Each has batches of its own; the update takes the mean of their gradients.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: SegmentationNetwork,
        *,
        compile: str | None = None,
        average: WeightAverage | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.network, self.average, self._ranks, self._config = network, average, ranks, config
        factor = 1.0 if config.encoder_lr is None else config.encoder_lr
        if isinstance(network, EncoderUNet):
            network.fixed_norm = config.encoder_norm == "frozen"
            network.encoder.requires_grad_(factor > 0)
        network.train()
        self.optimizer = build_optimizer(
            network,
            learning_rate=config.peak,
            decay=config.decay,
            name=config.optimizer,
            momentum=config.momentum,
            encoder_lr=factor,
        )
        # Pixels so far: true and false positives, false and true negatives.
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=config.device)
        self._compiled = _compiled(_Forward(config, network), compile)
        self._forward = ranks.parallel(self._compiled)
        self._scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._statistics = _common_statistics(network, ranks.world)
        self._accumulated = False
        self.warm = False  # whether it was called: the first call compiles, or searches for the fastest kernels

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
        """Train on a batch, whose tensors are those of a `loader.Batch`; give its loss, a float32 scalar on the device.

        The weights are updated by the mean gradient of `batches` batches, after the `last` one of them.
        """
        loss, counts_4 = self.forward(image_N3HW, person_N1HW, ignore_N1HW, last=last)
        self.backward(loss / batches if batches > 1 else loss)
        self.counts_4 += counts_4
        self._accumulated, self.warm = not last, True
        if last:
            self.update(learning_rate)
        return loss.detach()

    def begin_epoch(self, epoch: int) -> None:
        """Freeze an encoder in its first epochs: backward then ends above it. Or let it learn from now on."""
        if not isinstance(self.network, EncoderUNet) or self._config.encoder_lr == 0:
            return
        parameters, learns = list(self.network.encoder.parameters()), epoch >= self._config.freeze_epochs
        if all(parameter.requires_grad == learns for parameter in parameters):
            return
        self.close()
        for parameter in parameters:
            parameter.requires_grad, parameter.grad = learns, None
        self._forward = self._ranks.parallel(self._compiled)
        self.warm = False  # a compiled step compiles anew

    def forward(
        self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, *, last: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The first part: give the loss and the counts of a batch, and clear the gradients after an update."""
        if not self.network.training:
            self.network.train()
        if not self._accumulated:
            self.optimizer.zero_grad(set_to_none=True)
        module = self._forward
        # Ranks average the sum of an update's gradients, once.
        with module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext():
            loss, counts_4, _ = module(image_N3HW, person_N1HW, ignore_N1HW)
        return loss, counts_4

    def backward(self, loss: Tensor) -> None:
        """The second part: add to the gradients."""
        with lost_ranks("gloo"):
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, learning_rate: float) -> None:
        """The last part: clip the gradients and update the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("factor", 1.0)  # earlier releases saved none
        if self._ranks.world > 1:
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad and parameter.grad is None:  # the others then wait for it, or go without
                    raise UserError("{name} has no gradient, which ranks cannot average; train on one GPU", name=name)
            self._ranks.average(self._statistics)
        self._scaler.unscale_(self.optimizer)  # the limit is on the unscaled gradient
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update()

    def close(self) -> None:
        """End what sends gradients to other ranks, before their group ends: else it may hang the process."""
        if isinstance(self._forward, DistributedDataParallel):
            del self._forward.reducer, self._forward.logger

    def state_dict(self) -> dict[str, Any]:
        """Give the state on which the next update depends. Its tensors are not copies: save or copy them at once."""
        assert not self._accumulated, "gradients of a part of an update are not kept"
        return {
            "network": self.network.state_dict(),
            # In the weights' memory format, because a fused update walks weights and moments in storage order.
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "counts": self.counts_4,
            "average": self.average and self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict` in a step that was made with the same arguments."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.counts_4.copy_(state["counts"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


class EvalStep:
    """Forward and loss without gradients; the counts of pixels and boundary pixels and the loss add up on the device.

    Boundaries match within `tolerance` pixels (see `model.metrics`); 0 leaves them out. The other arguments are those
    of `TrainStep`.
    """

    def __init__(
        self, config: TrainConfig, network: SegmentationNetwork, *, compile: str | None = None, tolerance: int = 0
    ) -> None:
        self.network = network
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=config.device)
        self.boundary_4 = torch.zeros_like(self.counts_4)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=config.device)
        self.images, self.warm = 0, False  # see `TrainStep`
        self._forward = _compiled(_Forward(config, network, tolerance), compile)

    def reset(self) -> None:
        """Set the counts and the loss to 0."""
        for total in (self.counts_4, self.boundary_4, self.loss_sum):
            total.zero_()
        self.images = 0

    @torch.no_grad()
    def __call__(self, image_N3HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor, valid: int) -> None:
        """Count a batch with `valid` images; the others only fill it up and are ignored everywhere."""
        self.network.eval()
        loss, counts_4, boundary_4 = self._forward(image_N3HW, person_N1HW, ignore_N1HW)
        self.counts_4 += counts_4
        self.boundary_4 += boundary_4
        self.loss_sum += loss * valid  # a mean over pixels, weighted so that a filled-up batch counts for less
        self.images += valid
        self.warm = True
