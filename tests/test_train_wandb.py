"""Runs at Weights & Biases: with the package itself where it is installed, else with one that keeps what it is told."""

import sys
from types import SimpleNamespace

import pytest

from loader.batch import LoaderConfig
from model.network import NetworkConfig
from train.config import TrainConfig, TrainConfigError
from train.listeners import Listener
from train.loop import fit


class Kept:
    """As much of the package as is used."""

    class errors:  # noqa: N801  # by its name
        class Error(Exception):
            pass

    def __init__(self):
        self.asked, self.logged, self.axes, self.config, self.summary, self.finished = [], [], {}, {}, {}, 0

    def init(self, **asked):
        self.asked.append(asked)
        return self

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    @property
    def config(self):
        return SimpleNamespace(update=lambda values, allow_val_change: self._config.update(values))

    @config.setter
    def config(self, values):
        self._config = values

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished += 1


@pytest.fixture(scope="module")
def config(tmp_path_factory, draw_cache):
    root = tmp_path_factory.mktemp("data")
    return TrainConfig(
        loader=LoaderConfig(cache=draw_cache(root), batch_size=4, backend="native", threads=1),
        out=root / "run",
        network=NetworkConfig(width=8),
        epochs=2,
        wandb="people",
    )


@pytest.fixture
def kept(monkeypatch):
    package = Kept()
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_it_is_told_the_configuration_every_epoch_and_every_step_read(config, tmp_path, kept):
    config = config.changed(out=tmp_path / "night")
    result = fit(config, Listener())
    (asked,) = kept.asked
    assert (asked["project"], asked["name"], asked["dir"]) == ("people", "night", str(config.out))
    assert kept._config["network"]["width"] == 8
    assert kept._config["learning_rate"] == 1e-3
    epochs = [values for values in kept.logged if "epoch" in values]
    assert [values["epoch"] for values in epochs] == [1, 2]
    for values, epoch in zip(epochs, result.epochs, strict=True):
        assert values["epochs/val/iou"] == epoch.val.iou
        assert values["epochs/loss/train"] == epoch.train_loss
    steps = [values["step"] for values in kept.logged if "step" in values]
    assert steps == sorted(set(steps))
    assert steps[-1] == 10, "five steps an epoch, counted over both"
    assert kept.axes == {"epoch": None, "step": None, "epochs/*": "epoch", "steps/*": "step"}
    assert kept.summary["best/iou"] == result.best.val.iou
    assert kept.finished == 1

    fit(config.changed(epochs=3), Listener(), resume=True)
    assert kept.asked[1]["id"] == asked["id"], "the same run there"
    assert kept.logged[-1]["epoch"] == 3
    assert [values["step"] for values in kept.logged if "step" in values][-1] == 15


def test_what_it_cannot_do_is_said_and_nothing_is_in_the_way_afterwards(config, tmp_path, monkeypatch, kept):
    config = config.changed(out=tmp_path / "run", epochs=1)

    def refused(**asked):
        raise kept.errors.Error("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(kept, "init", refused)
    with pytest.raises(
        TrainConfigError, match=r"wandb='people' cannot start \(No API key configured.\); `wandb login`"
    ):
        fit(config, Listener())
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainConfigError, match=r"needs the package wandb, .*: pip install -e '.\[wandb\]'"):
        fit(config, Listener())
    fit(config.changed(wandb=""), Listener())


def test_the_package_itself_takes_it(config, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="no wandb; pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(config.changed(out=tmp_path / "run"), Listener())
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert any(folder.glob("*.wandb"))
