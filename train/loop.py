"""The training loop: epochs of training and validation, from an opened cache to the pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from cache.arrays import I64
from cache.messages import UserError
from loader.batch import BadRecord
from loader.loader import Loader
from model.loss import LOSSES
from model.metrics import BoundaryScores, Scores
from train.checkpoint import CheckpointError, Progress, load_checkpoint, save_checkpoint, save_weights
from train.config import TrainConfig
from train.forecast import space_notes
from train.inference import measure_inference
from train.listeners import Listener, RunLog, open_log, open_trackers
from train.optimizer import learning_rate, plateau_factor
from train.plots import choose_samples, plot_confusion, plot_curves, plot_metrics, plot_samples
from train.predictor import CacheImages, load_predictor
from train.result import EpochResult, FitResult, Inference, best_epoch
from train.run import Run, open_run

GPU_READ_STEPS = 50
"""Steps between two reads of a GPU's losses: each read waits for all work that is queued. On a CPU nothing waits."""

PICTURED_SAMPLES = 96
"""Validation images among which those of `sample_predictions.png` are chosen."""


class DivergedError(UserError):
    """The loss is no longer a number; the message names the step, the learning rate and the images."""


def fit(config: TrainConfig, listener: Listener, *, resume: bool = False) -> FitResult:
    """Train, validate and save each epoch, measure how the best network is to be used, then draw pictures.

    The first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint from which `resume` continues as
    if nothing had happened: the same batches in the same order and, on a CPU, eagerly, with as many threads, the same
    bits. Torch's global generator is seeded.

    Started by `torchrun`, each rank trains on its slice of each global batch, and the weights are updated by the mean
    of their gradients; the first one writes and reports. A resumed run on several ranks draws its dropout anew.

    Everything is written below `config.out`; `resume` continues from the `last_model.pth` there.

    Raises:
        CacheError: see `loader.open_loader`; or another process trains into `config.out`.
        CheckpointError: `config.out` holds a run and `resume` is not set; or none, or another one, and it is set; or
            saving failed.
        HardwareError: see `train.profiles.adapt`; or the memory cannot hold a step.
        EncoderError: see `model.encoder_unet.EncoderUNet` and `model.encoder_unet.start_encoder`.
        ValueError: the network cannot take the cache's side.
        DivergedError: the loss is no longer a number; the last checkpoint is from before that.
    """
    with open_run(config, resume=resume) as run, ExitStack() as stack:
        _begin(run, stack, resume=resume)
        with open_log(run.folder, first=run.ranks.first) as log:
            trackers = open_trackers(run) if run.ranks.first else []
            for tracker in trackers:
                stack.callback(tracker.close)
            listeners: list[Listener] = [log, *trackers, listener] if run.ranks.first else []
            for each in listeners:
                each.on_start(run)
            _train(run, log, listeners)
            interrupted = run.unfinished
            stopped_early = len(run.results) < run.config.epochs and not interrupted
            if stopped_early:
                log.note(f"stopped early: no better IoU for {run.config.patience} epochs")
            measuring = run.ranks.first and not interrupted
            inference = _measure(run, log) if measuring else None
            interrupted |= measuring and inference is None and run.stop.agreed
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
        inference=inference,
        stopped_early=stopped_early,
        bad_records=run.bad_records,
    )


def _begin(run: Run, stack: ExitStack, *, resume: bool) -> None:
    """Make the run's folder, locked until the stack is closed, and seed the ranks."""
    if run.ranks.first:
        run.folder.prepare()
        if not resume:
            stack.enter_context(run.folder.locked())
            if run.folder.last_model.exists():
                raise CheckpointError(
                    "{root} already holds a run; go on with --resume, or choose another --out", root=run.folder.root
                )
        run.folder.write_json("config.json", run.config.resolved())
        run.folder.write_environment(run.environment)
        if run.results:  # a run may have been killed before it had written its last ones
            run.folder.write_metrics(run.results)
        run.notes += space_notes(run)
    run.ranks.wait()
    if not run.ranks.first:  # each rank draws another dropout
        torch.manual_seed(run.config.loader.seed + 1000003 * run.ranks.rank + run.progress.step)


def _train(run: Run, log: RunLog, listeners: list[Listener]) -> None:
    """Train until the last epoch is done, the score no longer rises, or the run is asked to stop."""

    def on_step(done: int, total: int, loss: float, images_per_s: float) -> None:
        for listener in listeners:
            listener.on_step(done, total, loss, images_per_s)

    reported = set[BadRecord]()
    while run.unfinished and not run.stop.agree():
        run.progress = train_epoch(run, on_step)
        result = validate(run)
        if result is None:
            run.save_stopped()
            break
        run.finish_epoch(result)
        for listener in listeners:
            listener.on_epoch(result)
        _note_transfers(run, log)
        if found := tuple(record for record in run.bad_records if record not in reported):
            reported.update(found)
            for listener in listeners:
                listener.on_bad_records(found, len(run.bad_records))


