"""An encoder that learns at a rate of its own, with fixed norms, or not at all."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from loader.batch import LoaderConfig
from model.network import NetworkConfig
from train.config import TrainConfig, TrainConfigError
from train.optimizer import WeightAverage
from train.step import TrainStep, _common_statistics, prepare_network

pytestmark = pytest.mark.usefixtures("timm")

RATE, SIDE = 1e-2, 64
NETWORK = NetworkConfig(name="unet", width=8, encoder="timm:test_resnet")
CONFIG = TrainConfig(loader=LoaderConfig(cache=Path("cache")), out=Path("run"), network=NETWORK)
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": 1e9}


def step_of(*, compile=None, average=False, **settings):
    torch.manual_seed(0)
    config = CONFIG.changed(**settings)
    network = prepare_network(config)
    return TrainStep(config, network, compile=compile, average=WeightAverage(network, 0.5) if average else None)


def train(step, rate=RATE):
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    person = (image[:, :1] > 128).byte()
    step(image, person, torch.zeros_like(person), rate)


def tensors(network, *, encoder):
    return {
        name: value.clone() for name, value in network.state_dict().items() if name.startswith("encoder.") == encoder
    }


def test_the_encoder_moves_by_its_factor():
    """Plain SGD: the same gradients, so a step is as long as the learning rate is large."""
    whole, tenth = step_of(**PLAIN), step_of(encoder_lr=0.1, **PLAIN)
    before = dict(copy.deepcopy(whole.network).named_parameters())
    train(whole), train(tenth)
    for (name, one), other in zip(whole.network.named_parameters(), tenth.network.parameters(), strict=True):
        factor = 0.1 if name.startswith("encoder.") else 1.0
        torch.testing.assert_close(other - before[name], factor * (one - before[name]), rtol=1e-3, atol=1e-6)
    assert any(
        not torch.equal(one, before[name]) for name, one in tenth.network.named_parameters() if "encoder" in name
    )


@pytest.mark.parametrize("compile", [None, "eager"])
def test_a_factor_of_0_leaves_every_weight_as_it_is(compile):
    step = step_of(encoder_lr=0.0, encoder_norm="frozen", compile=compile, weight_decay=0.5, average=True)
    before, rest = tensors(step.network, encoder=True), tensors(step.network, encoder=False)
    train(step), train(step)
    assert all(torch.equal(value, before[name]) for name, value in tensors(step.network, encoder=True).items())
    assert any(not torch.equal(value, rest[name]) for name, value in tensors(step.network, encoder=False).items())
    assert all(parameter.grad is None for parameter in step.network.encoder.parameters())
    torch.testing.assert_close(tensors(step.average.network, encoder=True), before)


@pytest.mark.parametrize("compile", [None, "eager"])
def test_fixed_norms_keep_their_statistics_and_learn_the_rest(compile):
    step = step_of(encoder_norm="frozen", compile=compile)
    before = tensors(step.network, encoder=True)
    for _ in range(2):
        step.network.eval()  # as validating on the same network leaves it
        train(step)
    changed = {
        name for name, value in tensors(step.network, encoder=True).items() if not torch.equal(value, before[name])
    }
    assert changed == {name for name, _ in step.network.named_parameters() if name.startswith("encoder.")}
    trained = [each for each in step.network.modules() if isinstance(each, nn.BatchNorm2d) and each.training]
    assert trained
    assert not set(trained) & set(step.network.encoder.modules())
    assert len(_common_statistics(step.network, 1)) == 2 * len(trained)


@pytest.mark.parametrize("compile", [None, "eager"])
def test_the_encoder_is_frozen_in_the_first_epochs_alone(compile):
    step = step_of(freeze_epochs=1, encoder_norm="frozen", encoder_lr=0.5, compile=compile)
    before = tensors(step.network, encoder=True)
    step.begin_epoch(0)
    train(step)
    assert all(torch.equal(value, before[name]) for name, value in tensors(step.network, encoder=True).items())
    resumed = step_of(freeze_epochs=1, encoder_norm="frozen", encoder_lr=0.5, compile=compile)
    resumed.load_state_dict(copy.deepcopy(step.state_dict()))
    for each in (step, resumed):
        each.begin_epoch(1)
        train(each)
    after = tensors(step.network, encoder=True)
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    assert all(torch.equal(value, after[name]) for name, value in tensors(resumed.network, encoder=True).items())


def test_what_is_open_is_that_of_earlier_releases_unless_the_encoder_is_pretrained():
    values = CONFIG.to_dict()
    for name in ("encoder_lr", "encoder_norm", "freeze_epochs", "init_from"):
        del values[name]
    old = TrainConfig.from_dict(values)
    assert old.differences(old.encoder_started(pretrained=False)) == []
    fresh = old.encoder_started(pretrained=True)
    assert (fresh.encoder_lr, fresh.encoder_norm) == (0.03, "frozen")
    assert len(old.differences(fresh)) == 2
    assert TrainConfig.from_dict(fresh.to_dict()) == fresh
    given = old.changed(encoder_lr=0.3).encoder_started(pretrained=True)
    assert (given.encoder_lr, given.encoder_norm) == (0.3, "frozen")


def test_an_optimizer_of_an_earlier_release_goes_on_at_the_whole_rate():
    step = step_of(**PLAIN)
    state = copy.deepcopy(step.state_dict())
    for group in state["optimizer"]["param_groups"]:
        del group["factor"]
    step.load_state_dict(state)
    train(step, 3e-3)
    assert [group["lr"] for group in step.optimizer.param_groups] == [3e-3, 3e-3]


def test_settings_that_make_no_sense_are_refused():
    plain = dataclasses.replace(CONFIG, network=NetworkConfig(width=8))
    with pytest.raises(TrainConfigError, match=r"encoder_lr=0\.0 is for networks on an encoder, and resunet 8 is none"):
        plain.changed(encoder_lr=0.0).check_encoder()
    with pytest.raises(TrainConfigError, match=r"encoder_lr=-1\.0 is no factor"):
        CONFIG.changed(encoder_lr=-1.0)
    with pytest.raises(TrainConfigError, match="frozen, trained"):
        CONFIG.changed(encoder_norm="loose")
    with pytest.raises(TrainConfigError, match="exclude each other"):
        CONFIG.changed(init_from=Path("a.pth"), encoder_weights="none")
