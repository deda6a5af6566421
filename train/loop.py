"""A training run, from an opened cache to the pictures."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch

from cache.messages import message
from loader.bad_records import BadRecord
from loader.loader import Loader
from train.checkpoint import load_network
from train.config import TrainConfig
from train.epoch import summarise, train_epoch, validate
from train.folder import RunLog, open_log
from train.hardware import Hardware, HardwareError, describe, read_hardware
from train.plots import choose_samples, plot_confusion, plot_curves, plot_metrics, plot_samples, predict_samples
from train.process import keep_freed_memory
from train.profiles import adapt
from train.result import FitResult, Listener, StartInfo, best_epoch
from train.run import Run, open_run
from train.trackers import missing, open_tensorboard, open_wandb

PICTURED_SAMPLES = 96
"""Validation images among which those of `sample_predictions.png` are chosen."""


def fit(config: TrainConfig, listener: Listener, *, resume: bool = False) -> FitResult:
    """Train, validate and save each epoch, then draw pictures.

    The first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint from which `resume` continues as
    if nothing had happened: the same batches in the same order and, on a CPU, eagerly, with as many threads, the same
    bits. Torch's global generator is seeded.

    Started by `torchrun`, each rank learns from its slice of each global batch, and the weights are updated by the mean
    of their gradients; the first one writes and tells. A resumed run on several ranks draws its dropout anew.

    Args:
        config: what to train; everything is written below `config.out`.
        listener: hears how the run goes.
        resume: continue from the `last_model.pth` in `config.out`.

    Raises:
        CacheError: see `loader.open_loader`.
        CheckpointError: `config.out` holds a run and `resume` is not set; or none, or another one, and it is set; or
            saving failed.
        HardwareError: see `train.profiles.adapt`; or the GPU's memory cannot hold a step.
        EncoderError: see `model.encoder_unet.EncoderUNet` and `model.encoder_unet.start_encoder`.
        ValueError: the network cannot take the cache's side.
        DivergedError: the loss is no longer a number; the last checkpoint is from before that.
    """
    hardware = read_hardware()
    config, notes = adapt(config, hardware)
    if config.device == "cpu":
        keep_freed_memory()
    with open_run(config, notes, resume=resume) as run:
        run.notes += (missing(),) if missing() else ()
        _begin(run, hardware, resume=resume)
        with open_log(run.folder, first=run.ranks.first) as log, ExitStack() as trackers:
            listeners: list[Listener] = []
            if run.ranks.first:
                board = trackers.enter_context(open_tensorboard(run.folder, run.progress.step))
                project = trackers.enter_context(open_wandb(run.folder, run.config.wandb, run.progress.step))
                listeners = [each for each in (log, board, project, listener) if each is not None]
            for each in listeners:
                each.on_start(_introduce(run, hardware))
            try:
                _train(run, log, listeners)
            except torch.OutOfMemoryError as error:
                batch_size = run.config.loader.batch_size
                raise HardwareError(
                    "the GPU's memory cannot hold a step of batch_size={batch_size} at side {side}; use --batch-size "
                    "{maximum}, a narrower network or a cache of a smaller side",
                    batch_size=batch_size,
                    side=run.train.side,
                    maximum=max(1, batch_size // 2),
                ) from error
            interrupted = run.unfinished
            stopped_early = len(run.results) < run.config.epochs and not interrupted
            if stopped_early:
                log.note(f"stopped early: no better IoU for {run.config.patience} epochs")
            log.note(f"interrupted after step {run.progress.step}" if interrupted else "finished")
        plots = _draw(run) if run.ranks.first and not interrupted else ()
    return FitResult(
        epochs=tuple(run.results),
        best=best_epoch(run.results),
        interrupted=interrupted,
        best_model=run.folder.best_model,
        last_model=run.folder.last_model,
        log=log.path,
        plots=plots,
        stopped_early=stopped_early,
        bad_records=run.bad_records,
    )


def _begin(run: Run, hardware: Hardware, *, resume: bool) -> None:
    """Make the run's folder, and seed the ranks."""
    if run.ranks.first:
        run.folder.prepare(resume=resume)
        run.folder.write_config(run.config)
        run.folder.write_environment(describe(hardware))
    run.ranks.wait()
    if not run.ranks.first:
        # Another dropout than the first one's.
        torch.manual_seed(run.config.loader.seed + 1000003 * run.ranks.rank + run.progress.step)


def _introduce(run: Run, hardware: Hardware) -> StartInfo:
    return StartInfo(
        config=run.config,
        notes=run.notes,
        environment=describe(hardware),
        train_images=len(run.train.reader),
        val_images=len(run.val.reader),
        side=run.train.side,
        loader=str(run.train.choice),
        parameters=sum(parameter.numel() for parameter in run.step.network.parameters()),
        steps_per_epoch=len(run.train),
        step=run.progress.step,
    )


def _train(run: Run, log: RunLog, listeners: list[Listener]) -> None:
    """Epoch after epoch: to the last one, until the score no longer rises, or until asked to stop."""

    def on_step(done: int, total: int, loss: float, images_per_s: float) -> None:
        for listener in listeners:
            listener.on_step(done, total, loss, images_per_s)

    reported = set[BadRecord]()
    while run.unfinished and not run.stop.agree():
        run.progress = train_epoch(run, on_step)
        validation = validate(run)
        if validation is None:
            run.save_stopped()
            break
        result = summarise(run, validation)
        run.finish_epoch(result)
        for listener in listeners:
            listener.on_epoch(result)
        for loader in (run.train, run.val):
            _note_transfers(log, loader)
        if found := tuple(record for record in run.bad_records if record not in reported):
            reported.update(found)
            for listener in listeners:
                listener.on_bad_records(found, len(run.bad_records))


def _note_transfers(log: RunLog, loader: Loader) -> None:
    """Say in the log what a loader of object storage has fetched so far, and what trouble there was."""
    store = loader.reader.store
    if store:
        repeats = store.storage.repeats
        trouble = (
            message(
                ", {repeats} requests repeated, the last one because {trouble}",
                repeats=repeats,
                trouble=store.storage.trouble,
            )
            if repeats
            else ""
        )
        log.note(
            f"{loader.config.split}: {store.fetched} shards, {store.fetched_bytes / 1e6:.1f} MB fetched so far{trouble}"
        )


def _draw(run: Run) -> tuple[Path, ...]:
    """Draw the curves, and what the best network makes of some validation images."""
    folder, val = run.folder, run.val
    network, _ = load_network(folder.best_model, device=run.config.device)
    val.load_state_dict({"epoch": 0, "consumed": 0})
    samples = choose_samples(predict_samples(network, val, limit=PICTURED_SAMPLES))
    best = best_epoch(run.results)
    assert best is not None, "a run that is done has an epoch"
    return (
        plot_curves(run.results, folder.plots / "training_curves.png", loss=run.config.loss),
        plot_metrics(run.results, folder.plots / "metrics_evolution.png"),
        plot_confusion(best.val_counts, folder.plots / "confusion_matrix.png"),
        plot_samples(samples, folder.plots / "sample_predictions.png"),
    )
