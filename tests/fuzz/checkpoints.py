"""Checkpoints: their bytes, the pickle in them, and values that mean nonsense; to use, and to resume from."""

from __future__ import annotations

import io
import json
import pickletools
import random
import tempfile
import zipfile
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from cache.messages import UserError
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from loader.loader import Loader
from model.metrics import Scores
from model.network import NetworkConfig, build_network
from tests.fuzz import Target
from tests.fuzz.mutation import VALUES, mutate_bytes
from train.checkpoint import Checkpoint, Continuation, Progress, load_network, random_state, save_checkpoint
from train.config import TrainConfig
from train.ranks import ALONE
from train.result import EpochResult
from train.run import Run
from train.step import TrainStep

FOLDER = tempfile.TemporaryDirectory(prefix="maskcache-fuzz-")
PATH = Path(FOLDER.name) / "last_model.pth"

CONFIG = TrainConfig(
    loader=LoaderConfig(cache=Path("cache"), batch_size=2), out=Path("run"),
    network=NetworkConfig(width=8, name="unet"), epochs=5, average=0.5,
)  # fmt: skip
RESULT = EpochResult(
    epoch=1, epochs=5, train_loss=0.5, train_accuracy=0.9, val_loss=0.25, val=Scores.from_counts(5, 1, 2, 9),
    learning_rate=1e-3, train_seconds=10.0, val_seconds=1.0, images_per_s=3.5, wait_share=0.125, best=True,
)  # fmt: skip


@cache
def whole() -> bytes:
    """A `last_model.pth` after one step."""
    torch.manual_seed(0)
    network = build_network(CONFIG.network)
    step = _step()
    step.network.load_state_dict(network.state_dict())
    image, plane = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    step(image.contiguous(memory_format=torch.channels_last), plane, plane, 1e-3)
    state = step.state_dict()
    checkpoint = Checkpoint(
        config=CONFIG, fingerprint="f" * 64, spec=CacheSpec(side=32), results=(RESULT,), network=state.pop("network"),
        continuation=Continuation(progress=Progress(step=1), step=state, loader={"epoch": 0, "consumed": 2},
                                  random=random_state()),
    )  # fmt: skip
    save_checkpoint(PATH, checkpoint)
    return PATH.read_bytes()


def _step() -> TrainStep:
    from train.optimizer import WeightAverage
    from train.run import prepare_network

    network = prepare_network(CONFIG)
    return TrainStep(CONFIG, network, average=WeightAverage(network, CONFIG.average))


@cache
def _fresh() -> TrainStep:
    return _step()


def use(data: bytes) -> None:
    """Load a file for use, and resume from it; either may refuse it."""
    PATH.write_bytes(data)
    with suppress(UserError):
        _, saved = load_network(PATH)
        loader = SimpleNamespace(
            global_batch=2, reader=range(4), config=SimpleNamespace(split="train"), _go_to=lambda _: None
        )
        loader.load_state_dict = lambda state: Loader.load_state_dict(loader, state)
        run = SimpleNamespace(
            folder=SimpleNamespace(last_model=PATH), config=CONFIG, base=SimpleNamespace(fingerprint="f" * 64),
            step=_fresh(), train=loader, ranks=ALONE, notes=(),
        )  # fmt: skip
        Run.resume(run, saved)
        assert isinstance(run.progress, Progress)


# --- values ----------------------------------------------------------------------------------------------------------

MARKS = {"tensor": lambda shape: torch.zeros(shape), "longs": lambda shape: torch.zeros(shape, dtype=torch.int64)}


def check_values(data: bytes) -> None:
    """A JSON list of edits, `[path, value]`: the path is one of keys, `{"tensor": [2]}` stands for a tensor."""
    try:
        edits = json.loads(data)
        document = _copied(_document())
        for path, value in edits:
            _edit(document, path, value)
        buffer = io.BytesIO()
        torch.save(document, buffer)
    except Exception:  # no edits, or none that can be saved
        return
    use(buffer.getvalue())


@cache
def _document() -> dict[str, Any]:
    return torch.load(io.BytesIO(whole()), weights_only=True)


