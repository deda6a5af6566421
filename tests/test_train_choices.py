"""What a run does with the settings that change how it learns: accumulation, averages, schedules, patience, room."""

import csv
import dataclasses
import json

import pytest
import torch
from safetensors import safe_open

import train.loop
from model.network import NetworkConfig, build_network
from train.checkpoint import load_checkpoint, load_network
from train.config import TrainConfig
from train.hardware import HardwareError
from train.listeners import Listener
from train.loop import fit
from train.predictor import Predictor
from train.process import kernels
from train.ranks import Ranks
from train.run import search_batch_size, try_step

STEPS = 5


class Silent(Listener):
    def on_start(self, run):
        self.run = run


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, draw_cache):
    return draw_cache(tmp_path_factory.mktemp("data"))


def config_of(cache, out, **changes):
    values = {"network": NetworkConfig(width=8, dropout=0.2), "epochs": 3, "batch_size": 4, "loader": "native",
              "threads": 1, "learning_rate": 3e-3, "augment": "light"}  # fmt: skip
    return TrainConfig.from_dict({"cache": cache, "out": out, **values, **changes})


def weights(result, name="last_model"):
    return load_checkpoint(getattr(result, name)).network


class Updates:
    """Keeps the arguments of each step."""

    def __init__(self, monkeypatch):
        self.seen = []
        step = train.step.TrainStep.__call__

        def recording(this, image, person, ignore, rate, **how):
            self.seen.append((rate, how["batches"], how["last"]))
            return step(this, image, person, ignore, rate, **how)

        monkeypatch.setattr(train.step.TrainStep, "__call__", recording)


def test_an_epoch_ends_with_an_update_of_what_is_left(cache, tmp_path, monkeypatch):
    updates = Updates(monkeypatch)
    result = fit(config_of(cache, tmp_path, epochs=2, accumulation=3, warmup=0.5), Silent())
    assert [(batches, last) for _, batches, last in updates.seen] == 2 * [
        *[(3, False), (3, False), (3, True)],
        *[(2, False), (2, True)],
    ]
    # Two of four updates for the warm-up, two for half a cosine: the schedule does not count batches.
    shares = [*3 * [0.5], *2 * [1.0], *3 * [1.0], *2 * [0.5]]
    assert [rate for rate, _, _ in updates.seen] == pytest.approx([3e-3 * share for share in shares])
    assert [epoch.learning_rate for epoch in result.epochs] == pytest.approx([3e-3, 1.5e-3])


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2, "average": 0.9},
        {"optimizer": "sgd", "scheduler": "plateau", "average": 0.9, "deterministic": True},
    ],
    ids=["accumulated", "plateau"],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(cache, tmp_path, changes, monkeypatch):
    monkeypatch.setattr("train.optimizer.PLATEAU_PATIENCE", 0)
    config = config_of(cache, tmp_path / "whole", **changes)
    whole = fit(config, Silent())

    class Stopper(Silent):
        def on_step(self, done, total, loss, images_per_s):
            if done == 3:
                raise KeyboardInterrupt

    parted = config.changed(out=tmp_path / "parted", checkpoint_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        fit(parted, Stopper())
    reached = load_checkpoint(tmp_path / "parted" / "checkpoints" / "last_model.pth").continuation.progress.step
    assert reached == 2, "a checkpoint is of an update"
    result = fit(parted, Silent(), resume=True)
    for name in ("last_model", "best_model"):
        one, other = weights(whole, name), weights(result, name)
        assert all(torch.equal(one[key], other[key]) for key in one), name
    for mine, theirs in zip(whole.epochs, result.epochs, strict=True):
        for name in ("train_loss", "val_loss", "val", "val_counts", "boundary_f", "learning_rate", "best"):
            assert getattr(mine, name) == getattr(theirs, name), name


def test_with_an_average_it_is_that_which_is_validated_and_saved(cache, tmp_path):
    plain = fit(config_of(cache, tmp_path / "plain", epochs=1), Silent())
    averaged = fit(config_of(cache, tmp_path / "averaged", epochs=1, average=0.9), Silent())
    one, other = weights(plain), weights(averaged)
    assert all(torch.equal(one[name], other[name]) for name in one), "the average changes nothing in learning"
    assert [epoch.train_loss for epoch in plain.epochs] == [epoch.train_loss for epoch in averaged.epochs]
    assert plain.epochs[-1].val_loss != averaged.epochs[-1].val_loss
    best = weights(averaged, "best_model")  # of the only epoch
    kept = load_checkpoint(averaged.last_model).continuation.step["average"]["network"]
    assert all(torch.equal(best[name], kept[name]) for name in best)


def test_it_ends_when_the_score_does_not_rise(cache, tmp_path, monkeypatch):
    validations = []
    real = train.loop.validate

    def validate(run):
        found = real(run)
        validations.append(found)
        iou = (0.5, 0.6, 0.4, 0.6, 0.9, 0.1, 0.1, 0.1)[len(validations) - 1]
        best = iou > max((epoch.val.iou for epoch in run.results), default=0)
        return dataclasses.replace(found, val=dataclasses.replace(found.val, iou=iou), best=best)

    monkeypatch.setattr(train.loop, "validate", validate)
    config = config_of(cache, tmp_path, epochs=9, patience=2)
    result = fit(config, Silent())
    assert [epoch.val.iou for epoch in result.epochs] == [0.5, 0.6, 0.4, 0.6], "as good is no better"
    assert (result.stopped_early, result.interrupted, result.best.epoch) == (True, False, 2)
    assert "stopped early: no better IoU for 2 epochs" in result.log.read_text()
    more = fit(config.changed(patience=3), Silent(), resume=True)
    assert [epoch.val.iou for epoch in more.epochs][4:] == [0.9, 0.1, 0.1, 0.1]
    assert more.best.epoch == 5


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )


