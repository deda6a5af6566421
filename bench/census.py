"""What a training step of a network does: each operation's arithmetic and memory traffic. Counted, not typed in.

The step runs on tensors that have shape, dtype and strides but no data (torch's fake tensors), and every operation that
reaches the device is written down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from model.base import check_side
from model.loss import LOSSES
from model.network import NetworkConfig, build_network
from train.config import Precision
from train.step import DTYPES

Kind = Literal["convolution", "norm", "pointwise", "other"]

_ATEN = torch.ops.aten
_FREE = {_ATEN.detach.default, _ATEN.empty_like.default, _ATEN.new_empty.default, _ATEN.empty.memory_format}
_POINTWISE = {
    *(_ATEN.relu.default, _ATEN.relu_.default, _ATEN.threshold_backward.default),
    *(_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.sigmoid.default),
    *(_ATEN.sigmoid_backward.default, _ATEN._to_copy.default),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a kernel; a convolution's backward is two.

    Attributes:
        name: as torch has it; of a convolution also `data gradient` or `weight gradient`.
        kind: what it is; a compiler joins a `pointwise` one to its neighbours.
        flops: a multiplication and an addition are two.
        read, written: bytes, each tensor counted as often as a good kernel must go over it.
    """

    name: str
    kind: Kind
    flops: int
    read: int
    written: int

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """A training step.

    Attributes:
        images: in the batch.
        operations: in their order: forward, loss, backward, clipping and update.
        parameters: of the network.
        saved: bytes that the forward pass keeps for the backward pass.
        largest: bytes of the largest operation, which are there beside them.
    """

    images: int
    operations: tuple[Operation, ...]
    parameters: int
    saved: int
    largest: int

    @property
    def flops(self) -> int:
        """Of the convolutions, forward and backward."""
        return sum(operation.flops for operation in self.operations)

    @property
    def memory(self) -> int:
        """Bytes at the peak: weights, gradients and AdamW's two moments in fp32, saved features, the largest kernel."""
        return 16 * self.parameters + self.saved + self.largest


@cache
def take_census(config: NetworkConfig, *, side: int, batch_size: int, precision: Precision) -> Census:
    """Count a step of one of our networks, with `bce_dice` and AdamW.

    Args:
        config: which.
        side: of the images, pixels.
        batch_size: images.
        precision: of the convolutions, as in training.

    Raises:
        ValueError: the network cannot take the side.
    """
    loss = LOSSES["bce_dice"]

    def build() -> nn.Module:
        network = build_network(config)
        check_side(network, side)
        return network

    def step(network: nn.Module) -> Tensor:
        image_N3SS = torch.empty(batch_size, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        plane_N1SS = torch.empty(batch_size, 1, side, side, dtype=torch.uint8)
        with torch.autocast("cpu", dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits_N1SS = network(image_N3SS)
        return loss(logits_N1SS, plane_N1SS, plane_N1SS)

    return count_step(build, step, batch_size)


def count_step(build: Callable[[], nn.Module], step: Callable[[nn.Module], Tensor], images: int) -> Census:
    """Count a step of any network.

    Args:
        build: makes the network.
        step: gives the loss of that network; the tensors that it makes have no data.
        images: in the batch.
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
        saved = _Saved(parameters)
        with _Recorder() as recorder:
            with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
                loss = step(network)
            loss.backward()  # type: ignore[no-untyped-call]
    count = sum(parameter.numel() for parameter in parameters)
    return Census(
        images=images,
        operations=(*recorder.operations, *_update(count)),
        parameters=count,
        saved=saved.bytes,
        largest=max(operation.bytes for operation in recorder.operations),
    )


def _update(parameters: int) -> Iterable[Operation]:
    """Clipping reads the gradients, then scales them; AdamW reads four arrays and writes three. All fp32."""
    one = 4 * parameters
    yield Operation(name="clip", kind="other", flops=0, read=2 * one, written=one)
    yield Operation(name="adamw", kind="other", flops=0, read=4 * one, written=3 * one)


class _Saved:
    """Adds up what autograd keeps, each memory once, without the parameters."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._seen = {parameter.untyped_storage()._cdata for parameter in parameters}
        self._alive: list[Tensor] = []  # else the next storage could get the address of one that is gone
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Writes down every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func is _ATEN.convolution_backward.default:
            self.operations += _convolution_backward(args, out)
        elif func not in _FREE and not func.is_view and outputs:
            self.operations.append(_operation(func, args, kwargs, inputs, outputs, out))
        return out


def _operation(func: Any, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor], out: Any) -> Operation:
    name = func.overloadpacket.__name__
    read, written = _size(*inputs), _size(*outputs)
    kind: Kind = "pointwise" if func in _POINTWISE else "other"
    flops = 0
    if func is _ATEN.convolution.default:
        kind, flops = "convolution", flop_registry[_ATEN.convolution](*args, out_val=out)
    elif "batch_norm" in name:
        # Training: once over the features for the statistics, once to normalise; and back likewise.
        kind, read = "norm", 2 * read
    return Operation(name=name, kind=kind, flops=flops, read=read, written=written)


def _convolution_backward(args: Any, out: Any) -> Iterable[Operation]:
    gradient, features, weight = args[:3]
    flops = flop_registry[_ATEN.convolution_backward](*args, out_val=out)
    there = [part is not None for part in out[:2]]
    for name, needed, given, made in (
        ("convolution, data gradient", there[0], weight, out[0]),
        ("convolution, weight gradient", there[1], features, out[1]),
    ):
        if needed:
            yield Operation(
                name=name,
                kind="convolution",
                flops=flops // sum(there),
                read=_size(gradient, given),
                written=_size(made),
            )


def _size(*tensors: Tensor) -> int:
    """Bytes, each tensor once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in tensors}.values())
