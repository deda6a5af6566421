"""Pretrained weights for the encoder of an `EncoderUNet`, from timm's hub or from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.messages import message
from model.encoder_unet import PREFIX, EncoderError, EncoderUNet

AUTO, NONE = "auto", "none"
"""Download them, or go on without; start from scratch. Anything else is a file."""


def start_encoder(network: EncoderUNet, weights: str) -> str:
    """Put pretrained weights into a network's encoder, if they can be had, and give a line that says what it has.

    Args:
        network: a new one.
        weights: `auto`, `none` or a file with a `state_dict` by timm's names, .safetensors or as torch saves it.

    Raises:
        EncoderError: the file cannot be read, or is not of this encoder.
    """
    encoder = network.encoder_name
    if weights == NONE:
        return message("encoder {encoder} starts from scratch, as --encoder-weights none wants it", encoder=encoder)
    if weights != AUTO:
        _take(network, _read(Path(weights), encoder), weights)
        return message("encoder {encoder} starts with the weights of {weights}", encoder=encoder, weights=weights)
    try:
        state, source = _download(encoder)
    except Exception as error:  # of the hub, the network, the disk, or for want of weights
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return message(
            "encoder {encoder} starts from scratch, for its weights could not be had ({reason}); "
            "--encoder-weights FILE takes them from a file",
            encoder=encoder,
            reason=reason[:200],
        )
    _take(network, state, source)
    return message("encoder {encoder} starts with pretrained weights, {source}", encoder=encoder, source=source)


def _download(encoder: str) -> tuple[Mapping[str, Tensor], str]:
    """Pretrained weights, which timm keeps below ~/.cache for the next time, and their name."""
    import timm

    with torch.random.fork_rng():  # whoever trains draws the same numbers, with weights or without
        donor: Any = timm.create_model(encoder.removeprefix(PREFIX), pretrained=True, features_only=True)
    source = donor.pretrained_cfg
    return donor.state_dict(), f"{source['architecture']}.{source['tag']}" if source.get("tag") else encoder


def _read(path: Path, encoder: str) -> Mapping[str, Tensor]:
    from timm.models import load_state_dict

    try:
        state: Mapping[str, Tensor] = load_state_dict(str(path), device="cpu", weights_only=True)
    except FileNotFoundError:
        raise EncoderError("encoder_weights={path} does not exist; use auto, none or a file", path=path) from None
    except Exception as error:  # each format has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EncoderError(
            "encoder_weights={path} holds no weights ({reason}); use a state_dict of {encoder}, .safetensors "
            "or as torch.save writes it",
            path=path,
            reason=reason[:120],
            encoder=encoder,
        ) from None
    return state


def _take(network: EncoderUNet, state: Mapping[str, Tensor], source: str) -> None:
    """Fill every tensor of the encoder, or raise; what the file has beyond (a classifier) is left alone."""
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
    if missing:
        raise EncoderError(
            "{source} lacks {missing_count} of the {needed_count} tensors of encoder {encoder}, first "
            "{missing!r}; {remedy}",
            source=source,
            missing_count=len(missing),
            needed_count=len(needed),
            encoder=encoder,
            missing=missing[0],
            remedy=remedy,
        )
    for name in needed:
        shape, wanted = tuple(found[name].shape), tuple(mine[name].shape)  # type: ignore[union-attr]  # none is missing
        if shape != wanted:
            raise EncoderError(
                "{source} has {name!r} of shape {shape}, and encoder {encoder} wants {wanted}; {remedy}",
                source=source,
                name=name,
                shape=shape,
                encoder=encoder,
                wanted=wanted,
                remedy=remedy,
            )
    network.encoder.load_state_dict({name: mine[name] if value is None else value for name, value in found.items()})
