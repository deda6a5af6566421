"""A training step as work to be measured: the real one, on random data."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bench.config import Setup
from bench.timing import Work
from train.config import TrainConfig
from train.memory import keep_freed_memory
from train.step import TrainStep, make_train_step, prepare_network

LEARNING_RATE = 1e-5
"""Small: what is learnt does not matter, but it must not blow up."""


def build_step(training: TrainConfig) -> TrainStep:
    """The training step of a run, in a process set up as a run sets it up."""
    if training.device == "cpu":
        keep_freed_memory()
    network = prepare_network(training.network, channels_last=training.channels_last, device=training.device)
    return make_train_step(training, network, compile="inductor" if training.compile else None)


def plain(training: TrainConfig) -> TrainConfig:
    """The same network as most programs run it: fp32, NCHW, eager."""
    return dataclasses.replace(training, precision="fp32", channels_last=False, compile=False)


def describe(training: TrainConfig) -> str:
    """How a step computes, in words, as rows give it."""
    layout = "channels_last" if training.channels_last else "NCHW"
    return f"{training.precision} {layout} {'compiled' if training.compile else 'eager'}"


def random_batch(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """An image batch `(N, 3, S, S)` in channels_last strides, and two planes `(N, 1, S, S)`, as a loader gives them."""
    generator, side, count = torch.Generator().manual_seed(0), setup.side, setup.batch_size

    def draw(below: int, *shape: int) -> Tensor:
        return torch.randint(0, below, shape, dtype=torch.uint8, generator=generator).to(setup.device)

    planes = draw(2, count, 1, side, side), draw(2, count, 1, side, side)
    return draw(256, count, side, side, 3).permute(0, 3, 1, 2), *planes


def learn(step: TrainStep, batch: tuple[Tensor, Tensor, Tensor]) -> Work:
    """A step on the same batch again and again; an item is an image."""
    return Work(run=lambda: step(*batch, LEARNING_RATE), items=len(batch[0]))
