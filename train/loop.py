"""A training run, from an opened cache to the pictures."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path

import torch

from cache.index import CacheIndex
from loader.augment import LEVELS
from loader.batch import LoaderConfig
from loader.damage import BadRecord
from loader.loader import Loader, open_loader
from model.base import SegmentationNetwork, check_side
from model.boundary import boundary_tolerance
from model.encoder_unet import EncoderUNet
from model.encoder_weights import start_encoder
from model.loss import LOSSES
from train.average import WeightAverage
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
    save_weights,
)
from train.config import TrainConfig, TrainConfigError
from train.epoch import summarise, train_epoch, validate
from train.folder import RunFolder, RunLog, open_log
from train.hardware import HardwareError, adapt, describe, read_hardware
from train.interrupt import StopRequest, stop_requests
from train.memory import keep_freed_memory
from train.optimizer import build_optimizer
from train.plots import plot_confusion, plot_curves, plot_metrics, plot_samples
from train.predictions import choose_samples, predict_samples
from train.ranks import Ranks
from train.reproducible import kernels
from train.result import EpochResult, FitResult, Listener, Listeners, StartInfo, best_epoch
from train.room import make_room
from train.step import EvalStep, TrainStep, prepare_network
from train.tensorboard import missing, open_tensorboard
from train.wandb_run import open_wandb

PICTURED_SAMPLES = 96
"""Validation images among which those of `sample_predictions.png` are chosen."""


def fit(config: TrainConfig, listener: Listener, *, resume: bool = False) -> FitResult:
    """Train, validate and save each epoch, then draw pictures.

    The first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint from which `resume` goes on as
    if nothing had happened: the same batches in the same order and, on a CPU, eagerly, with as many threads, the same
    bits. Torch's global generator is seeded.

    Started by `torchrun`, each rank learns from its slice of each global batch, and the weights are updated by the mean
    of their gradients; the first one writes and tells. A run on several ranks draws its dropout anew when it goes on.

    Args:
        config: what to train; everything is written below `config.out`.
        listener: is told how it goes.
        resume: go on from the `last_model.pth` in `config.out`.

    Raises:
        CacheError: see `loader.open_loader`.
        CheckpointError: `config.out` holds a run and `resume` is not set; or none, or another one, and it is set; or
            saving failed.
        HardwareError: see `train.hardware.adapt`; or the GPU's memory cannot hold a step.
        EncoderError: see `model.encoder_unet.EncoderUNet` and `model.encoder_weights.start_encoder`.
        ValueError: the network cannot take the cache's side.
        DivergedError: the loss is no longer a number; the last checkpoint is from before that.
    """
    hardware = read_hardware()
    config, notes = adapt(config, hardware)
    if config.device == "cpu":
        keep_freed_memory()
    folder = RunFolder(config.out)
    ranks = Ranks.found()
    with ExitStack() as stack:
        stack.enter_context(kernels(deterministic=config.deterministic))
        stack.enter_context(ranks.joined(config.device))
        config = config.shared_out(ranks.world)
        # Only the first rank's machine need have the run's folder.
        saved = ranks.from_first(lambda: load_checkpoint(folder.last_model)) if resume else None
        if saved and (saved.config.world, saved.config.images_an_update) == (ranks.world, config.images_an_update):
            parts = saved.config.batch_size, saved.config.accumulation  # as room was found for when it began
            config = dataclasses.replace(config, batch_size=parts[0], accumulation=parts[1])
        elif config.device == "cuda":
            config, made_room = make_room(config, CacheIndex.load(config.cache).spec.side, ranks)
            notes += made_room
        train = stack.enter_context(open_loader(_loader_config(config, "train", ranks)))
        val = stack.enter_context(open_loader(_loader_config(config, "val", ranks)))
        stop = StopRequest(stack.enter_context(stop_requests()), ranks, config.device)
        torch.manual_seed(config.seed)
        network = prepare_network(config.network, channels_last=config.channels_last, device=config.device)
        check_side(network, train.side, name="the cache's side")
        if isinstance(network, EncoderUNet) and not saved:
            notes += _start_encoder(network, config.encoder_weights, ranks)
        step, evaluate = _make_steps(config, network, train.side, ranks)

        fingerprint = _common_fingerprint(config, train, ranks)
        results, progress = list[EpochResult](), Progress()
        told = set[BadRecord]()
        if saved:
            going_on = check_resumable(folder.last_model, saved, config, fingerprint)
            step.load_state_dict({**going_on.step, "network": saved.network})
            train.load_state_dict(going_on.loader)
            if ranks.first:
                restore_random_state(going_on.random)
            results, progress = list(saved.results), going_on.progress
            if config.epochs > saved.config.epochs:
                notes += (f"epochs raised from {saved.config.epochs}: the learning rate follows the longer schedule",)
        if config.side not in (None, train.side):
            notes += (f"the cache's side of {train.side} is used, not the {config.side} of profile {config.profile}",)

        notes += train.notes
        notes += (missing(),) if missing() else ()

        if ranks.first:
            folder.prepare(resume=resume)
            folder.write_config(config)
            folder.write_environment(describe(hardware))
        ranks.wait()
        if not ranks.first:
            # Another dropout than the first one's.
            torch.manual_seed(config.seed + 1000003 * ranks.rank + progress.step)
        base = Checkpoint(
            config=config,
            fingerprint=fingerprint,
            side=train.side,
            fit=train.reader.index.spec.fit,
            results=(),
            network={},
        )

        def save(progress: Progress) -> None:
            if not ranks.first:
                return
            state = step.state_dict()
            weights = state.pop("network")
            going_on = Continuation(progress=progress, step=state, loader=train.state_dict(), random=random_state())
            save_checkpoint(
                folder.last_model,
                dataclasses.replace(base, results=tuple(results), network=weights, continuation=going_on),
            )

        with open_log(folder, first=ranks.first) as log, ExitStack() as boards:
            everyone = Listeners()
            if ranks.first:
                board = boards.enter_context(open_tensorboard(folder, progress.step))
                project = boards.enter_context(open_wandb(folder, config.wandb, progress.step))
                everyone = Listeners(log, board, project, listener)
            start = StartInfo(
                config=config,
                notes=notes,
                environment=describe(hardware),
                train_images=len(train.reader),
                val_images=len(val.reader),
                side=train.side,
                loader=str(train.choice),
                parameters=sum(parameter.numel() for parameter in step.network.parameters()),
                steps_per_epoch=len(train),
                step=progress.step,
            )
            everyone.on_start(start)
            try:
                while len(results) < config.epochs and not _stale(config, results) and not stop.agree():
                    progress = train_epoch(config, step, train, results, progress, everyone.on_step, save, stop, ranks)
                    validation = validate(evaluate, val, stop, ranks)
                    if validation is None:
                        save(progress)
                        break
                    result = summarise(config, step, train, results, progress, validation, ranks)
                    results.append(result)
                    progress = Progress(step=progress.step)
                    step.counts_4.zero_()
                    if result.best and ranks.first:
                        weights = evaluate.network.state_dict()
                        best = dataclasses.replace(base, results=tuple(results), network=weights)
                        save_checkpoint(folder.best_model, best)
                        save_weights(folder.best_weights, best)
                    save(progress)  # last: whoever resumes finds the epoch either wholly done or not at all
                    if ranks.first:
                        folder.write_metrics(results)
                    everyone.on_epoch(result)
                    for loader in (train, val):
                        _note_transfers(log, loader)
                    bad = train.bad_records + val.bad_records
                    if found := tuple(record for record in bad if record not in told):
                        everyone.on_bad_records(found, len(bad))
                        told.update(found)
            except torch.OutOfMemoryError as error:
                raise HardwareError(
                    f"the GPU's memory cannot hold a step of batch_size={config.batch_size} at side {train.side}; use "
                    f"--batch-size {max(1, config.batch_size // 2)}, a narrower network or a cache of a smaller side"
                ) from error
            stopped_early = len(results) < config.epochs and _stale(config, results)
            interrupted = len(results) < config.epochs and not stopped_early
            if stopped_early:
                log.note(f"stopped early: no better IoU for {config.patience} epochs")
            log.note(f"interrupted after step {progress.step}" if interrupted else "finished")
        plots = _draw(config, folder, results, val) if ranks.first and not interrupted else ()
    return FitResult(
        epochs=tuple(results),
        best=best_epoch(results),
        interrupted=interrupted,
        best_model=folder.best_model,
        last_model=folder.last_model,
        log=log.path,
        plots=plots,
        stopped_early=stopped_early,
        bad_records=train.bad_records + val.bad_records,
    )


def _common_fingerprint(config: TrainConfig, train: Loader, ranks: Ranks) -> str:
    """The cache's fingerprint.

    Raises:
        TrainConfigError: this rank's cache is not that of the first one.
    """
    mine = train.reader.index.fingerprint
    if ranks.from_first(lambda: mine) != mine:
        raise TrainConfigError(
            f"{config.cache} is not the same cache as on rank 0 (another fingerprint); copy that one to this machine, "
            "or train all ranks from one URL"
        )
    return mine


def _note_transfers(log: RunLog, loader: Loader) -> None:
    """Say in the log what a loader of object storage has fetched so far, and what trouble there was."""
    store = loader.reader.store
    if store:
        repeats = store.storage.repeats
        trouble = f", {repeats} requests repeated, the last one because {store.storage.trouble}" if repeats else ""
        log.note(
            f"{loader.config.split}: {store.fetched} shards, {store.fetched_bytes / 1e6:.1f} MB fetched so far{trouble}"
        )


def _loader_config(config: TrainConfig, split: str, ranks: Ranks) -> LoaderConfig:
    training = split == "train"
    return LoaderConfig(
        cache=config.cache,
        split=split,
        batch_size=config.batch_size,
        backend=config.loader,
        device=config.device,
        augment=LEVELS[config.augment if training else "none"],
        shuffle=training,
        order=config.order,
        window=config.window,
        ahead=config.ahead,
        folder=config.folder,
        in_place=config.in_place,
        drop_last=training,
        seed=config.seed,
        threads=config.threads,
        prefetch=config.prefetch,
        pin_memory=config.pin_memory,
        on_bad_record=config.on_bad_record,
        rank=ranks.rank,
        world=ranks.world,
    )


def _start_encoder(network: EncoderUNet, weights: str, ranks: Ranks) -> tuple[str, ...]:
    """Pretrained weights, the same on all ranks: they may have come over the network to the first alone."""
    note = start_encoder(network, weights) if ranks.first else ""
    ranks.share(network.encoder.state_dict().values())
    return (note,)


def _make_steps(
    config: TrainConfig, network: SegmentationNetwork, side: int, ranks: Ranks
) -> tuple[TrainStep, EvalStep]:
    """The step that trains, and the one that validates: the average of the weights, if there is one."""
    device = config.device
    optimizer = build_optimizer(
        network,
        learning_rate=config.peak,
        weight_decay=config.decay,
        name=config.optimizer,
        momentum=config.momentum,
    )
    average = None
    if config.average:
        state = torch.get_rng_state()
        twin = prepare_network(config.network, channels_last=config.channels_last, device=device)
        torch.set_rng_state(state)  # a run draws the same dropout with an average as without
        average = WeightAverage(twin, network, config.average)
    precision, loss, backend = config.precision, LOSSES[config.loss], "inductor" if config.compile else None
    step = TrainStep(
        network,
        optimizer,
        precision=precision,
        loss=loss,
        compile=backend,
        device=device,
        clip=config.clip,
        average=average,
        ranks=ranks,
    )
    validated = twin if average else network
    tolerance = boundary_tolerance(side, side)
    evaluate = EvalStep(validated, precision=precision, loss=loss, compile=backend, device=device, tolerance=tolerance)
    return step, evaluate


def _stale(config: TrainConfig, results: list[EpochResult]) -> bool:
    """Whether the score has not risen for longer than the run's patience."""
    best = best_epoch(results)
    return bool(config.patience and best and len(results) - best.epoch >= config.patience)


def _draw(config: TrainConfig, folder: RunFolder, results: list[EpochResult], val: Loader) -> tuple[Path, ...]:
    """Draw the curves, and what the best network makes of some validation images."""
    network, _ = load_network(folder.best_model, device=config.device)
    val.load_state_dict({"epoch": 0, "consumed": 0})
    samples = choose_samples(predict_samples(network, val, limit=PICTURED_SAMPLES))
    best = best_epoch(results)
    assert best is not None, "a run that is done has an epoch"
    return (
        plot_curves(results, folder.plots / "training_curves.png", loss=config.loss),
        plot_metrics(results, folder.plots / "metrics_evolution.png"),
        plot_confusion(best.val_counts, folder.plots / "confusion_matrix.png"),
        plot_samples(samples, folder.plots / "sample_predictions.png"),
    )
