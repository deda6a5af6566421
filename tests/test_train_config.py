import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from model import NetworkConfig
from train.config import FREE, TrainConfig, TrainConfigError
from train.profiles import profile
from train.schedule import learning_rate

BASE = TrainConfig(cache=Path("data/cache"), out=Path("runs/one"))


def test_json_round_trip():
    config = dataclasses.replace(
        BASE, network=NetworkConfig(name="unet", width=16, dropout=0.25), augment="heavy", precision="bf16", side=384
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"loss": "mse"}, "bce_dice"),
        ({"augment": "wild"}, "none, light, heavy"),
        ({"precision": "int8"}, "fp32, fp16, bf16"),
        ({"device": "tpu"}, "cuda, cpu"),
        ({"loader": "ffcv"}, "auto, native, dali"),
        ({"on_bad_record": "ignore"}, "stop, skip"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes=-1"),
    ],
)
def test_bad_values_are_named_with_their_limit(change, said):
    with pytest.raises(TrainConfigError, match=said):
        dataclasses.replace(BASE, **change)


def test_damaged_json_is_refused():
    with pytest.raises(TrainConfigError, match="epochs"):
        TrainConfig.from_dict({**BASE.to_dict(), "epochs": "many"})


def test_every_field_but_the_free_ones_counts_as_a_difference():
    other = {
        "network": NetworkConfig(width=8), "batch_size": 3, "learning_rate": 0.5, "weight_decay": 0.5, "warmup": 0.5,
        "clip": 9.0, "augment": "heavy", "seed": 7, "precision": "bf16", "channels_last": False, "compile": True,
        "device": "cuda", "loader": "dali", "profile": "h200", "cache": Path("x"), "out": Path("y"), "side": 64,
        "epochs": 7, "threads": 7, "on_bad_record": "skip", "checkpoint_minutes": 7.0,
    }  # fmt: skip
    assert set(other) == {field.name for field in dataclasses.fields(TrainConfig)} - {"loss"}  # there is only one loss
    for name, value in other.items():
        differences = BASE.differences(dataclasses.replace(BASE, **{name: value}))
        if name in FREE:
            assert differences == []
        else:
            assert len(differences) == 1
            assert differences[0].startswith(f"{name}: ")


def test_a_profile_fills_the_fields_and_changes_go_on_top():
    chosen = profile("rtx3080")
    config = TrainConfig.from_profile(chosen, cache=Path("c"), out=Path("o"), batch_size=6, epochs=2)
    assert (config.profile, config.side, config.batch_size, config.epochs) == ("rtx3080", 384, 6, 2)
    for name in ("network", "precision", "channels_last", "compile", "loader", "threads", "device"):
        assert getattr(config, name) == getattr(chosen, name)


def test_schedule_is_torchs_warm_up_and_cosine():
    steps, warmup, peak = 200, 0.1, 3e-3
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=180)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[20])
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(step, steps=steps, peak=peak, warmup=warmup) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (3, 0.05)])
def test_schedule_of_very_short_runs_is_never_zero(steps, warmup):
    rates = [learning_rate(step, steps=steps, peak=1.0, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
