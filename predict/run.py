"""Photos in, results out."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from model.base import check_side
from predict.config import PredictConfig
from predict.photo import quiet_pillow
from predict.pipeline import Pipeline
from predict.plan import Plan
from predict.result import PhotoResult, PredictReport
from predict.worker import Worker
from train.hardware import HardwareError
from train.predictor import load_predictor

Advance = Callable[[int, int], None]
"""Called with (photos done, photos to do)."""


def predict(config: PredictConfig, plan: Plan, advance: Advance | None = None) -> PredictReport:
    """Do what was planned. A photo that cannot be read is left out, and told with its reason.

    Raises:
        CheckpointError: see `load_network`.
        HardwareError: the device or the precision that was asked for is not to be had, or its memory is too small.
        PredictError: a result cannot be written.
        ValueError: the network cannot take the side.
    """
    trained = load_predictor(config.model, config.device, config.precision)
    side = trained.side if config.side is None else config.side
    notes = trained.notes
    check_side(trained.predictor.network, side)
    if side != trained.side:
        notes += (f"the network was trained at side {trained.side} and sees side {side} here",)
    batch_size = config.batch_size or trained.config.batch_size
    pipeline = Pipeline(
        Worker(config, plan.background, side),
        trained.predictor,
        batch_size=batch_size,
        threads=config.threads,
    )
    started = perf_counter()
    try:
        made = _collect(pipeline, plan, advance)
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"the GPU's memory cannot hold batch_size={batch_size} at side {side}; "
            f"use --batch-size {max(1, batch_size // 2)}"
        ) from error
    return PredictReport(
        model=config.model,
        out=config.out,
        kind=config.kind,
        device=trained.predictor.device,
        precision=trained.precision,
        side=side,
        batch_size=batch_size,
        threads=pipeline.threads,
        notes=notes,
        photos=made,
        seconds=perf_counter() - started,
    )


def _collect(pipeline: Pipeline, plan: Plan, advance: Advance | None) -> tuple[PhotoResult, ...]:
    """All results in the order of the jobs, those that are there already among them."""
    wanted = [job for job in plan.jobs if not job.skip]
    made = list[PhotoResult]()
    with quiet_pillow():
        for result in pipeline.run(wanted):
            made.append(result)
            if advance:
                advance(len(made), len(wanted))
    results = iter(made)
    return tuple(
        PhotoResult(input=job.name, output=str(job.output), status="skipped") if job.skip else next(results)
        for job in plan.jobs
    )
