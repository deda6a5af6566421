"""A training run, from an opened cache to the pictures."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from loader.augment import LEVELS
from loader.batch import LoaderConfig
from loader.damage import BadRecord
from loader.loader import Loader, open_loader
from model.base import SegmentationNetwork, check_side
from model.loss import LOSSES
from model.metrics import Scores
from train.checkpoint import (
    Checkpoint,
    Continuation,
    Progress,
    check_resumable,
    load_checkpoint,
    load_network,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from train.config import TrainConfig
from train.folder import RunFolder, open_log
from train.hardware import HardwareError, adapt, describe, read_hardware
from train.interrupt import stop_requests
from train.memory import keep_freed_memory
from train.plots import plot_curves, plot_samples
from train.predictions import choose_samples, predict_samples
from train.result import EpochResult, FitResult, Listener, StartInfo, best_epoch
from train.schedule import learning_rate
from train.step import EvalStep, TrainStep, build_optimizer, prepare_network

GPU_READ_STEPS = 50
"""Steps between two reads of a GPU: each read waits for all work that is queued. Reading from a CPU waits for none."""

PICTURED_SAMPLES = 96
"""Validation images among which those of `sample_predictions.png` are chosen."""


class DivergedError(ValueError):
    """The loss is no longer a number; the message names the step, the learning rate and the images."""


def fit(config: TrainConfig, listener: Listener, *, resume: bool = False) -> FitResult:
    """Train, validate and save each epoch, then draw pictures.

    The first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint from which `resume` goes on as
    if nothing had happened: the same batches in the same order and, on a CPU, eagerly, with as many threads, the same
    bits. Torch's global generator is seeded.

    Args:
        config: what to train; everything is written below `config.out`.
        listener: is told how it goes.
        resume: go on from the `last_model.pth` in `config.out`.

    Raises:
        CacheError: see `loader.open_loader`.
        CheckpointError: `config.out` holds a run and `resume` is not set; or none, or another one, and it is set; or
            saving failed.
        HardwareError: see `train.hardware.adapt`; or the GPU's memory cannot hold a step.
        ValueError: the network cannot take the cache's side.
        DivergedError: the loss is no longer a number; the last checkpoint is from before that.
    """
    hardware = read_hardware()
    config, notes = adapt(config, hardware)
    if config.device == "cpu":
        keep_freed_memory()
    folder = RunFolder(config.out)
    saved = load_checkpoint(folder.last_model) if resume else None
    with (
        open_loader(_loader_config(config, "train")) as train,
        open_loader(_loader_config(config, "val")) as val,
        stop_requests() as stop,
    ):
        torch.manual_seed(config.seed)
        torch.backends.cudnn.benchmark = True  # shapes never change, so looking for the fastest kernel pays
        network = prepare_network(config.network, channels_last=config.channels_last, device=config.device)
        check_side(network, train.side, name="the cache's side")
        step, evaluate = _make_steps(config, network)

        fingerprint = train.reader.index.fingerprint
        results, progress = list[EpochResult](), Progress()
        told = set[BadRecord]()
        if saved:
            going_on = check_resumable(folder.last_model, saved, config, fingerprint)
            step.load_state_dict({**going_on.step, "network": saved.network})
            train.load_state_dict(going_on.loader)
            restore_random_state(going_on.random)
            results, progress = list(saved.results), going_on.progress
            if config.epochs > saved.config.epochs:
                notes += (f"epochs raised from {saved.config.epochs}: the learning rate follows the longer schedule",)
        if config.side not in (None, train.side):
            notes += (f"the cache's side of {train.side} is used, not the {config.side} of profile {config.profile}",)

        notes += train.notes

        folder.prepare(resume=resume)
        folder.write_config(config)
        base = Checkpoint(config=config, fingerprint=fingerprint, side=train.side, results=(), network={})

        def save(progress: Progress) -> None:
            state = step.state_dict()
            weights = state.pop("network")
            going_on = Continuation(progress=progress, step=state, loader=train.state_dict(), random=random_state())
            save_checkpoint(
                folder.last_model,
                dataclasses.replace(base, results=tuple(results), network=weights, continuation=going_on),
            )

        with open_log(folder) as log:
            start = StartInfo(
                config=config,
                notes=notes,
                environment=describe(hardware),
                train_images=len(train.reader),
                val_images=len(val.reader),
                side=train.side,
                loader=str(train.choice),
                parameters=sum(parameter.numel() for parameter in network.parameters()),
                steps_per_epoch=len(train),
                step=progress.step,
            )
            log.on_start(start)
            listener.on_start(start)
            try:
                while len(results) < config.epochs and not stop.is_set():
                    progress = _train_epoch(config, step, train, len(results), progress, listener.on_step, save, stop)
                    validated = _validate(evaluate, val, stop)
                    if validated is None:
                        save(progress)
                        break
                    result = _summarise(config, step, train, results, progress, *validated)
                    results.append(result)
                    progress = Progress(step=progress.step)
                    step.counts_4.zero_()
                    if result.best:
                        save_checkpoint(
                            folder.best_model,
                            dataclasses.replace(base, results=tuple(results), network=network.state_dict()),
                        )
                    save(progress)  # last: whoever resumes finds the epoch either wholly done or not at all
                    folder.write_metrics(results)
                    log.on_epoch(result)
                    listener.on_epoch(result)
                    bad = train.bad_records + val.bad_records
                    if found := tuple(record for record in bad if record not in told):
                        log.on_bad_records(found, len(bad))
                        listener.on_bad_records(found, len(bad))
                        told.update(found)
            except torch.OutOfMemoryError as error:
                raise HardwareError(
                    f"the GPU's memory cannot hold a step of batch_size={config.batch_size} at side {train.side}; use "
                    f"--batch-size {max(1, config.batch_size // 2)}, a narrower network or a cache of a smaller side"
                ) from error
            interrupted = len(results) < config.epochs
            log.note(f"interrupted after step {progress.step}" if interrupted else "finished")
        plots = () if interrupted else _draw(config, folder, results, val)
    return FitResult(
        epochs=tuple(results),
        best=best_epoch(results),
        interrupted=interrupted,
        best_model=folder.best_model,
        last_model=folder.last_model,
        log=log.path,
        plots=plots,
        bad_records=train.bad_records + val.bad_records,
    )


def _loader_config(config: TrainConfig, split: str) -> LoaderConfig:
    training = split == "train"
    return LoaderConfig(
        cache=config.cache,
        split=split,
        batch_size=config.batch_size,
        backend=config.loader,
        device=config.device,
        augment=LEVELS[config.augment if training else "none"],
        shuffle=training,
        drop_last=training,
        seed=config.seed,
        threads=config.threads,
        on_bad_record=config.on_bad_record,
    )


def _make_steps(config: TrainConfig, network: SegmentationNetwork) -> tuple[TrainStep, EvalStep]:
    optimizer = build_optimizer(network, learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    precision, loss, device = config.precision, LOSSES[config.loss], config.device
    backend = "inductor" if config.compile else None
    return (
        TrainStep(network, optimizer, precision=precision, loss=loss, compile=backend, device=device, clip=config.clip),
        EvalStep(network, precision=precision, loss=loss, compile=backend, device=device),
    )


def _train_epoch(
    config: TrainConfig,
    step: TrainStep,
    loader: Loader,
    epoch: int,
    progress: Progress,
    on_step: Callable[[int, int, float, float], None],
    save: Callable[[Progress], None],
    stop: threading.Event,
) -> Progress:
    """Train to the end of an epoch, or until asked to stop; `progress` says where it is begun."""
    if loader.state_dict()["epoch"] > epoch:  # it was stopped while it validated
        return progress
    read_every = GPU_READ_STEPS if config.device == "cuda" else 1
    first, steps = epoch * len(loader), config.epochs * len(loader)
    window: list[tuple[Tensor, float, npt.NDArray[np.int64]]] = []
    seconds, saved_at = progress.seconds, perf_counter()
    asked = started = perf_counter()
    waited, skipped = progress.waited, progress.skipped
    for batch in loader:
        waited += perf_counter() - asked
        skipped += len(batch.skipped)
        number = progress.step + len(window)
        rate = learning_rate(number, steps=steps, peak=config.learning_rate, warmup=config.warmup)
        window.append((step(batch.image, batch.person, batch.ignore, rate), rate, batch.samples))
        done = number + 1 - first
        due = perf_counter() - saved_at >= 60 * config.checkpoint_minutes
        if due or stop.is_set() or len(window) == read_every or done == len(loader):
            losses = _read_losses(window, epoch, done, loader)
            spent = seconds + perf_counter() - started
            progress = Progress(
                step=number + 1,
                loss_sum=progress.loss_sum + math.fsum(losses),
                seconds=spent,
                waited=waited,
                skipped=skipped,
            )
            window.clear()
            on_step(done, len(loader), math.fsum(losses) / len(losses), done * config.batch_size / spent)
            if due:
                save(progress)
                saved_at = perf_counter()
            if stop.is_set():
                break
        asked = perf_counter()
    return progress


def _read_losses(
    window: list[tuple[Tensor, float, npt.NDArray[np.int64]]], epoch: int, done: int, loader: Loader
) -> list[float]:
    """Read the losses of the latest steps of an epoch, `done` so far; on a GPU this waits for them."""
    losses: list[float] = torch.stack([loss for loss, _, _ in window]).tolist()
    for number, (loss, (_, rate, samples)) in enumerate(zip(losses, window, strict=True), done - len(window) + 1):
        if not math.isfinite(loss):
            images = loader.reader.samples["image_id"][samples].tolist()
            raise DivergedError(
                f"the loss is {loss} in epoch {epoch + 1}, step {number} of {len(loader)}, at a learning rate of "
                f"{rate:.2e}, on the images {', '.join(map(str, images))}; start anew with a lower --learning-rate "
                "or with --precision fp32, or look at these images"
            )
    return losses


def _validate(evaluate: EvalStep, loader: Loader, stop: threading.Event) -> tuple[float, Scores, float, int] | None:
    """Give the loss, scores, seconds and number of skipped images of one pass over all, or None when asked to stop."""
    started = perf_counter()
    skipped = 0
    evaluate.reset()
    for batch in loader:
        if stop.is_set():
            return None
        evaluate(batch.image, batch.person, batch.ignore, batch.valid - len(batch.skipped))
        skipped += len(batch.skipped)
    if stop.is_set():
        return None
    counts: list[int] = evaluate.counts_4.tolist()
    loss = float(evaluate.loss_sum) / evaluate.images
    return loss, Scores.from_counts(*counts), perf_counter() - started, skipped


def _summarise(
    config: TrainConfig,
    step: TrainStep,
    loader: Loader,
    before: list[EpochResult],
    progress: Progress,
    val_loss: float,
    val: Scores,
    val_seconds: float,
    val_skipped: int,
) -> EpochResult:
    steps = len(loader)
    counts: list[int] = step.counts_4.tolist()
    last = learning_rate(
        progress.step - 1, steps=config.epochs * steps, peak=config.learning_rate, warmup=config.warmup
    )
    best = best_epoch(before)
    return EpochResult(
        epoch=len(before) + 1,
        epochs=config.epochs,
        train_loss=progress.loss_sum / steps,
        train_accuracy=Scores.from_counts(*counts).accuracy,
        val_loss=val_loss,
        val=val,
        learning_rate=last,
        train_seconds=progress.seconds,
        val_seconds=val_seconds,
        images_per_s=steps * config.batch_size / progress.seconds,
        wait_share=progress.waited / progress.seconds,
        best=best is None or val.iou > best.val.iou,
        skipped=progress.skipped + val_skipped,
    )


def _draw(config: TrainConfig, folder: RunFolder, results: list[EpochResult], val: Loader) -> tuple[Path, ...]:
    """Draw the curves, and what the best network makes of some validation images."""
    network, _ = load_network(folder.best_model, device=config.device)
    val.load_state_dict({"epoch": 0, "consumed": 0})
    samples = choose_samples(predict_samples(network, val, limit=PICTURED_SAMPLES))
    return (
        plot_curves(results, folder.plots / "training_curves.png"),
        plot_samples(samples, folder.plots / "sample_predictions.png"),
    )
