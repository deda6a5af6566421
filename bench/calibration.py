"""Measured training steps, which tell the estimates how near to its peak hardware comes.

They are rates of GPUs that others have published, and the reports in `bench/results`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from itertools import pairwise
from pathlib import Path

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
from train.step import DTYPES

CPU_OVERHEAD = 3e-5
"""Seconds per kernel on a CPU: torch's dispatch, and threads that wait for each other. A GPU's are queued ahead."""

OTHERWISE = 0.15
"""Least relative error of an estimate at other sizes than those of its row, from experience."""

RESULTS = Path(__file__).parent / "results"
"""Reports of machines, as `cli.py bench --json` writes them."""

STEPS = ("training step (profile)", "training step (plain torch)")
"""Names of the rows of the suite `model`."""

PUBLISHED: tuple[tuple[str, Precision, float], ...] = (
    ("A100-40", "fp16", 119),
    ("V100", "fp16", 60),
    ("V100", "fp32", 17.9),
)
"""Card, precision and images/s of one GPU with XLA, at batch 8 and 572 x 572 pixels: NVIDIA DeepLearningExamples,
TensorFlow2/Segmentation/UNet_Medical, training performance."""

PUBLISHED_BATCH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A measured training step."""

    name: str  # hardware, network and shape in words
    family: str  # of the network: its name, or `published`
    seconds: float  # measured time of the step
    roof: Roof  # of the hardware
    count: Callable[[], Census]  # gives the census of the step

    @property
    def images_per_s(self) -> float:
        """The measured rate."""
        return self.count().images / self.seconds

    @cached_property  # found by bisection, and needed by each estimate
    def efficiency(self) -> float | None:
        """Share of the peak that its convolutions reached; None if memory explains all of the time."""
        return implied_efficiency(self.count(), self.roof, self.seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The share of the peak that convolutions reach: a range, at least `OTHERWISE` around its middle."""

    low: float
    high: float
    rows: tuple[str, ...]  # names of the rows that it is taken from

    @property
    def middle(self) -> float:
        """The geometric mean of both ends."""
        return math.sqrt(self.low * self.high)


def calibrations(folder: Path = RESULTS) -> list[Calibration]:
    """All rows: the published ones, then those of the reports in a folder; for errors see `BenchReport.read`."""
    published = [
        Calibration(
            name=f"UNet_Medical, {card}, {precision}",
            family="published",
            seconds=PUBLISHED_BATCH / rate,
            roof=find_card(card).roof(precision, compiled=True),
            count=partial(count_valid_unet, PUBLISHED_BATCH, precision),
        )
        for card, precision, rate in PUBLISHED
    ]
    return [*published, *(row for path in sorted(folder.glob("*.json")) for row in _of_report(path))]


def efficiency_of(rows: Sequence[Calibration], roof: Roof, family: str) -> Efficiency | None:
    """The efficiency of a family of networks on some hardware, by measured rows; None if none is of its kind.

    If there are rows of the same machine, only those count; of them only those of the same family, if there are any.
    """
    alike = [row for row in rows if row.roof.kind == roof.kind]
    alike = [row for row in alike if row.roof.machine == roof.machine] or alike
    alike = [row for row in alike if row.family == family] or alike
    found = {row.name: efficiency for row in alike if (efficiency := row.efficiency)}
    if not found:
        return None
    low, high = min(found.values()), max(found.values())
    least, most = (math.sqrt(low * high) * factor for factor in (1 / (1 + OTHERWISE), 1 + OTHERWISE))
    return Efficiency(low=min(low, least), high=max(high, most), rows=tuple(found))


def measured_roof(rows: Sequence[Row], machine: str, precision: Precision, *, compiled: bool) -> Roof | None:
    """A processor's roof from rows of the suite `machine`; None where these are missing."""
    found = {row.name: row.value for row in rows if row.suite == "machine"}
    peak = found.get(f"matrix product, {precision}")
    copies = [value for name, value in found.items() if name.startswith("memory copy")]
    if peak is None or not copies:
        return None
    return Roof(
        machine=machine,
        kind=message("fp32 on a CPU") if precision == "fp32" else message("bf16 on a CPU"),
        peak=1e9 * peak,
        bandwidth=2e9 * max(copies),  # each byte copied is read and written
        compiled=compiled,
        overhead=CPU_OVERHEAD,
    )


def _of_report(path: Path) -> list[Calibration]:
    """The training steps of a report that also has the machine's limits, or is of a card that is listed."""
    report = BenchReport.read(path)
    config, found = report.config, []
    for name, plain in zip(STEPS, (False, True), strict=True):
        row = report.find("model", name)
        precision: Precision = "fp32" if plain else config["precision"]
        roof = _roof(report, precision, compiled=config["compile"] and not plain)
        if row is None or roof is None:
            continue
        network = msgspec.convert(config["network"], NetworkConfig)
        side, images = config["side"], config["batch_size"]
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


class ValidUNet(nn.Module):
    """Ronneberger et al. 2015 to the letter: no padding, no BatchNorm; an image of 572 pixels gives 388."""

    def __init__(self) -> None:
        super().__init__()
        downs = (1, 64, 128, 256, 512, 1024)
        ups = downs[:0:-1]
        self.down = nn.ModuleList(_pair(before, after) for before, after in pairwise(downs))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, 2) for before, after in pairwise(ups))
        self.up = nn.ModuleList(_pair(before, after) for before, after in pairwise(ups))
        self.head = nn.Conv2d(ups[-1], 2, 1)

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Compute two logits per pixel."""
        x, skips = self.down[0](x_N1HW), []
        for block in list(self.down)[1:]:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for grow, block in zip(self.grow, self.up, strict=True):
            x, skip = grow(x), skips.pop()
            cut = (skip.shape[2] - x.shape[2]) // 2
            x = block(torch.cat((skip[:, :, cut:-cut, cut:-cut], x), 1))
        logits: Tensor = self.head(x)
        return logits


def _pair(before: int, after: int) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(before, after, 3), relu, nn.Conv2d(after, after, 3), relu)


@cache
def count_valid_unet(batch_size: int, precision: Precision, side: int = 572) -> Census:
    """The census of a step of `ValidUNet`."""

    def step(network: nn.Module) -> Tensor:
        image = torch.empty(batch_size, 1, side, side).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits = network(image)
        target = torch.empty(logits.shape[0], *logits.shape[2:], dtype=torch.int64)
        return F.cross_entropy(logits.float(), target)

    return count_step(lambda: ValidUNet().to(memory_format=torch.channels_last), step, batch_size)  # type: ignore[call-overload]
