"""The network as it is exported: uint8 images in, probabilities out.

Tensor suffixes: N images, 3 RGB, 1 the person probability, H and W pixels.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cache.messages import first_line
from export.config import ExportError
from model.base import SegmentationNetwork

INPUT, OUTPUT = "image", "probability"

LEAST_STRIDES = 2
"""Height and width are at least so many strides: the deepest features of an image of a single one are one pixel, and
`torch.export` makes a special case of a size of 1."""


class ProbabilityNetwork(nn.Module):
    """A segmentation network with the sigmoid behind it."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """`probability_N1HW` (float32) of `image_N3HW` (uint8 RGB)."""
        return torch.sigmoid(self.network(image))


def normalisation(network: SegmentationNetwork) -> dict[str, tuple[float, ...]]:
    """The normalisation inside the network, `(image / 255 - mean) / std` by channel, rounded to six digits."""
    layer = network.normalise
    std_3 = 1 / (255 * layer.scale_1311.flatten().double())
    mean_3 = layer.shift_1311.flatten().double() * std_3
    values = {"mean": mean_3.tolist(), "std": std_3.tolist()}
    return {name: tuple(round(value, 6) for value in each) for name, each in values.items()}


def trace(network: SegmentationNetwork) -> torch.export.ExportedProgram:
    """Trace the network with its sigmoid, for any number of images and any height and width that it takes.

    Features are channels_last, which suits processors; weights are contiguous, as files want them. Raises
    `ExportError`: it does something that `torch.export` cannot follow.
    """
    taken = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    taken.normalise.memory_format = torch.channels_last
    stride = network.stride
    example_N3HW = torch.zeros(2, 3, 3 * stride, 4 * stride, dtype=torch.uint8)
    count = torch.export.Dim("count", min=1)
    height, width = (torch.export.Dim(name, min=LEAST_STRIDES) for name in ("rows", "columns"))
    try:
        with _constant_padding():
            program = torch.export.export(
                ProbabilityNetwork(taken).eval(),
                (example_N3HW,),
                dynamic_shapes={INPUT: {0: count, 2: stride * height, 3: stride * width}},
            )
    except Exception as error:  # torch has a kind of its own for each construct that it cannot follow
        raise ExportError(
            "the network cannot be exported for images of any size ({reason}); unet, attention_unet, resunet and unet "
            "on timm:resnet34 can",
            reason=first_line(error, 200),
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # has paths of this machine
    return program


@contextmanager
def _constant_padding() -> Iterator[None]:
    """Let timm's convolutions with TensorFlow's `SAME` padding use the constant padding of the sizes that we take.

    timm computes it anew from each size, and torch takes minutes to work out what that gives for an unknown one. But
    where the size is a multiple of a layer's stride, as all are here, it is always the same: kernel less stride.
    """
    padding = sys.modules.get("timm.layers.padding")
    if padding is None:
        yield
        return
    before = padding.get_same_padding
    padding.get_same_padding = _same_padding  # type: ignore[attr-defined]
    try:
        yield
    finally:
        padding.get_same_padding = before  # type: ignore[attr-defined]


def _same_padding(_size: int, kernel: int, stride: int, dilation: int) -> int:
    return max(dilation * (kernel - 1) + 1 - stride, 0)
