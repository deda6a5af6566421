"""The suite `convolutions`: every convolution of a network alone, forward and both gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from bench.ceilings import multiply_matrices, product_name
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Rates, Work
from bench.workloads import describe
from cache.messages import joined, message
from model.network import NetworkConfig, build_network
from train.step import DTYPES

ROTATED_BYTES = 64 << 20
"""Bytes of the buffers that features are taken from in turn: more than processor caches hold."""

MOST_BUFFERS = 32

PASSES = ("forward", message("data gradient"), message("weight gradient"))


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Shape:
    """A convolution and the size of its input, in pixels.

    Attributes:
        channels, filters: channels of the input and of the output.
        transposed: whether it enlarges.
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: int
    stride: int
    transposed: bool

    def __str__(self) -> str:
        """The convolution in words: `3x3, 64 to 128, at 32x32`."""
        how = ""
        if self.transposed:
            how = message(" up by {stride}", stride=self.stride)
        elif self.stride > 1:
            how = message(" by {stride}", stride=self.stride)
        return message(
            "{kernel}x{kernel}{how}, {channels} to {filters}, at {height}x{width}",
            kernel=self.kernel,
            how=how,
            channels=self.channels,
            filters=self.filters,
            height=self.height,
            width=self.width,
        )

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass over one image; a multiplication and an addition are two."""
        stride = 1 if self.transposed else self.stride
        pixels = -(-self.height // stride) * -(-self.width // stride)
        return 2 * pixels * self.channels * self.filters * self.kernel**2


def shapes_of(config: NetworkConfig, side: int) -> dict[Shape, int]:
    """The convolutions of a network and how often it has each, the largest images first."""
    found: dict[Shape, int] = {}

    def see(module: nn.Module, given: tuple[Tensor, ...], _out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        shape = Shape(
            height=given[0].shape[2],
            width=given[0].shape[3],
            channels=module.in_channels,
            filters=module.out_channels,
            kernel=module.kernel_size[0],
            stride=module.stride[0],
            transposed=isinstance(module, nn.ConvTranspose2d),
        )
        found[shape] = found.get(shape, 0) + 1

    with torch.device("meta"):
        network = build_network(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.groups == 1:
                module.register_forward_hook(see)
        network(torch.empty(1, 3, side, side, dtype=torch.uint8))
    return dict(sorted(found.items(), reverse=True))


def convolution_rows(setup: Setup, _material: Material) -> Iterator[Row]:
    """GFLOP/s of each shape and pass, and what share of the step's arithmetic it is."""
    training = setup.training
    shapes = shapes_of(training.network, setup.side)
    total = sum(count * shape.flops for shape, count in shapes.items())
    for shape, count in shapes.items():
        works = {name: convolve(shape, name, setup) for name in PASSES}
        works["limit"] = multiply_matrices(training.precision, setup.device)
        found = setup.measure(works, share=0.25)
        described = message(
            "{count} in {network}, {share:.1f}% of its arithmetic; batch {batch_size}, {how}",
            count=count,
            network=setup.network,
            share=100 * count * shape.flops / total,
            batch_size=setup.batch_size,
            how=describe(training),
        )
        for name in PASSES:
            yield Row.measured(
                Rates(tuple(rate * shape.flops / 1e9 for rate in found[name].values)),
                suite="convolutions",
                name=joined(": ", [str(shape), name]),
                setup=described,
                unit="GFLOP/s",
                limit=found["limit"].median / 1e9,
                limit_name=product_name(training.precision),
            )


def convolve(shape: Shape, which: str, setup: Setup) -> Work:
    """One pass of a convolution over a batch of random features; an item is an image."""
    dtype, count = DTYPES[setup.training.precision], setup.batch_size
    layout = torch.channels_last if setup.training.channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        value = torch.randn(size, generator=generator)
        return value.to(setup.device, dtype).contiguous(memory_format=layout)

    size = count * shape.channels * shape.height * shape.width * dtype.itemsize
    buffers = max(2, min(MOST_BUFFERS, ROTATED_BYTES // size))
    features = [draw(count, shape.channels, shape.height, shape.width) for _ in range(buffers)]
    kernel = (shape.channels, shape.filters) if shape.transposed else (shape.filters, shape.channels)
    weight = draw(*kernel, shape.kernel, shape.kernel)
    padding = 0 if shape.transposed else shape.kernel // 2
    tail: tuple[Any, ...] = ([shape.stride] * 2, [padding] * 2, [1, 1], shape.transposed, [0, 0], 1)
    forward = torch.ops.aten.convolution.default
    backward = torch.ops.aten.convolution_backward.default
    if which == "forward":
        turn = cycle(features)
        return Work(run=lambda: forward(next(turn), weight, None, *tail), items=count)
    pairs = cycle([(torch.randn_like(forward(feature, weight, None, *tail)), feature) for feature in features])
    mask = [which == "data gradient", which == "weight gradient", False]
    return Work(run=lambda: backward(*next(pairs), weight, None, *tail, mask), items=count)