def train_epoch(run: Run, on_step: Callable[[int, int, float, float], None]) -> Progress:
    """Train to the end of the epoch that follows `run.results`, or until asked to stop; give the progress.

    Only after an update is a checkpoint written or the run stopped, so no gradient has to be kept. `on_step` is
    `Listener.on_step`.

    Raises `DivergedError`: a loss is not finite.
    """
    config, step, loader, progress, stop = run.config, run.step, run.train, run.progress, run.stop
    epoch, total = len(run.results), len(loader)
    if loader.state_dict()["epoch"] > epoch:  # all of its batches were taken before the run was stopped
        return progress
    step.begin_epoch(epoch)
    group = config.accumulation
    read_every = GPU_READ_STEPS if config.device == "cuda" else 1
    window: list[tuple[Tensor, float, I64]] = []
    saved_at = asked = started = perf_counter()
    before, waited, skipped = progress.seconds, progress.waited, progress.skipped
    first = progress.step - epoch * total  # steps of this epoch that an earlier part of the run has done
    for done, batch in enumerate(loader, first + 1):
        waited += perf_counter() - asked
        skipped += len(batch.skipped)
        begins = (done - 1) // group * group
        last, number = done % group == 0 or done == total, epoch * total + done
        rate = _rate(run, number - 1)
        warming = not step.warm
        planes = batch.person, batch.ignore
        loss = step(batch.image, *planes, rate, batches=min(group, total - begins), last=last)
        window.append((loss, rate, batch.samples))
        due = last and run.ranks.first and perf_counter() - saved_at >= 60 * config.checkpoint_minutes
        regular = done % read_every == 0 or done == total  # the same steps on all ranks
        stopping = last and (stop.agree() if regular else stop.agreed)
        if due or stopping or warming or regular:
            losses = _read_losses(window, epoch, done, loader)
            now = perf_counter()
            if warming:  # the first step compiles or searches for the fastest kernels, which is no part of the speed
                spent = progress.warmup + now - started
                progress = dataclasses.replace(progress, warmup=spent, warmup_steps=progress.warmup_steps + 1)
                started, waited = now, progress.waited
            loss_sum, seconds = progress.loss_sum + math.fsum(losses), before + now - started
            progress = dataclasses.replace(
                progress, step=number, loss_sum=loss_sum, seconds=seconds, waited=waited, skipped=skipped
            )
            run.progress = progress  # for the listeners
            window.clear()
            on_step(done, total, math.fsum(losses) / len(losses), _images_per_s(config, done, progress))
            if due:
                run.save(progress)
                saved_at = perf_counter()
            if stopping:
                break
        asked = perf_counter()
    return progress


def _images_per_s(config: TrainConfig, done: int, progress: Progress) -> float:
    """The speed of all ranks so far in an epoch, without warm-up steps unless there are no others."""
    images = config.images_per_step
    if done > progress.warmup_steps:
        return images * (done - progress.warmup_steps) / progress.seconds
    return images * done / progress.warmup


def _read_losses(window: list[tuple[Tensor, float, I64]], epoch: int, done: int, loader: Loader) -> list[float]:
    """Read the losses of the latest steps of an epoch, `done` so far; on a GPU this waits for them."""
    losses: list[float] = torch.stack([loss for loss, _, _ in window]).tolist()
    for step, (loss, (_, rate, samples)) in enumerate(zip(losses, window, strict=True), done - len(window) + 1):
        if not math.isfinite(loss):
            images = loader.reader.samples["image_id"][samples].tolist()
            raise DivergedError(
                "the loss is {loss} in epoch {epoch}, step {step} of {steps}, at a learning rate of {rate:.2e}, on the "
                "images {images}; start anew with a lower --learning-rate or with --precision fp32, or look at these "
                "images",
                loss=loss,
                epoch=epoch + 1,
                step=step,
                steps=len(loader),
                rate=rate,
                images=", ".join(map(str, images)),
            )
    return losses


def _rate(run: Run, step: int) -> float:
    """The learning rate of a step, counted over all epochs, in the epoch that follows the run's results.

    The schedule counts updates, so that several ranks and one process that accumulates have the same one.
    """
    config, peak = run.config, run.config.peak
    if config.scheduler == "plateau":
        peak *= plateau_factor([result.val_loss for result in run.results])
    (epoch, done), updates = divmod(step, len(run.train)), math.ceil(len(run.train) / config.accumulation)
    update, total = epoch * updates + done // config.accumulation, config.epochs * updates
    return learning_rate(update, updates=total, peak=peak, warmup=config.warmup, scheduler=config.scheduler)


