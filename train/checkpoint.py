"""Checkpoints: a trained network, and for `last_model.pth` everything that the next step depends on.

A file is one `torch.save` of plain values and tensors, read with `weights_only=True`, so that it cannot run code.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from cache.atomic import write_atomically
from cache.choices import Fit
from cache.machine import out_of_memory
from cache.messages import UserError, joined, message, system_reason
from cache.spec import CacheSpec
from model.base import SegmentationNetwork
from model.network import build_network
from train.config import TrainConfig
from train.result import EpochResult, Inference

KIND = "maskcache checkpoint"
VERSION = 1


class CheckpointError(UserError):
    """A checkpoint cannot be read, written or resumed from; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an unfinished epoch has come."""

    step: int = 0  # steps done, over all epochs; all else is of this epoch
    loss_sum: float = 0.0  # of the steps
    seconds: float = 0.0  # of training, without warm-up
    waited: float = 0.0  # part of `seconds` that was spent waiting for the loader
    warmup: float = 0.0  # seconds of the warm-up steps, which compile: the first step of each process
    warmup_steps: int = 0
    skipped: int = 0  # images left out because of a bad record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """Everything beside the weights that the next step depends on."""

    progress: Progress  # of the epoch that comes next or has begun
    step: dict[str, Any]  # `TrainStep.state_dict` without the network
    loader: dict[str, int]  # `state_dict` of the training loader
    random: dict[str, Tensor]  # see `random_state`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a file."""

    config: TrainConfig
    fingerprint: str  # of the cache that the network was trained on, as `spec`
    spec: CacheSpec
    results: tuple[EpochResult, ...]  # the epochs that are done
    network: dict[str, Tensor]  # the network's `state_dict`; contiguous (NCHW) on disk
    inference: Inference | None = None  # measured at the end of training; None in a file from before that
    continuation: Continuation | None = None  # what a resumed run needs; None in a file that is only for use

    @property
    def use(self) -> Inference:
        """The side and the threshold to use the network with: as measured, else the cache's side and a half."""
        return self.inference or Inference(side=self.spec.side)


