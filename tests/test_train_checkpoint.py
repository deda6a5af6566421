import dataclasses
import errno
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image

from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig, LoaderState
from model.metrics import Scores
from model.network import NetworkConfig, build_network
from train.checkpoint import (
    KIND,
    Checkpoint,
    CheckpointError,
    Continuation,
    Progress,
    check_resumable,
    load_checkpoint,
    load_network,
    random_state,
    save_checkpoint,
    save_weights,
)
from train.config import TrainConfig
from train.folder import RunFolder
from train.ranks import ALONE
from train.result import EpochResult
from train.run import Run
from train.step import TrainStep

CONFIG = TrainConfig(
    loader=LoaderConfig(cache=Path("cache")), out=Path("run"), network=NetworkConfig(width=8), epochs=5
)
SPEC = CacheSpec(side=64, fit="stretch", category=("dog", "cat"), crowd="drop", val_share=0.1)
RESULT = EpochResult(
    epoch=1, epochs=5, train_loss=0.5, train_accuracy=0.9, val_loss=0.25, val=Scores.from_counts(5, 1, 2, 9),
    learning_rate=1e-3, train_seconds=10.0, val_seconds=1.0, images_per_s=3.5, wait_share=0.125, best=True,
)  # fmt: skip


def checkpoint_of(seed: int = 0, *, channels_last: bool = True, whole: bool = True) -> Checkpoint:
    torch.manual_seed(seed)
    network = build_network(
        CONFIG.network, memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    continuation = Continuation(
        progress=Progress(step=7, loss_sum=1.5, seconds=2.0, waited=0.5),
        step={"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "scaler": {}, "counts": torch.arange(4)},
        loader={"epoch": 1, "consumed": 8},
        random=random_state(),
    )
    return Checkpoint(
        config=CONFIG,
        fingerprint="f" * 64,
        spec=SPEC,
        results=(RESULT,),
        network=network.state_dict(),
        continuation=continuation if whole else None,
    )


def test_everything_comes_back(tmp_path):
    saved = checkpoint_of()
    save_checkpoint(tmp_path / "a.pth", saved)
    back = load_checkpoint(tmp_path / "a.pth")
    assert dataclasses.replace(back, network={}, continuation=None) == dataclasses.replace(
        saved, network={}, continuation=None
    )
    assert back.network.keys() == saved.network.keys()
    for name, value in saved.network.items():
        assert torch.equal(back.network[name], value)
        assert back.network[name].is_contiguous()
    assert back.continuation.progress == saved.continuation.progress
    assert back.continuation.loader == saved.continuation.loader
    assert torch.equal(back.continuation.random["cpu"], saved.continuation.random["cpu"])
    assert torch.equal(back.continuation.step["counts"], torch.arange(4))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_network_is_ready_for_use_whatever_it_was_trained_in(tmp_path, channels_last):
    saved = checkpoint_of(3, channels_last=channels_last, whole=False)
    save_checkpoint(tmp_path / "best.pth", saved)
    network, loaded = load_network(tmp_path / "best.pth")
    assert not network.training
    assert (loaded.config, loaded.spec) == (CONFIG, SPEC)
    original = build_network(CONFIG.network, memory_format=torch.contiguous_format)
    original.load_state_dict(saved.network)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(network(image), original.eval()(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("left_out", "fit"), [(["spec"], "stretch"), (["spec", "fit"], "letterbox")])
def test_checkpoints_of_earlier_releases_are_of_persons(tmp_path, left_out, fit):
    save_checkpoint(tmp_path / "old.pth", checkpoint_of(whole=False))
    document = torch.load(tmp_path / "old.pth", weights_only=True)
    assert (document["side"], document["fit"]) == (64, "stretch"), "what those releases read"
    for name in left_out:
        del document[name]
    torch.save(document, tmp_path / "old.pth")
    assert load_network(tmp_path / "old.pth")[1].spec == CacheSpec(side=64, fit=fit)


def test_a_full_disk_leaves_the_older_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    save_checkpoint(path, checkpoint_of(0))
    before = path.read_bytes()

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = r"cannot write .*last\.pth: No space left on device; an earlier file there is still whole; free some"
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(path, checkpoint_of(1))
    with pytest.raises(CheckpointError, match=said):
        save_weights(path, checkpoint_of(1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_left_over_temporary_file_is_no_obstacle(tmp_path):
    path = tmp_path / "last.pth"
    path.with_name(".last.pth.tmp").write_bytes(b"a killed writer's")
    save_checkpoint(path, checkpoint_of())
    assert load_checkpoint(path).spec == SPEC
    assert list(tmp_path.iterdir()) == [path]


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return (Path("/nowhere").exists, ())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "it is a folder; use the best_model"),
        (os.mkfifo, "it is a pipe; use the best_model"),
        (lambda path: path.write_bytes(b""), "it is empty; use the best_model"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "it is text; use"),
        (lambda path: path.write_text("señal " * 999), "it is text; use"),
        (lambda path: Image.new("RGB", (9, 9)).save(path, "PNG"), "it is a picture or a video; use"),
        (lambda path: Image.new("RGB", (9, 9)).save(path, "JPEG"), "it is a picture or a video; use"),
        (lambda path: path.write_bytes(bytes(range(255, 0, -1))), "it is of another kind; use"),
        (lambda path: path.write_bytes(b"\x80\x04 a pickle, but no"), "it is damaged, or holds objects"),
        (lambda path: archive(path), "it is a ZIP archive of something else"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no end"), "it is cut short or damaged"),
        (lambda path: script(path), "it is a ZIP archive of something else"),
        (lambda path: safetensors.torch.save_file({"a": torch.zeros(3)}, path), "it is safetensors, weights without"),
        (lambda path: torch.save({"weights": torch.zeros(3)}, path), "or holds the bare weights of a network; use"),
        (
            lambda path: torch.save({"weights": torch.zeros(3)}, path, _use_new_zipfile_serialization=False),
            "or holds the bare weights of a network; use",
        ),
        (lambda path: torch.save(torch.zeros(3), path), "it was saved by another program"),
        (lambda path: torch.save({"kind": Evil()}, path), "holds objects, which are not read: they could run code"),
        (lambda path: truncated(path), "it is cut short or damaged; use the best_model"),
        (lambda path: torch.save({"kind": KIND}, path), "version None; this release reads"),
        (lambda path: changed(path, "network", "weights"), "lacks what a checkpoint has"),
        (lambda path: changed(path, "spec", {"side": "wide"}), "lacks what a checkpoint has"),
        (lambda path: changed(path, "config", {}), "lacks what a checkpoint has"),
        (lambda path: changed(path, "config", 3), "lacks what a checkpoint has"),
        (lambda path: changed(path, "config", wide()), "does not fit the network"),
        (lambda path: changed(path, "inference", {"side": 10**9}), r"int` <= 12288 - at `\$.side`"),
        (lambda path: changed(path, "inference", {"side": 64, "threshold": 7.0}), r"float` <= 1.0 - at `\$.threshold`"),
        (lambda path: changed(path, "version", torch.zeros(2)), "checkpoint version tensor"),
        (lambda path: changed(path, "version", 99), "version 99; this release reads version 1"),
        (lambda path: changed(path, "results", "none"), "lacks what a checkpoint has"),
        (lambda path: changed(path, "spec", {"fit": "squeeze"}), "lacks what a checkpoint has"),
        (lambda path: changed(path, "spec", {"side": 33}), "lacks what a checkpoint has"),
        (lambda path: changed(path, "network", {}), "does not fit the network"),
    ],
)
def test_wrong_files_get_one_clear_line(tmp_path, make, said):
    path = tmp_path / "model.pth"
    make(path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_network(path)
    assert "model.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("language", ["en", "es"])
def test_every_command_that_loads_a_checkpoint_says_what_the_file_is(tmp_path, monkeypatch, language):
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints").mkdir(parents=True)
    Path("folder").mkdir()
    Path("text.pth").write_text("notes")
    torch.save({"conv.weight": torch.zeros(3)}, "weights.pth")
    Image.new("RGB", (9, 9)).save("photo.png")
    commands = (
        ("predict", "photo.png", "--out", "o", "--model"),
        ("eval", "--coco", "none", "--checkpoint"),
        ("export", "--out", "o", "--model"),
    )
    for name in ("folder", "text.pth", "weights.pth", "photo.png"):
        for command in commands:
            result = CliRunner(catch_exceptions=False).invoke(main, ["--lang", language, *command, name])
            assert result.exit_code == 1, result.output
            assert result.stderr.startswith(f"error: {name} ")
            assert "best_model.pth" in result.stderr
            assert result.stderr.count("\n") == 1


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/readme.txt", "no checkpoint")


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def truncated(path: Path) -> None:
    save_checkpoint(path, checkpoint_of())
    path.write_bytes(path.read_bytes()[:-2000])


def changed(path: Path, key: str, value: object) -> None:
    save_checkpoint(path, checkpoint_of())
    document = torch.load(path, weights_only=True)
    torch.save({**document, key: value}, path)


def wide() -> dict[str, object]:
    """A configuration with a network that needs more memory than there is anywhere."""
    return CONFIG.changed(**{"network.width": 2**20}).to_dict()


class Anywhere:
    """A loader without a cache."""

    def load_state_dict(self, state):
        LoaderState(**state)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("loader", 5), ("loader", {"epoch": "1"}),
        ("random", {"cpu": torch.zeros(3, dtype=torch.uint8)}), ("random", {}),
        ("step", {"counts": torch.zeros(3)}), ("step", {"optimizer": 3}), ("step", None),
    ],
)  # fmt: skip
def test_a_checkpoint_with_another_state_than_that_of_its_run_is_refused(tmp_path, part, value):
    saved = checkpoint_of()
    step = TrainStep(CONFIG, build_network(CONFIG.network))
    state = step.state_dict()
    state.pop("network")
    value = {**state, **value} if part == "step" and value else value
    continuation = dataclasses.replace(saved.continuation, **{"step": state, part: value})

    path = RunFolder(tmp_path).last_model
    path.parent.mkdir()
    run = SimpleNamespace(
        folder=RunFolder(tmp_path), config=CONFIG, base=saved, step=step, train=Anywhere(), ranks=ALONE
    )
    save_checkpoint(path, dataclasses.replace(saved, continuation=continuation))
    with pytest.raises(CheckpointError, match=r"last_model\.pth lacks what a checkpoint has"):
        Run.resume(run, load_checkpoint(path))


def test_resuming_refuses_another_run_and_names_what_differs():
    saved = checkpoint_of()
    same = CONFIG.changed(epochs=9, out=Path("elsewhere"), threads=3)
    assert check_resumable(Path("last"), saved, same, "f" * 64) is saved.continuation
    with pytest.raises(CheckpointError, match=r"batch_size: 16, not 8; seed: 0, not 4"):
        check_resumable(Path("last"), saved, CONFIG.changed(batch_size=8, seed=4), "f" * 64)
    with pytest.raises(CheckpointError, match=r"epochs: 5, which may be raised, not lowered to 2"):
        check_resumable(Path("last"), saved, CONFIG.changed(epochs=2), "f" * 64)
    with pytest.raises(CheckpointError, match="another fingerprint"):
        check_resumable(Path("last"), saved, CONFIG, "0" * 64)
    with pytest.raises(CheckpointError, match=r"weights only.*last_model\.pth"):
        check_resumable(Path("best"), checkpoint_of(whole=False), CONFIG, "f" * 64)
