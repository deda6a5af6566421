"""Measured training steps, which tell the estimates how near to its peak hardware comes.

They are rates of GPUs that others have published, in `published.json`, and the reports in `bench/results`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.census import Census, count_step, take_census
from bench.report import BenchError, BenchReport, Row
from bench.roofline import Roof, find_card, implied_efficiency
from cache.choices import Precision
from cache.messages import message
from model.network import NetworkConfig
from train.step import autocast

OTHERWISE = 0.15
"""Least relative error of an estimate at other sizes than those of its row, from experience."""

OTHER_NETWORK = 0.4
"""Least relative error of an estimate from rows of other networks: of most of the rows in `published.json`."""

RESULTS = Path(__file__).parent / "results"
"""Reports of machines, as `cli.py bench --json` writes them."""

STEP, PLAIN = "training step (", "(plain torch"
"""What names of the suite `model` contain: those of training steps, and of these those of a plain one."""

PUBLISHED = Path(__file__).parent / "published.json"
"""Training rates that others have measured on one GPU, by batch size, with their sources."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A measured training step."""

    name: str  # hardware, network and shape in words
    family: str  # of the network: its name, if there is no name of ours for the like of it
    seconds: float  # measured time of the step
    roof: Roof  # of the hardware
    count: Callable[[], Census]  # gives the census of the step
    series: str = ""  # of rows that differ in nothing but the batch size; empty if it is the only one

    @cached_property  # found by bisection, and needed by each estimate
    def efficiency(self) -> float | None:
        """Share of the peak that its convolutions reached; None if memory explains all of the time."""
        return implied_efficiency(self.count(), self.roof, self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The share of the peak that convolutions reach: a range, at least `OTHERWISE` around its middle."""

    low: float
    middle: float  # the geometric mean of the lowest and the highest row
    high: float
    rows: tuple[str, ...]  # names of the rows that it is taken from


def calibrations(folder: Path = RESULTS) -> list[Calibration]:
    """All rows: the published ones, then those of the reports in a folder; for errors see `BenchReport.read`."""
    published = []
    for row in msgspec.json.decode(PUBLISHED.read_bytes())["rows"]:
        series, roof = ", ".join((row["network"], row["card"], row["precision"])), find_card(row["card"]).roof
        for batch_size, rate in row["images_per_s"].items():
            published.append(
                Calibration(
                    name=message("{series}, batch {batch_size}", series=series, batch_size=batch_size),
                    series=series,
                    family=row["family"],
                    seconds=int(batch_size) / rate,
                    roof=roof(row["precision"], compiled=row["compiled"]),
                    count=partial(count_published, row["network"], int(batch_size), row["precision"]),
                )
            )
    return [*published, *(row for path in sorted(folder.glob("*.json")) for row in _of_report(path))]


def efficiency_of(rows: Sequence[Calibration], roof: Roof, family: str) -> Efficiency | None:
    """The efficiency of a family of networks on some hardware, by measured rows; None if none is of its kind.

    Rows of the same machine and family count alone. If this family has none here but others have, rows of the family
    on other machines count, each times how the machines compare on other networks, up to the peak; else all rows of the
    machine, of the family, or of the kind.
    """
    alike = [row for row in rows if row.roof.kind == roof.kind]
    here = [row for row in alike if row.roof.machine == roof.machine]
    same = [row for row in here or alike if row.family == family]
    ratios = [(row, _ratio(alike, roof, row.roof)) for row in alike if row.family == family and not same]
    found = {row.name: min(1.0, ratio * share) for row, ratio in ratios if ratio and (share := row.efficiency)}
    found = found or {row.name: share for row in same or here or alike if (share := row.efficiency)}
    if not found:
        return None
    low, high = min(found.values()), max(found.values())
    middle, factor = math.sqrt(low * high), 1 + (OTHERWISE if here and same else OTHER_NETWORK)
    return Efficiency(low=min(low, middle / factor), middle=middle, high=max(high, middle * factor), rows=tuple(found))


def _ratio(rows: Sequence[Calibration], roof: Roof, other: Roof) -> float:
    """How many times as near to its peak as another machine one comes with networks that both have; 0 without any."""
    one, two = ({row.family: row for row in rows if row.roof.machine == at.machine} for at in (roof, other))
    pairs = [(one[family].efficiency, two[family].efficiency) for family in one.keys() & two.keys()]
    ratios = [mine / theirs for mine, theirs in pairs if mine and theirs]
    return geometric_mean(ratios) if ratios else 0.0


def measured_roof(rows: Sequence[Row], machine: str, precision: Precision, *, compiled: bool) -> Roof | None:
    """A processor's roof from rows of the suite `machine`; None where these are missing."""
    found = {row.name: row.value for row in rows if row.suite == "machine"}
    peak = found.get(f"matrix product, {precision}")
    copies = [value for name, value in found.items() if name.startswith("memory copy")]
    if peak is None or not copies:
        return None
    kind = message("fp32 on a CPU") if precision == "fp32" else message("bf16 on a CPU")
    bandwidth = 2e9 * max(copies)  # each byte copied is read and written
    return Roof(machine=machine, kind=kind, peak=1e9 * peak, bandwidth=bandwidth, compiled=compiled)


def _of_report(path: Path) -> list[Calibration]:
    """The training steps of a report that also has the machine's limits, or is of a card that is listed."""
    report = BenchReport.read(path)
    config, found = report.config, []
    network, side = msgspec.convert(config["network"], NetworkConfig), config["side"]
    for row in report.rows:
        if (row.suite, row.kind, row.unit) != ("model", "measured", "images/s") or not row.name.startswith(STEP):
            continue
        plain = PLAIN in row.name
        # Reports of earlier releases, all of processors, say neither in the row.
        precision: Precision = row.precision or ("fp32" if plain else config["precision"])
        images = row.batch_size or config["batch_size"]
        roof = _roof(report, precision, compiled=config["compile"] and not plain)
        if roof is None:
            continue
        how = message("{name} plain", name=precision) if plain else precision
        found.append(
            Calibration(
                name=message(
                    "{name}, {network}, side {side}, {how}", name=path.stem, network=network, side=side, how=how
                ),
                family=f"{network.name} plain" if plain else network.name,
                seconds=images / row.value,
                roof=roof,
                count=partial(take_census, network, side=side, batch_size=images, precision=precision),
            )
        )
    return found


def _roof(report: BenchReport, precision: Precision, *, compiled: bool) -> Roof | None:
    machine = report.environment
    if not machine.gpus:
        return measured_roof(report.rows, machine.processor, precision, compiled=compiled)
    try:
        return find_card(machine.gpus[0].name).roof(precision, compiled=compiled)
    except BenchError:
        return None


class PublishedUNet(nn.Module):
    """A U-Net of pairs of convolutions, each made by `pair` from channels before and after, and whether it halves."""

    def __init__(self, pair: Callable[[int, int, bool], nn.Sequential], widths: Sequence[int], classes: int) -> None:
        super().__init__()
        ups = widths[:0:-1]
        self.down = nn.ModuleList(pair(*both, at > 0) for at, both in enumerate(pairwise(widths)))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, 2) for before, after in pairwise(ups))
        self.up = nn.ModuleList(pair(2 * after, after, False) for after in ups[1:])
        self.head = nn.Conv2d(ups[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits `(N, classes, H, W)`, of fewer pixels than the image's if the pairs take some."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for grow, block, skip in zip(self.grow, self.up, skips[-2::-1], strict=True):
            x = grow(x)
            cut = (skip.shape[2] - x.shape[2]) // 2
            x = block(torch.cat((skip[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]], x), 1))
        logits: Tensor = self.head(x)
        return logits


def _valid_pair(before: int, after: int, halve: bool) -> nn.Sequential:
    """Of Ronneberger et al. 2015, to the letter: no padding, no BatchNorm; an image of 572 pixels gives 388."""
    pool = [nn.MaxPool2d(2)] if halve else []
    return nn.Sequential(*pool, nn.Conv2d(before, after, 3), nn.ReLU(True), nn.Conv2d(after, after, 3), nn.ReLU(True))


def _strided_pair(before: int, after: int, halve: bool) -> nn.Sequential:
    """Of nnU-Net: strided convolutions without bias, InstanceNorm, leaky ReLU."""
    layers: list[nn.Module] = []
    for width, stride in ((before, 1 + halve), (after, 1)):
        layers.append(nn.Conv2d(width, after, 3, stride, 1, bias=False))
        layers += nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU()
    return nn.Sequential(*layers)


class _Bottleneck(nn.Module):
    """A block of ResNet-50, version 1.5: the stride is that of the 3x3 convolution."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        last = _normed(width, 4 * width, 1, 1)
        self.body = nn.Sequential(*_normed(before, width, 1, 1), relu, *_normed(width, width, 3, stride), relu, *last)
        self.skip = nn.Sequential(*(() if before == 4 * width else _normed(before, 4 * width, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def _normed(before: int, after: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after)


def _resnet50() -> nn.Sequential:
    layers: list[nn.Module] = [*_normed(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        layers.append(_Bottleneck(64 if width == 64 else 2 * width, width, 1 if width == 64 else 2))
        layers += (_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


@cache
def count_published(network: str, batch_size: int, precision: Precision) -> Census:
    """The census of a step of a network of `published.json`, with cross-entropy."""
    networks: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
        "UNet_Medical": (partial(PublishedUNet, _valid_pair, (1, 64, 128, 256, 512, 1024), 2), (1, 572, 572)),
        "nnU-Net": (partial(PublishedUNet, _strided_pair, (4, 32, 64, 128, 256, 512, 512), 4), (4, 192, 160)),
        "ResNet-50": (_resnet50, (3, 224, 224)),
    }
    build, shape = networks[network]

    def step(module: nn.Module) -> Tensor:
        with autocast("cpu", precision):
            logits = module(torch.empty(batch_size, *shape))
        target = torch.empty(batch_size, *logits.shape[2:], dtype=torch.int64)
        return F.cross_entropy(logits.float(), target)

    return count_step(build, step, batch_size)