def random_state() -> dict[str, Tensor]:
    """Give the states of torch's generators. Dropout draws from them, and training draws from no others."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    """Undo `random_state`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; `path` is always a whole one, the old or the new one.

    Raises `CheckpointError`: the disk is full, or `path` cannot be written.
    """
    document = {
        "kind": KIND,
        "version": VERSION,
        "config": checkpoint.config.to_dict(),
        "fingerprint": checkpoint.fingerprint,
        "side": checkpoint.spec.side,  # side and fit stand alone, too: earlier releases read no spec
        "fit": checkpoint.spec.fit,
        "spec": dataclasses.asdict(checkpoint.spec),
        "results": [dataclasses.asdict(result) for result in checkpoint.results],
        "network": {name: value.detach().cpu().contiguous() for name, value in checkpoint.network.items()},
    }
    if checkpoint.inference:
        document["inference"] = dataclasses.asdict(checkpoint.inference)
    if checkpoint.continuation:
        values = vars(checkpoint.continuation)
        document["continuation"] = {**values, "progress": dataclasses.asdict(checkpoint.continuation.progress)}
    archive = io.BytesIO()  # given a file, torch would tell of a full disk by a RuntimeError that hides the reason
    torch.save(document, archive)
    _write(path, archive.getbuffer())


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's weights as safetensors; network, side, fit, category and how to use it are metadata.

    Raises `CheckpointError`: the disk is full, or `path` cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.network.items()}
    network = json.dumps(checkpoint.config.to_dict()["network"])
    spec = checkpoint.spec
    metadata = {"kind": KIND, "network": network, "side": str(spec.side), "fit": spec.fit}
    metadata["category"] = ", ".join(spec.categories)
    if use := checkpoint.inference:
        metadata |= {"use_side": str(use.side), "threshold": str(use.threshold)}
    _write(path, save(tensors, metadata))


def _write(path: Path, data: bytes | memoryview) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(
            "cannot write {path}: {reason}; an earlier file there is still whole; free some space and resume",
            path=path,
            reason=system_reason(error),
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, all tensors on the CPU.

    Raises `CheckpointError`: there is no such file, it is no checkpoint, or one of another version.
    """
    if what := _foreign(path):
        raise _no_checkpoint(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign files; the error has a reason
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch documents no kind of error for bytes that it cannot read
        what = message("it is damaged, or holds objects, which are not read: they could run code")
        raise _no_checkpoint(path, what) from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise _no_checkpoint(path, message("it was saved by another program, or holds the bare weights of a network"))
    if not isinstance(version := document.get("version"), int) or version != VERSION:
        values = {"path": path, "found": version, "version": VERSION}
        raise CheckpointError(
            "{path} has checkpoint version {found}; this release reads version {version}; use the release that wrote "
            "it",
            **values,
        )
    with values_of(path):
        return Checkpoint(
            config=TrainConfig.from_dict(document["config"]),
            fingerprint=msgspec.convert(document["fingerprint"], str),
            spec=_spec(document),
            results=msgspec.convert(document["results"], tuple[EpochResult, ...]),
            network=msgspec.convert(document["network"], dict[str, Tensor]),
            inference=msgspec.convert(document.get("inference"), Inference | None),
            continuation=msgspec.convert(document.get("continuation"), Continuation | None),
        )


@contextmanager
def values_of(path: Path) -> Iterator[None]:
    """Raise a `CheckpointError` in the block if values are not those of a checkpoint, whoever notices it and how."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise CheckpointError(
            "{path} lacks what a checkpoint has ({error}); it was changed or is damaged", path=path, error=error
        ) from None


def _spec(document: dict[str, Any]) -> CacheSpec:
    """The spec of the cache; earlier releases wrote its side and fit alone, the first ones its side."""
    if "spec" in document:
        return msgspec.convert(document["spec"], CacheSpec)
    fit = msgspec.convert(document.get("fit", "letterbox"), Fit)
    return CacheSpec(side=msgspec.convert(document["side"], int), fit=fit)


def _no_checkpoint(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        "{path} is no checkpoint of a training run: {what}; use the best_model.pth or last_model.pth that `train` "
        "wrote, as in runs/latest/checkpoints",
        path=path,
        what=what,
    )


_FOREIGN = (
    (rb"\Z", message("it is empty")),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|.{4}ftyp|.{8}WEBP", message("it is a picture or a video")),
    (rb'.{8}\{"', message("it is safetensors, weights without the settings of their run")),
)
"""Kinds of files that are no checkpoints, by a pattern of their first bytes."""


def _foreign(path: Path) -> str:
    """The kind of a file that is certainly no checkpoint; empty if it may be one."""
    if path.is_dir():
        return message("it is a folder")
    if path.is_fifo():  # to open it is to wait for its writer
        return message("it is a pipe")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError("{path} does not exist; train first, or check the path", path=path) from None
    except OSError as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}; check its permissions", path=path, reason=system_reason(error)
        ) from None
    for pattern, kind in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            return kind
    if head.startswith(b"PK"):  # a ZIP archive, as a checkpoint is
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.rpartition("/")[2] for name in archive.namelist()}
        except (OSError, zipfile.BadZipFile):
            return message("it is cut short or damaged")
        if "constants.pkl" in names or "data.pkl" not in names:
            return message("it is a ZIP archive of something else, as an exported program")
        return ""
    if head.startswith(b"\x80"):  # a pickle, as torch wrote them long ago
        return ""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be within a letter
    except UnicodeDecodeError:
        text = "\0"
    if all(sign.isprintable() or sign.isspace() for sign in text):
        return message("it is text")
    return message("it is of another kind")


def check_resumable(path: Path, saved: Checkpoint, config: TrainConfig, fingerprint: str) -> Continuation:
    """Give what a resumed run needs.

    Raises:
        CheckpointError: the checkpoint is of another run; the message names each setting that differs. `epochs` may
            only be raised.
    """
    if saved.continuation is None:
        raise CheckpointError("{path} holds weights only, nothing to resume from; use a last_model.pth", path=path)
    if fingerprint != saved.fingerprint:
        raise CheckpointError(
            "{cache} is not the cache that {path} was trained on (another fingerprint: other images, "
            "annotations or specification); use that one, or start anew with another --out",
            cache=config.loader.cache,
            path=path,
        )
    differences = saved.config.differences(config)
    before, wanted = saved.config.epochs, config.epochs
    if wanted < before:
        differences.append(
            message("epochs: {epochs}, which may be raised, not lowered to {lower}", epochs=before, lower=wanted)
        )
    if differences:
        raise CheckpointError(
            "{path} was trained with {differences}; resume with the same values, or start anew with another --out",
            path=path,
            differences=joined("; ", differences),
        )
    return saved.continuation


def load_network(path: Path, *, device: str = "cpu") -> tuple[SegmentationNetwork, Checkpoint]:
    """Give the network of a checkpoint, in eval mode, channels_last, on `device`, and the checkpoint itself.

    Raises `CheckpointError`: see `load_checkpoint`; or the weights do not fit the network that the configuration names.
    """
    saved = load_checkpoint(path)
    try:
        with torch.device("meta"):  # without memory, before one is made of whatever size the file names
            build_network(saved.config.network).load_state_dict(saved.network, assign=True)
        network = build_network(saved.config.network)
        network.load_state_dict(saved.network)
    except RuntimeError as error:
        values = {"path": path, "network": saved.config.network, "reason": str(error).splitlines()[0]}
        raise CheckpointError(
            "{path} does not fit the network {network} that it names ({reason}); use the release that wrote it",
            **values,
        ) from None
    return network.to(device).eval(), saved
