"""How long a run will take, from the steps and epochs that were measured, and how much disk it needs."""

from __future__ import annotations

from typing import NamedTuple

from cache.files import free_bytes
from cache.messages import message
from model.base import SegmentationNetwork
from train.checkpoint import Progress
from train.config import TrainConfig
from train.process import kernels
from train.result import EpochResult
from train.run import Run, search_batch_size, try_step

VAL_SHARE = 0.3
"""Time to validate an image, relative to training on it, before an epoch has measured it: 0.2 to 0.4 on CPUs."""

SMALL_FILES = 4_000_000
"""Bytes of plots, metrics, settings and logs together."""


class Forecast(NamedTuple):
    """What is left of a run. It may end earlier where `patience` is set."""

    epochs: int  # that are not done, the one under way included
    left: float  # seconds to the end of the run
    epoch_left: float  # seconds to the end of the epoch under way, with its validation
    epoch: float  # seconds of a whole epoch with its validation
    images_per_s: float  # of training
    steps: int  # of the epoch under way from which the rate is; 0: it is that of the latest epoch
    measured: float  # seconds that these steps took


def forecast(run: Run) -> Forecast | None:
    """What is left of a run after the steps that were reported last; None before a step after the warm-up."""
    config, now, last = run.config, run.progress, run.results[-1] if run.results else None
    start = len(run.results) * len(run.train)
    # Steps of this epoch that an earlier process has done do not count: that may have been another machine.
    begun = run.begun if run.begun.step > start else Progress(step=start)
    measured = now.seconds - begun.seconds
    steps = now.step - begun.step - (now.warmup_steps - begun.warmup_steps)
    if steps > 0 and measured > 0:
        rate = config.images_per_step * steps / measured
    elif last:
        rate, steps, measured = last.images_per_s, 0, 0.0
    else:
        return None
    images, epochs = config.images_per_step * len(run.train), config.epochs - len(run.results)
    epoch = epoch_seconds(rate, images, len(run.val.reader), last)
    epoch_left = epoch - config.images_per_step * (now.step - start) / rate
    return Forecast(epochs, epoch_left + (epochs - 1) * epoch, epoch_left, epoch, rate, steps, measured)


def epoch_seconds(rate: float, train: int, val: int, last: EpochResult | None) -> float:
    """Seconds of an epoch of so many images; `last` is an epoch whose validation was measured."""
    return (train + (last.val_seconds * last.images_per_s if last else VAL_SHARE * val)) / rate


def run_bytes(config: TrainConfig, network: SegmentationNetwork) -> int:
    """Bytes of a run's folder at their peak, while the last checkpoint is replaced."""
    weights: int = sum(tensor.nbytes for tensor in network.state_dict().values())
    moments = 2 if config.optimizer != "sgd" else int(config.momentum > 0)
    last = weights * (2 if config.average else 1) + moments * sum(tensor.nbytes for tensor in network.parameters())
    return 2 * last + 2 * weights + SMALL_FILES


def space_notes(run: Run) -> tuple[str, ...]:
    """A line that says that the disk lacks space, if it does."""
    folder = run.folder.root
    there = sum(path.stat().st_size for path in folder.rglob("*.pth"))
    need, free = run_bytes(run.config, run.step.network) - there, free_bytes(folder)
    note = message(
        "{out} has room for {free:,.0f} MB, and the run needs about {need:,.0f} MB; free some space, or choose another "
        "--out",
        out=folder,
        free=free / 1e6,
        need=need / 1e6,
    )
    return (note,) if need > free else ()


def measure_rate(config: TrainConfig, side: int) -> float:
    """Images per second of training at a side, in pixels, by a few eager steps; for errors see `search_batch_size`."""
    if config.device == "cuda":
        config, _ = search_batch_size(config, side)
    with kernels(config):
        return config.loader.batch_size / try_step(config, side, steps=5)