def test_kernel_switches_are_put_back(cache, tmp_path, monkeypatch):
    seen = []
    real = train.loop.train_epoch

    def spy(*arguments):
        seen.append(switches())
        return real(*arguments)

    monkeypatch.setattr(train.loop, "train_epoch", spy)
    before = switches()
    for number, deterministic in enumerate((True, False)):
        fit(config_of(cache, tmp_path / str(number), epochs=1, deterministic=deterministic), Silent())
    assert seen == [(True, False, False, False), (False, True, False, False)]
    assert switches() == before
    # The setting acts where there is no GPU, too, but a run on a CPU refuses it.
    with kernels(config_of(cache, tmp_path / "tf32", precision="tf32")):
        assert switches() == (False, True, True, True)
    assert switches() == before


def test_a_prediction_is_in_its_precision_and_leaves_the_switches_alone():
    seen, before = [], switches()

    def network(image):
        seen.append(switches()[2:])
        return image

    for precision in ("fp32", "tf32"):
        predictor = Predictor(
            network=network, device="cpu", precision=precision, config=None, spec=None, inference=None
        )
        assert predictor(torch.zeros(1)).dtype == torch.float32
    assert seen == [(False, False), (True, True)]
    assert switches() == before


def test_the_batch_is_halved_until_there_is_room(cache):
    tried = []

    def attempt(config, side):
        tried.append((config.loader.batch_size, config.accumulation, side))
        if config.loader.batch_size > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    config = config_of(cache, cache, batch_size=24, accumulation=2)
    found, notes = search_batch_size(config, 64, attempt=attempt)
    assert tried == [(24, 2, 64), (12, 4, 64), (6, 8, 64), (3, 16, 64)]
    assert found == config.changed(batch_size=3, accumulation=16)
    (note,) = notes
    assert "24 images does not fit" in note
    assert "batch_size=3 with accumulation=16" in note
    odd = search_batch_size(config_of(cache, cache, batch_size=11), 64, attempt=attempt)[0]
    assert (odd.loader.batch_size, odd.accumulation) == (5, 3)  # no fewer images in an update than were asked for
    assert search_batch_size(found, 64, attempt=attempt) == (found, ())


def test_no_room_for_one_image_is_one_clear_line(cache):
    def attempt(config, side):
        raise torch.OutOfMemoryError("CUDA out of memory")

    said = r"cannot hold batch_size=1 at side 64 \(CUDA out of memory\); use --loader native, a narrower network"
    with pytest.raises(HardwareError, match=said):
        search_batch_size(config_of(cache, cache), 64, attempt=attempt)