def _copied(value: Any) -> Any:
    """Copies of dictionaries and lists, with the same tensors."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [*map(_copied, value)] if isinstance(value, list) else value


def _edit(document: Any, path: list[Any], value: Any) -> None:
    *way, last = path
    place = document
    for key in way:
        place = place[_key(place, key)]
    if value == {"delete": 1}:
        del place[_key(place, last)]
    else:
        place[_key(place, last)] = _value(value)


def _key(place: Any, key: Any) -> Any:
    """Keys of optimizers' states are numbers, which JSON does not have."""
    return int(key) if isinstance(place, dict) and key not in place and str(key).isdigit() else key


def _value(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1 and (mark := next(iter(value))) in MARKS:
        shape = value[mark]
        if len(shape) < 5 and all(0 <= side < 100 for side in shape):
            return MARKS[mark](shape)
    return value


def mutate_edits(data: bytes, draw: random.Random) -> bytes | None:
    try:
        edits = json.loads(data)
    except ValueError:
        edits = []
    edits = edits if isinstance(edits, list) and draw.random() < 0.5 else []
    path, place = [], _document()
    while isinstance(place, dict | list) and place and (not path or draw.random() < 0.85):
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        path.append(key)
        place = place[key]
    value = draw.choice([
        *VALUES, {"delete": 1}, {"tensor": [2]}, {"tensor": []}, {"longs": [4]}, {"tensor": [0, 3]}, "unet", "resunet",
        8, 16, 10**7, place if isinstance(place, int | float | str) else 3,
    ])  # fmt: skip
    try:
        return json.dumps([*edits[-3:], [path, value]]).encode()
    except (TypeError, ValueError):
        return None


def values() -> list[bytes]:
    return [
        json.dumps([[path, value]]).encode()
        for path, value in (
            (["config", "network", "width"], 16), (["continuation", "step", "counts"], {"tensor": [3]}),
            (["continuation", "random", "cpu"], {"tensor": [2]}), (["spec", "side"], 64), (["results"], []),
            (["continuation", "loader", "consumed"], 3), (["config", "network", "width"], 10**7), (["config"], 2),
            (["version"], {"tensor": [2]}), (["inference"], {"side": 10**9, "threshold": 7.0}),
            (["continuation", "progress", "step"], -1),
        )
    ]  # fmt: skip


# --- bytes -----------------------------------------------------------------------------------------------------------


@cache
def _entries() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_small())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def _small() -> bytes:
    """A file with what a checkpoint has but the weights."""
    document = torch.load(io.BytesIO(whole()), weights_only=True)
    document["network"] = dict(list(document["network"].items())[:2])
    document["continuation"]["step"] = {"counts": torch.arange(4)}
    document["continuation"]["random"] = {"cpu": torch.arange(8, dtype=torch.uint8)}
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def check_pickle(data: bytes) -> None:
    """The pickle of a file, which is packed anew."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _entries().items():
            archive.writestr(name, data if name.endswith("/data.pkl") else content)
    use(buffer.getvalue())


def pickles() -> list[bytes]:
    return [content for name, content in _entries().items() if name.endswith("/data.pkl")]


def mutate_pickle(data: bytes, draw: random.Random) -> bytes | None:
    """Remove, repeat or exchange operations."""
    try:
        edges = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    except Exception:
        return None
    parts = [data[begin:end] for begin, end in pairwise(edges)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        match draw.randrange(4):
            case 0:
                parts[at] = parts[other]
            case 1 if len(parts) > 1:
                del parts[at]
            case 2:
                parts.insert(at, parts[other])
            case 3:
                parts[at] = mutate_bytes(parts[at], draw)
    return b"".join(parts)


def files() -> list[bytes]:
    legacy = io.BytesIO()
    torch.save({"kind": "maskcache checkpoint", "a": torch.zeros(2)}, legacy, _use_new_zipfile_serialization=False)
    return [_small(), legacy.getvalue()]


TARGETS = {
    "checkpoint_values": Target(check=check_values, seeds=values, mutate=mutate_edits),
    "checkpoint_pickle": Target(check=check_pickle, seeds=pickles, mutate=mutate_pickle),
    "checkpoint_file": Target(check=use, seeds=files),
}