def validate(run: Run) -> EpochResult | None:
    """Pass over all validation images, each rank over its share; give the result of the epoch, None if asked to stop.

    The result is that of all ranks together, except for the times, which are those of this rank.
    """
    evaluate, ranks, stop, progress, steps = run.evaluate, run.ranks, run.stop, run.progress, len(run.train)
    started, warmup = perf_counter(), progress.warmup
    skipped = progress.skipped
    evaluate.reset()
    for batch in run.val:
        if stop.agreed:
            return None
        called, compiling = perf_counter(), run.config.compile and not evaluate.warm
        evaluate(batch.image, batch.person, batch.ignore, batch.valid - len(batch.skipped))
        warmup += perf_counter() - called if compiling else 0.0
        skipped += len(batch.skipped)
    if stop.agree():
        return None
    numbers_3 = torch.tensor(
        [progress.loss_sum, evaluate.images, skipped], dtype=torch.float64, device=evaluate.counts_4.device
    )
    train_counts_4 = run.step.counts_4.clone()
    ranks.sum(evaluate.counts_4, evaluate.boundary_4, evaluate.loss_sum, train_counts_4, numbers_3)
    loss_sum, images, skipped = numbers_3.tolist()
    train_counts: list[int] = train_counts_4.tolist()
    tp, fp, fn, tn = evaluate.counts_4.tolist()
    scores, best = Scores.from_counts(tp, fp, fn, tn), best_epoch(run.results)
    return EpochResult(
        epoch=len(run.results) + 1,
        epochs=run.config.epochs,
        train_loss=loss_sum / steps / ranks.world,
        train_accuracy=Scores.from_counts(*train_counts).accuracy,
        val_loss=float(evaluate.loss_sum) / images,
        val=scores,
        val_counts=(tp, fp, fn, tn),
        boundary_f=BoundaryScores.from_counts(*evaluate.boundary_4.tolist()).f,
        learning_rate=_rate(run, progress.step - 1),
        train_seconds=progress.seconds,
        warmup_seconds=warmup,
        val_seconds=perf_counter() - started - (warmup - progress.warmup),
        images_per_s=_images_per_s(run.config, steps, progress),
        wait_share=progress.waited / progress.seconds if progress.seconds else 0.0,
        best=best is None or scores.iou > best.val.iou,
        skipped=round(skipped),
    )


def _note_transfers(run: Run, log: RunLog) -> None:
    """Log what has been fetched from object storage so far, and which requests failed."""
    for loader in (run.train, run.val):
        if store := loader.reader.store:
            repeats, megabytes = store.storage.repeats, store.fetched_bytes / 1e6
            trouble = f", {repeats} requests repeated, the last one because {store.storage.trouble}" if repeats else ""
            log.note(f"{loader.config.split}: {store.fetched} shards, {megabytes:.1f} MB fetched so far{trouble}")


def _measure(run: Run, log: RunLog) -> Inference | None:
    """Measure at which side and threshold the best network is used, and write both into its checkpoint.

    None if asked to stop meanwhile: the checkpoint is then as it was.
    """
    path = run.folder.best_model
    predictor = load_predictor(path, run.config.device, run.config.precision)
    inference = measure_inference(run.val, predictor, lambda: run.stop.agreed)
    if inference is None:
        log.note("the side and the threshold were not measured")
        return None
    best = dataclasses.replace(load_checkpoint(path), inference=inference)
    save_checkpoint(path, best)
    save_weights(run.folder.best_weights, best)
    run.folder.write_json("inference.json", dataclasses.asdict(inference))
    log.note(f"inference: {json.dumps(dataclasses.asdict(inference))}")
    return inference


def _draw(run: Run) -> tuple[Path, ...]:
    """Draw the curves, and predictions of the best network for some validation images."""
    config, folder = run.config, run.folder
    predictor = load_predictor(folder.best_model, config.device, config.precision)
    images = chain.from_iterable(CacheImages(run.val, predictor, LOSSES[config.loss]).batches())
    samples = choose_samples([image.sample() for image in islice(images, PICTURED_SAMPLES)])
    best = best_epoch(run.results)
    assert best is not None, "a run that is done has an epoch"
    return (
        plot_curves(run.results, folder.plots / "training_curves.png", loss=run.config.loss),
        plot_metrics(run.results, folder.plots / "metrics_evolution.png"),
        plot_confusion(best.val_counts, folder.plots / "confusion_matrix.png"),
        plot_samples(samples, folder.plots / "sample_predictions.png"),
    )