def test_a_step_can_be_tried_and_leaves_the_generator_to_the_run(cache):
    try_step(config_of(cache, cache), 64)


def test_a_run_goes_on_with_the_batch_that_there_was_room_for(cache, tmp_path):
    config = config_of(cache, tmp_path, epochs=1, batch_size=2, accumulation=2)
    fit(config, Silent())
    listener = Silent()
    fit(config.changed(batch_size=4, accumulation=1, epochs=2), listener, resume=True)
    assert (listener.run.config.loader.batch_size, listener.run.config.accumulation) == (2, 2)


def test_what_a_run_leaves_for_others_to_read(cache, tmp_path):
    result = fit(config_of(cache, tmp_path, epochs=2), Silent())
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(value and "{" not in value for row in rows for value in row.values())
    assert [float(row["val_iou"]) for row in rows] == [epoch.val.iou for epoch in result.epochs]
    assert [int(row["val_tp"]) for row in rows] == [epoch.val_counts[0] for epoch in result.epochs]
    assert [float(row["boundary_f"]) for row in rows] == [epoch.boundary_f for epoch in result.epochs]
    assert json.loads((tmp_path / "environment.json").read_text())["torch"] == torch.__version__
    with safe_open(tmp_path / "checkpoints" / "best_model.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = build_network(NetworkConfig(**json.loads(metadata["network"])))
    network.load_state_dict(tensors)
    assert metadata["side"] == "64"
    used = json.loads((tmp_path / "inference.json").read_text())
    assert (metadata["use_side"], metadata["threshold"]) == (str(used["side"]), str(used["threshold"]))
    expected, _ = load_network(result.best_model)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), expected(image))


def test_a_run_on_an_encoder_starts_with_its_weights_and_goes_on_without_them(timm, cache, tmp_path):
    torch.manual_seed(7)
    model = timm.create_model("test_resnet", pretrained=False)
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    network = NetworkConfig(name="unet", width=8, encoder="timm:test_resnet")
    config = config_of(cache, tmp_path / "run", network=network, encoder_weights=str(file), epochs=1, average=0.9,
                       warmup=0.0, learning_rate=1e-12, weight_decay=0.0)  # fmt: skip
    told = Silent()
    fit(config, told)
    assert f"encoder timm:test_resnet starts with the weights of {file}" in told.run.notes
    # Hardly moved, and the average of the weights began with them, too.
    saved, mine = torch.load(file), load_checkpoint(tmp_path / "run/checkpoints/best_model.pth").network
    kernels = [name for name, value in saved.items() if value.ndim == 4]
    assert kernels
    for name in kernels:
        torch.testing.assert_close(mine[f"encoder.{name}"], saved[name], rtol=0, atol=1e-8)

    file.unlink()  # neither going on nor using it takes the file again
    fit(config.changed(epochs=2), told, resume=True)
    assert not any("starts" in note for note in told.run.notes)
    loaded, _ = load_network(tmp_path / "run/checkpoints/best_model.pth")
    assert loaded.encoder_name == "timm:test_resnet"
    with safe_open(tmp_path / "run/checkpoints/best_model.safetensors", "pt") as weights_file:
        assert json.loads(weights_file.metadata()["network"])["encoder"] == "timm:test_resnet"


def test_all_ranks_get_the_tensors_of_the_first(monkeypatch):
    """What is sent is contiguous, whatever the memory format of the weights."""
    kernel = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    count = torch.zeros((), dtype=torch.int64)

    def broadcast(tensor, source):
        assert tensor.is_contiguous()
        assert source == 0
        tensor += torch.arange(tensor.numel()).view(tensor.shape)

    monkeypatch.setattr("torch.distributed.broadcast", broadcast)
    Ranks(rank=1, world=2).share([kernel, count])
    assert torch.equal(kernel, torch.arange(288.0).view(8, 4, 3, 3))
    assert kernel.is_contiguous(memory_format=torch.channels_last)
