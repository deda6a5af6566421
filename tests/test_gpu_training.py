"""Training on a CUDA device, and what becomes of the network, against the same on the CPU.

The tests that tell most come first, those that compile last. `MASKCACHE_REHEARSAL=1 pytest -m gpu` runs on the CPU what
it can do of them, so that a mistake in a test is found before a GPU is rented.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, H and W pixels.
"""

import dataclasses
import gc
import math
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch._dynamo.utils import counters
from torch.export.passes import move_to_device_pass

from cache.choices import NetworkName
from cache.spec import CacheSpec
from export.check import batches as export_images
from export.config import ExportConfig
from export.run import export
from loader import open_loader
from maskcache import remove_background
from model.network import NetworkConfig
from predict.config import PredictConfig
from predict.plan import plan_jobs
from predict.run import predict
from preprocess.build.build import BuildConfig, build_cache
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.evaluation.result import EvalConfig
from train.evaluation.run import evaluate
from train.listeners import Listener
from train.loop import fit
from train.optimizer import WeightAverage
from train.process import kernels
from train.ranks import Ranks
from train.run import search_batch_size, try_step
from train.step import EvalStep, TrainStep, prepare_network

SIDE, BATCH, RATE = 64, 4, 3e-3
NETWORKS = get_args(NetworkName)
GRADIENT = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": 1e9}
"""Settings with which a step at a learning rate of 1 moves the weights by their gradient."""

gpu = pytest.mark.gpu


