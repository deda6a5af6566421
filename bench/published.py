"""Training rates that others have published, for the estimates to be checked against."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.cards import Card, find_card
from bench.census import Census, count_step
from train.config import Precision
from train.step import DTYPES

WIDTHS = (64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedRate:
    """A rate of the classic U-Net for biomedical images.

    Attributes:
        card: that trained.
        precision: of the convolutions.
        batch_size: images in a step.
        images_per_s: published.
    """

    card: Card
    precision: Precision
    batch_size: int
    images_per_s: float

    @property
    def name(self) -> str:
        """In words."""
        return f"UNet_Medical, {self.card.name}, {self.precision}"

    def census(self) -> Census:
        """Count its step."""
        return count_valid_unet(self.batch_size, self.precision)


SOURCE = "NVIDIA DeepLearningExamples, TensorFlow2/Segmentation/UNet_Medical, training performance"
PUBLISHED = (
    PublishedRate(card=find_card("A100-40"), precision="fp16", batch_size=8, images_per_s=119),
    PublishedRate(card=find_card("V100"), precision="fp16", batch_size=8, images_per_s=60),
    PublishedRate(card=find_card("V100"), precision="fp32", batch_size=8, images_per_s=17.9),
)
"""One GPU each, 572 x 572 pixels, XLA."""


class ValidUNet(nn.Module):
    """Ronneberger et al. 2015 to the letter: no padding, no BatchNorm; an image of 572 pixels gives 388."""

    def __init__(self) -> None:
        super().__init__()
        ups = list(reversed(WIDTHS))
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairwise(ups))
        self.up = nn.ModuleList(_pair(a, b) for a, b in pairwise(ups))
        self.head = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Give two logits a pixel."""
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
    """Count a step of `ValidUNet`."""

    def step(network: nn.Module) -> Tensor:
        image = torch.empty(batch_size, 1, side, side).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=DTYPES[precision], enabled=precision != "fp32"):
            logits = network(image)
        target = torch.empty(logits.shape[0], *logits.shape[2:], dtype=torch.int64)
        return F.cross_entropy(logits.float(), target)

    return count_step(lambda: ValidUNet().to(memory_format=torch.channels_last), step, batch_size)  # type: ignore[call-overload]
