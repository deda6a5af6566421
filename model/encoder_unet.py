"""A U-Net on an encoder of timm's, for weights that were trained on ImageNet.

Tensor suffixes: N images, 3 normalised RGB, C channels, H and W pixels of a level.
"""

from __future__ import annotations

import difflib
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cache.messages import UserError, listed, message
from model.base import SegmentationNetwork
from model.blocks import ConvBNReLU, DoubleConv, UpConv, UpNearest, concat, initialise, round_up_to_8

PREFIX = "timm:"


class EncoderError(UserError):
    """An encoder cannot be had or used; the message names it, and the remedy."""


class EncoderUNet(SegmentationNetwork):
    """The decoder of `ResUNet` on any convolutional encoder that halves the size again and again.

    The decoder goes up through all sizes; at each the encoder's features join, where it has some of that size. As in
    `ResUNet`, a thin convolution at full size joins last, so that edges are placed by the image's own pixels. The
    image is normalised as the encoder's weights want it. The encoder starts as timm starts it, without pretrained
    weights: see `model.encoder_weights`.

    Args:
        encoder: `timm:` and a name of timm's, as `timm:resnet34`.
        width: channels of the decoder at half and at a quarter of the size; twice as many at an eighth, and so on.
        dropout: probability that a whole channel of the deepest features is zeroed in training, 0 to below 1.

    Raises:
        EncoderError: timm is not there or doesn't know it, or its features are no such pyramid.
    """

    def __init__(self, encoder: str, width: int, dropout: float = 0.0) -> None:
        body = create_encoder(encoder)
        channels = _pyramid(encoder, body)
        thin = round_up_to_8(width // 4)
        super().__init__(
            head_width=thin, mean=body.pretrained_cfg["mean"], std=body.pretrained_cfg["std"], padded=False
        )
        self.encoder_name, self.stride = encoder, max(channels)
        self._reductions = tuple(channels)
        self.detail = ConvBNReLU(3, thin)
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        up: list[nn.Module] = []
        decoder: list[nn.Module] = []
        below, reduction = channels[self.stride], self.stride // 2
        while reduction > 1:
            level = width * max(1, reduction // 4)
            both = level + channels.get(reduction, 0)
            up.append(UpNearest(below, level))
            decoder.append(DoubleConv(both, level) if reduction > 2 else ConvBNReLU(both, level))
            below, reduction = level, reduction // 2
        self.up = nn.ModuleList([*up, UpConv(below, thin)])
        self.decoder = nn.ModuleList([*decoder, ConvBNReLU(2 * thin, thin)])
        initialise(self)
        self.encoder = body  # after that: it has starting weights of its own

    def features(self, image_N3HW: Tensor) -> Tensor:
        """Give `(N, head_width, H, W)`."""
        levels = dict(zip(self._reductions, self._encode(image_N3HW), strict=True))
        x_NCHW: Tensor = self.dropout(levels[self.stride])
        levels[1] = self.detail(image_N3HW)
        reduction = self.stride
        for up, block in zip(self.up, self.decoder, strict=True):
            reduction //= 2
            x_NCHW = up(x_NCHW)
            x_NCHW = block(concat(x_NCHW, levels[reduction]) if reduction in levels else x_NCHW)
        return x_NCHW

    def _encode(self, image_N3HW: Tensor) -> list[Tensor]:
        # Some encoders answer in another memory format than they were asked in.
        layout = self.normalise.memory_format
        levels = [level_NCHW.contiguous(memory_format=layout) for level_NCHW in self.encoder(image_N3HW)]
        return levels[-len(self._reductions) :]


def create_encoder(encoder: str) -> Any:  # a Module with attributes of timm's own
    """Make timm's network with its starting weights; it gives features of each size, the finest first.

    Raises:
        EncoderError: timm is not there, or doesn't know it.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise EncoderError(
            "encoder={encoder!r} needs the package {name}, which is not installed: pip install -e '.[timm]'",
            encoder=encoder,
            name=error.name,
        ) from None
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise EncoderError(
            "encoder={encoder!r} needs torchvision, and the one that is installed was built for another "
            "torch than {version}: install both from one place, as https://pytorch.org/get-started tells",
            encoder=encoder,
            version=torch.__version__,
        ) from None
    name = encoder.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise EncoderError(
            "encoder={encoder!r} is not known to timm {version}; {value}",
            encoder=encoder,
            version=timm.__version__,
            value=(
                message("is it {near}?", near=listed((PREFIX + known for known in near), "or"))
                if near
                else message("try timm:resnet34")
            ),
        )
    try:
        return timm.create_model(name, pretrained=False, features_only=True)
    except Exception as error:  # whatever each of a thousand networks makes of it
        raise EncoderError(
            "encoder={encoder!r} gives no features ({error}); try timm:resnet34", encoder=encoder, error=error
        ) from None


def _pyramid(encoder: str, body: Any) -> dict[int, int]:
    """Channels by reduction of the size, the finest first; the full size, which some have, is left out."""
    channels = dict(zip(body.feature_info.reduction(), body.feature_info.channels(), strict=True))
    channels.pop(1, None)
    reductions = list(channels)
    steady = reductions and reductions[0] in (2, 4) and all(b == 2 * a for a, b in pairwise(reductions))
    if steady:
        height, width = 2 * reductions[-1], 3 * reductions[-1]
        body.eval()
        try:
            with torch.no_grad():
                levels = body(torch.zeros(1, 3, height, width))[-len(channels) :]
            found = [tuple(level_NCHW.shape[1:]) for level_NCHW in levels]
            steady = found == [(count, height // by, width // by) for by, count in channels.items()]
        except Exception:  # of an encoder that takes only images of one size
            steady = False
        body.train()
    if not steady:
        raise EncoderError(
            "encoder={encoder!r} does not halve images of any size step by step (its features are at "
            "1/{reduction}); use a convolutional one, as timm:resnet34, timm:convnext_tiny or "
            "timm:tf_efficientnet_lite0",
            encoder=encoder,
            reduction=", 1/".join(map(str, body.feature_info.reduction())),
        )
    return channels
