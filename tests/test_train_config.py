import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.remote.folder import FolderConfig
from loader.augment import AugmentConfig
from loader.batch import LoaderConfig
from model.network import NetworkConfig
from train.config import FREE, SETTINGS, TrainConfig, TrainConfigError
from train.optimizer import learning_rate, plateau_factor
from train.profiles import from_profile, profile

BASE = TrainConfig(loader=LoaderConfig(cache=Path("data/cache")), out=Path("runs/one"))


def test_json_round_trip():
    config = BASE.changed(
        network=NetworkConfig(name="unet", width=16, dropout=0.25), augment="heavy", precision="bf16", side=384,
        learning_rate=1e-4, weight_decay=0.0,
    )  # fmt: skip
    for each in (config, config.changed(augment=AugmentConfig(flip=0.25))):
        assert TrainConfig.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_what_is_left_open_is_the_optimizers_own():
    for optimizer, rate, decay in (("adamw", 1e-3, 1e-2), ("adam", 1e-3, 1e-6), ("sgd", 1e-2, 1e-4)):
        config = BASE.changed(optimizer=optimizer)
        assert (config.peak, config.decay) == (rate, decay)
        written = config.resolved()
        assert (written["learning_rate"], written["weight_decay"]) == (rate, decay)
        assert TrainConfig.from_dict(written).differences(config) == []
    given = BASE.changed(optimizer="sgd", learning_rate=0.5, weight_decay=0.0)
    assert (given.peak, given.decay) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"average": 1.0}, "average=1.0"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"accumulation": 0}, "accumulation=0"),
        ({"patience": -1}, "patience=-1"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"optimizer": "lion"}, "adamw, adam, sgd"),
        ({"scheduler": "step"}, "cosine_annealing, plateau, none"),
        ({"loss": "mse"}, "bce_dice"),
        ({"augment": "wild"}, "none, light, heavy"),
        ({"precision": "int8"}, "fp32, tf32, bf16, fp16"),
        ({"device": "tpu"}, "cuda, cpu"),
        ({"loader": "ffcv"}, "auto, native, dali"),
        ({"on_bad_record": "ignore"}, "stop, skip"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes=-1"),
        ({"device_memory": -1}, "device_memory=-1 is below 0"),
        ({"epochs": 10**20}, "epochs=100000000000000000000 is above 1000000; use 1000000 or less"),
        ({"threads": 10**20}, "is above 4096"),
        ({"prefetch": 10**20}, "is above 4096"),
        ({"seed": 2**64}, f"seed=18446744073709551616 is above {2**63 - 1}"),
    ],
)
def test_bad_values_are_named_with_their_limit(change, said):
    with pytest.raises(ValueError, match=said):
        BASE.changed(**change)


def test_flat_values_of_earlier_releases_are_read():
    flat = {
        "cache": "data/cache", "out": "runs/one", "network": {"name": "unet", "width": 16}, "batch_size": 4, "seed": 3,
        "augment": "heavy", "device": "cuda", "loader": "dali", "threads": 5, "cache_dir": "shards", "cache_size": 7,
        "world": 2, "epochs": 3,
    }  # fmt: skip
    config = TrainConfig.from_dict(flat)
    assert config.loader == LoaderConfig(
        cache=Path("data/cache"), batch_size=4, seed=3, augment="heavy", device="cuda", backend="dali", threads=5,
        folder=FolderConfig(folder=Path("shards"), size=7), world=2,
    )  # fmt: skip
    assert (config.out, config.network, config.epochs) == (Path("runs/one"), NetworkConfig(name="unet", width=16), 3)


def test_damaged_json_is_refused():
    with pytest.raises(TrainConfigError, match="epochs"):
        TrainConfig.from_dict({**BASE.to_dict(), "epochs": "many"})


def test_every_field_but_the_free_ones_counts_as_a_difference():
    other = {
        "network.name": "unet", "network.width": 8, "network.dropout": 0.5,
        "batch_size": 3, "learning_rate": 0.5, "weight_decay": 0.5, "warmup": 0.5,
        "clip": 9.0, "augment": "heavy", "seed": 7, "precision": "bf16", "channels_last": False, "compile": True,
        "device": "cuda", "loader": "dali", "profile": "h200", "cache": Path("x"), "out": Path("y"), "side": 64,
        "epochs": 7, "threads": 7, "on_bad_record": "skip", "checkpoint_minutes": 7.0, "accumulation": 2,
        "optimizer": "adam", "momentum": 0.5, "scheduler": "none", "average": 0.9, "patience": 3, "deterministic": True,
        "prefetch": 5, "pin_memory": False, "loss": "focal", "world": 1, "rank": 0, "resident_bytes": 9, "split": "val",
        "shuffle": False, "drop_last": False, "encoder_weights": "none", "wandb": "p",
        "global_batch": 8, "order": "windowed", "window": 3, "ahead": 1, "cache_dir": Path("d"), "cache_size": 9,
        "in_place": True, "sync_batchnorm": True, "device_memory": 9, "encoder_lr": 0.5, "encoder_norm": "frozen",
        "freeze_epochs": 2, "init_from": Path("x.pth"),
    }  # fmt: skip
    assert {*other, "network.encoder"} == set(SETTINGS)  # which is for a unet alone
    for name, value in other.items():
        open_values = {"learning_rate": BASE.peak, "weight_decay": BASE.decay} if name == "optimizer" else {}
        base = BASE.changed(order="windowed") if name == "window" else BASE  # else it decides nothing
        differences = base.differences(base.changed(**{**open_values, name: value}))
        if name in FREE:
            assert differences == []
        else:
            assert len(differences) == 1
            assert differences[0].startswith(f"{name}: ")


def test_a_profile_fills_the_fields_and_changes_go_on_top():
    chosen = profile("rtx3080")
    config = from_profile(chosen, cache=Path("c"), out=Path("o"), batch_size=6, epochs=2)
    assert (config.profile, config.side, config.loader.batch_size, config.epochs) == ("rtx3080", 384, 6, 2)
    for name in ("network", "precision", "channels_last", "compile", "device"):
        assert getattr(config, name) == getattr(chosen, name)
    assert (config.loader.backend, config.loader.threads) == (chosen.loader, chosen.threads)


def test_schedule_is_torchs_warm_up_and_cosine():
    steps, warmup, peak = 200, 0.1, 3e-3
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=180)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[20])
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(step, updates=steps, peak=peak, warmup=warmup) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (3, 0.05)])
def test_schedule_of_very_short_runs_is_never_zero(steps, warmup):
    rates = [learning_rate(step, updates=steps, peak=1.0, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


@pytest.mark.parametrize("scheduler", ["plateau", "none"])
def test_other_schedules_stay_at_the_peak(scheduler):
    rates = [learning_rate(step, updates=20, peak=0.5, warmup=0.1, scheduler=scheduler) for step in range(20)]
    assert rates == [0.25, *19 * [0.5]]


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(losses=st.lists(st.sampled_from([1.0, 0.99995, 0.9998, 0.9, 0.5, 1.5]) | st.floats(0, 2), max_size=60))
def test_plateaus_are_those_of_torch(losses):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5, threshold=1e-4, eps=0)
    for number, loss in enumerate(losses):
        assert plateau_factor(losses[:number]) == optimizer.param_groups[0]["lr"]
        scheduler.step(loss)