@pytest.fixture(scope="module")
def device(request):
    """The device of a test: a GPU, or the CPU in a rehearsal and where a test asks for it."""
    name = getattr(request, "param", "cpu" if os.environ.get("MASKCACHE_REHEARSAL") else "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return name


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with 24 synthetic photos to train on and 6 others, `coco`, and a cache of each codec."""
    root = tmp_path_factory.mktemp("gpu")
    make_dataset(root / "coco", SynthConfig(images=30, val_fraction=0.2, long_side=(96, 128)))
    for codec in ("raw", "jpeg"):
        spec = CacheSpec(side=SIDE, images="all", codec=codec)
        build_cache(BuildConfig(coco=root / "coco", out=root / codec, spec=spec))
    return root


def config_of(photos: Path, device: str, **changes) -> TrainConfig:
    values = {"cache": photos / "raw", "out": photos / "run", "network": NetworkConfig(width=8), "batch_size": BATCH,
              "loader": "native", "threads": 2, "seed": 1, "device": device, "learning_rate": RATE}  # fmt: skip
    return TrainConfig.from_dict({**values, **changes})


def batches_of(photos: Path, device: str, count: int) -> list[tuple[Tensor, ...]]:
    """The first batches, by way of the CPU."""
    with open_loader(config_of(photos, "cpu").loader) as loader:
        made = [tuple(tensor.clone().to(device) for tensor in batch) for batch in loader]
    return made[:count]


def step_of(config: TrainConfig, **options) -> TrainStep:
    """A step that starts from the same weights on each device."""
    torch.manual_seed(0)
    return TrainStep(config, prepare_network(config), **options)


def copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().double() for name, value in network.state_dict().items()}


def gradient_of(config: TrainConfig, batch: tuple[Tensor, ...], **options) -> tuple[float, dict[str, Tensor]]:
    """The loss of the first step and the gradient of each parameter."""
    step = step_of(dataclasses.replace(config, **GRADIENT), **options)
    before = copies(step.network)
    loss = float(step(*(tensor.to(config.device) for tensor in batch), 1.0))
    after = copies(step.network)
    return loss, {name: before[name] - after[name] for name, _ in step.network.named_parameters()}


@gpu
@pytest.mark.parametrize("pin_memory", [True, False])
@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_batches_of_native_are_those_of_the_cpu(photos, device, codec, pin_memory):
    """Bit for bit, also where the GPU is far behind: no memory may be used again before it was read."""
    same = config_of(photos, "cpu", cache=photos / codec, augment="heavy", pin_memory=pin_memory).loader
    with open_loader(same) as cpu:
        wanted = [[tensor.clone() for tensor in batch] for _ in range(2) for batch in cpu]
    size, late = 2048 if device == "cuda" else 8, []
    load = torch.rand(size, size, device=device)
    with open_loader(dataclasses.replace(same, device=device)) as loader:
        for batch in (batch for _ in range(2) for batch in loader):
            assert batch.image.is_contiguous(memory_format=torch.channels_last)
            assert {tensor.device.type for tensor in batch} == {device}
            for _ in range(20):
                load = (load @ load).tanh()
            late.append([tensor.clone() for tensor in batch])
            del batch
    assert len(late) == len(wanted) == 12
    for mine, theirs in zip(late, wanted, strict=True):
        assert all(torch.equal(one.cpu(), other) for one, other in zip(mine, theirs, strict=True))


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_has_the_loss_and_the_gradients_of_the_cpu_in_fp32(photos, device, name, precision):
    (batch,) = batches_of(photos, "cpu", 1)
    network = NetworkConfig(name=name, width=8)
    true = gradient_of(config_of(photos, "cpu", network=network), batch)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 has the mantissa of fp16
        mine = gradient_of(config_of(photos, device, network=network, precision=precision), batch)
    assert_near(mine, true, precision)


def assert_near(mine, true, precision):
    """Compare losses and gradients, all together and each parameter's.

    A feature that is rounded to the other side of zero opens or shuts a ReLU. In bf16 that moves the gradient of a new
    network by a quarter of its norm, on a CPU as well; a wrong gradient is off by its norm or more.
    """
    limits = {"fp32": (1e-5, 0.05, 0.15), "bf16": (5e-3, 0.5, 0.9), "fp16": (1e-3, 0.25, 0.5)}
    of_loss, of_all, of_each = limits[precision]
    (loss, gradients), (true_loss, true_gradients) = mine, true
    assert loss == pytest.approx(true_loss, rel=of_loss)
    off = {name: float((gradients[name] - gradient).norm()) for name, gradient in true_gradients.items()}
    norms = {name: float(gradient.norm()) for name, gradient in true_gradients.items()}
    norm = math.hypot(*norms.values())
    assert math.hypot(*off.values()) <= of_all * norm
    assert not [name for name in off if off[name] > of_each * (norms[name] + 0.01 * norm)]


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_features_weights_and_all_gradients_stay_channels_last(photos, device, name, precision):
    """The gradient of a weight is seen before torch brings it into the weight's own format, which would be a copy."""
    step = step_of(config_of(photos, device, network=NetworkConfig(name=name, width=8), precision=precision))
    seen, wrong = set(), []

    def watch(what: str, tensor: Tensor) -> None:
        seen.add(what)
        if tensor.ndim == 4 and tensor.shape[1] > 1 and tensor.stride(1) != 1:
            wrong.append(f"{what}: {tuple(tensor.shape)} has strides {tensor.stride()}")

    def watch_output(path: str, output: Tensor) -> None:
        watch(f"output of {path}", output)
        if output.requires_grad:
            output.register_hook(lambda gradient: watch(f"gradient of {path}", gradient))

    leaves = {path: module for path, module in step.network.named_modules() if not list(module.children())}
    for path, module in leaves.items():
        module.register_forward_hook(lambda _module, _inputs, output, path=path: watch_output(path, output))
    for path, parameter in step.network.named_parameters():
        parameter.register_hook(lambda gradient, path=path: watch(f"gradient of {path}", gradient))
    step(*batches_of(photos, device, 1)[0], RATE)
    assert not wrong, "\n".join(wrong)
    convolutions = [path for path, module in leaves.items() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    wanted = ("output of {}", "gradient of {}", "gradient of {}.weight")
    assert convolutions
    assert {what.format(path) for path in convolutions for what in wanted} <= seen


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)], indirect=True)
def test_an_overflow_in_fp16_skips_the_update_and_halves_the_scale(photos, device):
    config = config_of(photos, device, precision="fp16")
    step, batch = step_of(config), [tensor[:2] for tensor in batches_of(photos, device, 1)[0]]
    start, state = copies(step.network), step.state_dict()
    step.load_state_dict({**state, "scaler": {**state["scaler"], "scale": 2.0**21}})
    for skipped in range(21):
        assert math.isfinite(float(step(*batch, RATE)))
        assert step.state_dict()["scaler"]["scale"] == 2.0 ** (21 - skipped - (not step_counts(step)))
        if step_counts(step):
            break
        assert not moved(step.network, start)
    assert skipped > 0, "no gradient was too large"
    assert step_counts(step) == {1.0}, "a skipped update counts for the optimizer's moments"
    assert moved(step.network, start)
    assert all(value.isfinite().all() for value in copies(step.network).values())
    other = step_of(config)
    other.load_state_dict(step.state_dict())
    assert other.state_dict()["scaler"] == step.state_dict()["scaler"]


def moved(network: nn.Module, start: dict[str, Tensor]) -> bool:
    now = copies(network)
    return not all(torch.equal(now[name], start[name]) for name, _ in network.named_parameters())


def step_counts(step: TrainStep) -> set[float]:
    """How many updates the optimizer counts; without 0."""
    return {float(state["step"]) for state in step.optimizer.state.values()} - {0.0}


@gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_deterministic_steps_repeat_bit_for_bit(photos, device, name):
    network = NetworkConfig(name=name, width=8, dropout=0.3)
    config = config_of(photos, device, network=network, precision="bf16", deterministic=True)
    batches, ends = batches_of(photos, device, 4), []
    for _ in range(2):
        step = step_of(config)
        with kernels(config):
            losses = [float(step(*batch, RATE)) for batch in batches]
        ends.append((losses, copies(step.network)))
    (losses, one), (others, other) = ends
    assert losses == others
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def run(photos, device):
    """The configuration of a run of two epochs."""
    precision = "bf16" if device == "cuda" else "fp32"
    return config_of(photos, device, precision=precision, network=NetworkConfig(width=8, dropout=0.3), augment="light",
                     epochs=2, average=0.9, deterministic=True, checkpoint_minutes=60)  # fmt: skip


@pytest.fixture(scope="module")
def trained(run, whole_runs):
    with whole_runs():
        return fit(run, Listener())


@gpu
def test_a_run_learns_and_its_checkpoint_is_for_any_device(trained, device):
    first, last = trained.epochs
    assert last.train_loss < first.train_loss
    assert all(0 <= value <= 1 for epoch in trained.epochs for value in (epoch.val.iou, epoch.boundary_f))
    assert len(trained.plots) == 4
    for path in (trained.best_model, trained.last_model):
        assert {value.device.type for value in load_checkpoint(path).network.values()} == {"cpu"}
    if device == "cuda":
        assert torch.cuda.get_device_name(0) in trained.log.read_text()


class Stopper(Listener):
    def on_step(self, done, total, loss, images_per_s):
        if done == 1:
            signal.raise_signal(signal.SIGINT)


@gpu
@pytest.mark.usefixtures("default_signals")
def test_a_deterministic_run_that_was_stopped_ends_with_the_same_bits(run, trained, tmp_path):
    config = dataclasses.replace(run, out=tmp_path)
    stopped = fit(config, Stopper())
    assert stopped.interrupted
    assert not stopped.epochs
    resumed = fit(config, Listener(), resume=True)
    one, other = load_checkpoint(trained.last_model), load_checkpoint(resumed.last_model)
    assert all(torch.equal(value, other.network[name]) for name, value in one.network.items())
    for mine, theirs in zip(trained.epochs, resumed.epochs, strict=True):
        assert (mine.train_loss, mine.val_loss, mine.val) == (theirs.train_loss, theirs.val_loss, theirs.val)


@gpu
def test_an_evaluation_counts_what_the_cpu_counts(trained, photos, device, tmp_path):
    """But for pixels whose probability is nearly a half."""
    where = {"checkpoint": trained.best_model, "cache": photos / "raw", "coco": photos / "coco"}
    cpu, mine = [
        evaluate(EvalConfig(**where, out=tmp_path / str(number), device=each, precision="fp32", batch_size=BATCH))
        for number, each in enumerate(("cpu", device))
    ]
    assert mine.device == device
    for one, other in zip(mine.sizes, cpu.sizes, strict=True):
        assert len(one.images) == len(other.images) > 0
        assert sum(one.counts) == sum(other.counts)
        apart = sum(abs(a - b) for a, b in zip(one.counts, other.counts, strict=True))
        assert apart <= 0.005 * sum(other.counts)


@gpu
def test_predictions_are_those_of_the_cpu(trained, photos, device, tmp_path):
    paths = sorted((photos / "coco" / "val2017").glob("*.jpg"))
    masks = []
    for number, each in enumerate(("cpu", device)):
        config = PredictConfig(checkpoint=trained.best_model, inputs=tuple(map(str, paths)), out=tmp_path / str(number),
                               kind="mask", soft=True, device=each, precision="fp32", threads=2)  # fmt: skip
        report = predict(config, plan_jobs(config))
        assert (report.device, [photo.status for photo in report.photos]) == (each, ["done"] * len(paths))
        masks.append([cv2.imread(photo.output, cv2.IMREAD_UNCHANGED).astype(int) for photo in report.photos])
    cpu, mine = masks
    settings = {"output": "mask", "soft": True, "device": device}  # so short a training may leave a mask all or nothing
    removed = [np.asarray(remove_background(path, trained.best_model, **settings)) for path in paths]
    for one, other, narrow in zip(mine, cpu, removed, strict=True):
        assert other.std() > 0
        assert np.abs(one - other).max() <= 4
        assert np.abs(narrow - other).mean() <= 4  # in the precision of training


@gpu
def test_an_exported_program_answers_on_the_device(trained, device, tmp_path):
    report = export(ExportConfig(model=trained.best_model, out=tmp_path, format="program", latency=False))
    expected = torch.export.load(report.files[0].path).module()
    mine = move_to_device_pass(torch.export.load(report.files[0].path), device).module()
    for image_N3HW in map(torch.from_numpy, export_images(SIDE, report.stride)):
        with torch.no_grad():
            probability_N1HW = mine(image_N3HW.to(device))
            assert probability_N1HW.device.type == device
            torch.testing.assert_close(probability_N1HW.cpu(), expected(image_N3HW), rtol=0, atol=0.01)


