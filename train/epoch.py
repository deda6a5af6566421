"""One pass over the training images, and one over the validation images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.messages import UserError
from loader.loader import Loader
from model.metrics import BoundaryScores, Scores
from train.checkpoint import Progress
from train.config import TrainConfig
from train.optimizer import learning_rate, plateau_factor
from train.result import EpochResult, best_epoch
from train.run import Run

GPU_READ_STEPS = 50
"""Steps between two reads of a GPU: each read waits for all work that is queued. Reading from a CPU waits for none."""


class DivergedError(UserError):
    """The loss is no longer a number; the message names the step, the learning rate and the images."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a pass over the validation images gave.

    Attributes:
        loss: mean over the images.
        counts: pixels: true and false positives, false and true negatives.
        scores: of these.
        boundary_f: F-score of the boundary.
        seconds: it took.
        skipped: images left out because of a bad record.
    """

    loss: float
    counts: tuple[int, int, int, int]
    scores: Scores
    boundary_f: float
    seconds: float
    skipped: int


def rate_of(run: Run, step: int) -> float:
    """The learning rate of a step, counted over all epochs, in the epoch that follows the run's results."""
    config, peak = run.config, run.config.peak
    if config.scheduler == "plateau":
        peak *= plateau_factor([result.val_loss for result in run.results])
    steps = config.epochs * len(run.train)
    return learning_rate(step, steps=steps, peak=peak, warmup=config.warmup, scheduler=config.scheduler)


def train_epoch(run: Run, on_step: Callable[[int, int, float, float], None]) -> Progress:
    """Train to the end of the epoch that follows the run's results, or until asked to stop; give the progress.

    A checkpoint is only written, and a run only stopped, after an update: so no gradient has to be kept. Only the first
    rank saves in between.

    Args:
        run: stands where the epoch is to be begun or continued.
        on_step: see `Listener.on_step`.

    Raises:
        DivergedError: a loss is not finite.
    """
    config, step, loader, progress, stop = run.config, run.step, run.train, run.progress, run.stop
    epoch, total = len(run.results), len(loader)
    if loader.state_dict()["epoch"] > epoch:  # all of its batches were taken before the run was stopped
        return progress
    group = config.accumulation
    read_every = GPU_READ_STEPS if config.device == "cuda" else 1
    window: list[tuple[Tensor, float, npt.NDArray[np.int64]]] = []
    saved_at = asked = started = perf_counter()
    before, waited, skipped = progress.seconds, progress.waited, progress.skipped
    first = progress.step - epoch * total  # steps of this epoch that an earlier part of the run has done
    for done, batch in enumerate(loader, first + 1):
        waited += perf_counter() - asked
        skipped += len(batch.skipped)
        begins = (done - 1) // group * group
        last, number = done % group == 0 or done == total, epoch * total + done
        rate = rate_of(run, number - 1)
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
            if warming:  # the first step compiles, or looks for the fastest kernels: no part of the training's speed
                spent = progress.warmup + now - started
                progress = dataclasses.replace(progress, warmup=spent, warmup_steps=progress.warmup_steps + 1)
                started, waited = now, progress.waited
            progress = dataclasses.replace(
                progress,
                step=number,
                loss_sum=progress.loss_sum + math.fsum(losses),
                seconds=before + now - started,
                waited=waited,
                skipped=skipped,
            )
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
    """Of all ranks; without steps that warmed up, unless there are no others."""
    images = config.images_per_step
    if done > progress.warmup_steps:
        return images * (done - progress.warmup_steps) / progress.seconds
    return images * done / progress.warmup


def _read_losses(
    window: list[tuple[Tensor, float, npt.NDArray[np.int64]]], epoch: int, done: int, loader: Loader
) -> list[float]:
    """Read the losses of the latest steps of an epoch, `done` so far; on a GPU this waits for them."""
    losses: list[float] = torch.stack([loss for loss, _, _ in window]).tolist()
    for number, (loss, (_, rate, samples)) in enumerate(zip(losses, window, strict=True), done - len(window) + 1):
        if not math.isfinite(loss):
            images = loader.reader.samples["image_id"][samples].tolist()
            raise DivergedError(
                "the loss is {loss} in epoch {epoch}, step {number} of {loader_count}, at a learning rate of "
                "{rate:.2e}, on the images {images}; start anew with a lower --learning-rate or with --precision "
                "fp32, or look at these images",
                loss=loss,
                epoch=epoch + 1,
                number=number,
                loader_count=len(loader),
                rate=rate,
                images=", ".join(map(str, images)),
            )
    return losses


def validate(run: Run) -> Validation | None:
    """Pass over all validation images, each rank over its own, or give None when asked to stop."""
    evaluate, ranks, stop = run.evaluate, run.ranks, run.stop
    started = perf_counter()
    skipped = 0
    ranks.share(evaluate.network.buffers())  # BatchNorm's statistics: each rank has those of its own images
    evaluate.reset()
    for batch in run.val:
        if stop.agreed:
            return None
        evaluate(batch.image, batch.person, batch.ignore, batch.valid - len(batch.skipped))
        skipped += len(batch.skipped)
    if stop.agree():
        return None
    numbers_2 = torch.tensor([evaluate.images, skipped], device=evaluate.counts_4.device)
    ranks.sum(evaluate.counts_4, evaluate.boundary_4, evaluate.loss_sum, numbers_2)
    images, skipped = numbers_2.tolist()
    tp, fp, fn, tn = evaluate.counts_4.tolist()
    return Validation(
        loss=float(evaluate.loss_sum) / images,
        counts=(tp, fp, fn, tn),
        scores=Scores.from_counts(tp, fp, fn, tn),
        boundary_f=BoundaryScores.from_counts(*evaluate.boundary_4.tolist()).f,
        seconds=perf_counter() - started,
        skipped=skipped,
    )


def summarise(run: Run, validation: Validation) -> EpochResult:
    """The result of the epoch that is just done, over all ranks but for the times, which are this rank's."""
    progress, steps = run.progress, len(run.train)
    counts_4 = run.step.counts_4.clone()
    sums_2 = torch.tensor([progress.loss_sum, progress.skipped], dtype=torch.float64, device=counts_4.device)
    run.ranks.sum(counts_4, sums_2)
    counts: list[int] = counts_4.tolist()
    loss_sum, skipped = sums_2.tolist()
    best = best_epoch(run.results)
    return EpochResult(
        epoch=len(run.results) + 1,
        epochs=run.config.epochs,
        train_loss=loss_sum / steps / run.ranks.world,
        train_accuracy=Scores.from_counts(*counts).accuracy,
        val_loss=validation.loss,
        val=validation.scores,
        val_counts=validation.counts,
        boundary_f=validation.boundary_f,
        learning_rate=rate_of(run, progress.step - 1),
        train_seconds=progress.seconds,
        warmup_seconds=progress.warmup,
        val_seconds=validation.seconds,
        images_per_s=_images_per_s(run.config, steps, progress),
        wait_share=progress.waited / progress.seconds if progress.seconds else 0.0,
        best=best is None or validation.scores.iou > best.val.iou,
        skipped=int(skipped) + validation.skipped,
    )
