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
from train.checkpoint import load_network
from train.config import TrainConfig
from train.hardware import HardwareError, read_hardware
from train.predictor import Predictor, choose_device, choose_precision

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
    hardware = read_hardware()
    device = choose_device(config.device, hardware)
    network, values = load_network(config.model, device=device)
    trained = TrainConfig.from_dict(values)
    if not trained.channels_last:
        network.set_memory_format(torch.contiguous_format)
    trained_side = int(values["side"])
    side = trained_side if config.side is None else config.side
    check_side(network, side)
    precision, notes = choose_precision(config.precision, trained, device, hardware)
    if side != trained_side:
        notes += (f"the network was trained at side {trained_side} and sees side {side} here",)
    batch_size = config.batch_size or trained.batch_size
    pipeline = Pipeline(
        Worker(config, plan.background, side),
        Predictor(network, precision, device),
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
        device=device,
        precision=precision,
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