@contextmanager
def only_bytes_free(count: int):
    """Within the block, torch may take so much more memory of the GPU than it holds."""
    gc.collect()
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_reserved() + count) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@gpu
def test_the_search_halves_the_batch_until_it_fits_into_memory(photos, device):
    if device == "cpu":
        pytest.skip("the memory of a CPU is not searched")
    config = config_of(photos, device, network=NetworkConfig(name="unet", width=16), precision="bf16", batch_size=256)
    with kernels(config), only_bytes_free(1 << 29):
        before = torch.cuda.memory_allocated()
        found, notes = search_batch_size(config, 2 * SIDE)
        assert torch.cuda.memory_allocated() <= before + (64 << 20), "what did not fit is still held"
        assert 0 < found.loader.batch_size < 256
        assert found.images_per_update == config.images_per_update
        assert any(f"batch_size={found.loader.batch_size}" in note for note in notes)
        try_step(found, 2 * SIDE)
        with pytest.raises(torch.OutOfMemoryError):
            try_step(config, 2 * SIDE)
    assert search_batch_size(config, 2 * SIDE) == (config, ())


@gpu
def test_collectives_by_nccl(photos, device, monkeypatch):
    """A GPU holds one rank only: it joins as one of two, and its group has no other."""
    join = distributed.init_process_group
    monkeypatch.setattr(distributed, "init_process_group", lambda *what, **how: join(*what, **how | {"world_size": 1}))
    monkeypatch.setattr("train.ranks.rendezvous", lambda *_, **__: iter([(distributed.HashStore(), 0, 1)]))
    ranks, config, (batch,) = Ranks(world=2), config_of(photos, device), batches_of(photos, "cpu", 1)
    _, alone = gradient_of(config, batch)
    with ranks.joined(device):
        assert distributed.get_backend() == ("nccl" if device == "cuda" else "gloo")
        assert ranks.any(True, device)
        assert not ranks.any(False, device)
        assert ranks.from_first(lambda: {"found": 3}) == {"found": 3}
        network = prepare_network(config)
        before, counts_4 = copies(network), torch.arange(4, device=device)
        ranks.share(network.state_dict().values())
        ranks.sum(counts_4)
        ranks.wait()
        assert all(torch.equal(value, before[name]) for name, value in copies(network).items())
        assert counts_4.tolist() == [0, 1, 2, 3]
        _, averaged = gradient_of(config, batch, ranks=ranks)
    assert not distributed.is_initialized()
    one, other = (torch.cat([value.flatten() for value in gradients.values()]) for gradients in (alone, averaged))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.999


def compiler_of(device: str) -> str:
    """The backend of `torch.compile`; in a rehearsal one that only traces."""
    return "inductor" if device == "cuda" else "aot_eager"


@gpu
def test_a_compiled_step_has_the_loss_and_the_gradients_of_the_cpu_in_fp32(photos, device):
    (batch,) = batches_of(photos, "cpu", 1)
    mine = gradient_of(config_of(photos, device, precision="bf16"), batch, compile=compiler_of(device))
    assert_near(mine, gradient_of(config_of(photos, "cpu"), batch), "bf16")


@contextmanager
def waiting_is_an_error(device: str):
    """Within the block, torch raises where the CPU would wait for the GPU."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones(1, device=device).item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize(
    ("loader", "precision", "compiled"),
    [("native", "fp16", False), ("resident", "bf16", False), ("resident", "bf16", True)],
)
def test_loader_and_steps_never_wait_and_compile_once(photos, device, loader, precision, compiled):
    config = config_of(photos, device, loader=loader, precision=precision, augment="light")
    torch.manual_seed(0)
    network = prepare_network(config)
    average = WeightAverage(network, 0.9)
    step = TrainStep(config, network, compile=compiler_of(device) if compiled else None, average=average)
    evaluate_step = EvalStep(config, average.network, tolerance=2)

    def epoch(batches) -> list[Tensor]:
        losses = []
        for batch in batches:
            losses.append(step(*batch, RATE))
            evaluate_step(*batch, batch.valid)
        return losses

    with kernels(config), open_loader(config.loader) as batches:
        warm, graphs = epoch(batches), counters["stats"]["unique_graphs"]
        with waiting_is_an_error(device):
            losses = epoch(batches)
    assert counters["stats"]["unique_graphs"] == graphs
    assert len(losses) == len(warm) == 6
    assert all(map(math.isfinite, torch.stack(warm + losses).tolist()))
    assert evaluate_step.images == 12 * BATCH
