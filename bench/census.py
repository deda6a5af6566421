"""Counts the arithmetic and the memory traffic of each operation of a network's training step.

The step runs on tensors that have shape, dtype and strides but no data (torch's fake tensors), and every operation that
reaches the device is recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cache.choices import Precision
from model.base import check_side
from model.loss import LOSSES
from model.network import NetworkConfig, build_network
from train.step import autocast

_ATEN = torch.ops.aten
_FREE = {_ATEN.detach.default, _ATEN.empty_like.default, _ATEN.new_empty.default, _ATEN.empty.memory_format}
_POINTWISE = {
    *(_ATEN.relu.default, _ATEN.relu_.default, _ATEN.threshold_backward.default),
    *(_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.sigmoid.default),
    *(_ATEN.sigmoid_backward.default, _ATEN._to_copy.default),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a kernel; the backward pass of a convolution is two."""

    # Torch's; of a convolution's backward pass `convolution, data gradient` or `convolution, weight gradient`.
    name: str
    flops: int  # of a convolution, a multiplication and an addition counted as two; 0 for other operations
    read: int  # bytes, each tensor counted as often as a good kernel must go over it
    written: int
    pointwise: bool = False  # whether a compiler fuses it with its neighbours

    @property
    def bytes(self) -> int:
        """All bytes that are read and written."""
        return self.read + self.written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """The operations and the memory of a training step."""

    images: int  # in the batch
    operations: tuple[Operation, ...]  # in their order: forward, loss, backward, clipping and update
    parameters: int  # of the network
    saved: int  # bytes that the forward pass keeps for the backward pass
    largest: int  # bytes of the largest operation before the update, which needs them in addition

    @property
    def flops(self) -> int:
        """Floating-point operations of the convolutions, forward and backward."""
        return sum(operation.flops for operation in self.operations)

    @property
    def memory(self) -> int:
        """Bytes at the peak: weights, gradients and AdamW's two moments in fp32, saved features, the largest kernel."""
        return 16 * self.parameters + self.saved + self.largest


@cache
def take_census(config: NetworkConfig, *, side: int, batch_size: int, precision: Precision) -> Census:
    """The census of a step of one of our networks, with `bce_dice` and AdamW, at a side in pixels.

    Raises `ValueError`: the network cannot take the side.
    """
    loss = LOSSES["bce_dice"]

    def build() -> nn.Module:
        network = build_network(config)
        check_side(network, side)
        return network

    def step(network: nn.Module) -> Tensor:
        image_N3SS = torch.empty(batch_size, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        plane_N1SS = torch.empty(batch_size, 1, side, side, dtype=torch.uint8)
        with autocast("cpu", precision):
            logits_N1SS = network(image_N3SS)
        return loss(logits_N1SS, plane_N1SS, plane_N1SS)

    return count_step(build, step, batch_size)


def count_step(build: Callable[[], nn.Module], step: Callable[[nn.Module], Tensor], images: int) -> Census:
    """The census of a step of the network that `build` makes, with a batch of so many images.

    `step` computes the loss of that network; the tensors that it makes have no data.
    """
    with torch.device("meta"):
        network = build()
    with FakeTensorMode():
        for module in network.modules():  # not by Module.to, which cannot take fake ones
            for name, value in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty_strided(value.shape, value.stride())))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_strided(buffer.shape, buffer.stride(), dtype=buffer.dtype))
        parameters = list(network.parameters())
        known = {parameter.untyped_storage()._cdata for parameter in parameters}
        saved: dict[int, Tensor] = {}  # holds the tensors: else another storage could get the address of a freed one

        def pack(tensor: Tensor) -> Tensor:
            saved.setdefault(tensor.untyped_storage()._cdata, tensor)
            return tensor

        with _Recorder() as recorder:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = step(network)
            loss.backward()  # type: ignore[no-untyped-call]
        size = sum(tensor.untyped_storage().nbytes() for at, tensor in saved.items() if at not in known)
    count = sum(parameter.numel() for parameter in parameters)
    updates = (  # clipping reads the gradients, then scales them; AdamW reads four arrays and writes three; all fp32
        Operation(name="clip", flops=0, read=8 * count, written=4 * count),
        Operation(name="adamw", flops=0, read=16 * count, written=12 * count),
    )
    largest, operations = max(one.bytes for one in recorder.operations), (*recorder.operations, *updates)
    return Census(images=images, operations=operations, parameters=count, saved=size, largest=largest)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is _ATEN.convolution_backward.default:
            self.operations += _convolution_backward(args, out)
            return out
        name, written = func.overloadpacket.__name__, _size(out)
        if func in _FREE or func.is_view or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            return out
        read, flops = _size((args, kwargs)), 0
        if func is _ATEN.convolution.default:
            flops = flop_registry[_ATEN.convolution](*args, out_val=out)
        elif "batch_norm" in name:  # one pass for the statistics, or their gradients, and one to normalise
            read *= 2
        pointwise = func in _POINTWISE
        self.operations.append(Operation(name=name, flops=flops, read=read, written=written, pointwise=pointwise))
        return out


def _convolution_backward(args: Any, out: Any) -> Iterator[Operation]:
    gradient, features, weight = args[:3]
    flops = flop_registry[_ATEN.convolution_backward](*args, out_val=out)
    made = [one for one in (("data", weight, out[0]), ("weight", features, out[1])) if one[2] is not None]
    for name, given, result in made:
        read, written = _size((gradient, given)), _size(result)
        yield Operation(name=f"convolution, {name} gradient", flops=flops // len(made), read=read, written=written)


def _size(tree: Any) -> int:
    """Bytes of the tensors in a tree, each tensor once."""
    tensors = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
