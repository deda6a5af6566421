"""Loaders and training steps as work to be measured; peak memory; programs that run in a process of their own."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from bench.config import Setup
from bench.timing import Work
from cache.choices import Backend, Level
from cache.messages import message
from loader.augment import AugmentConfig
from loader.batch import Batch, LoaderConfig
from loader.loader import Loader
from train.config import TrainConfig
from train.process import keep_freed_memory
from train.step import TrainStep, prepare_network

PULLED_SAMPLES = 256
"""Samples in one call of `pull`, about."""

LEARNING_RATE = 1e-5
"""Small, so that training on random data does not diverge."""

# VmHWM, as ru_maxrss begins with the memory of the process that started this one. Only Linux has it.
PEAK_MEMORY = """
def peak_memory():
    from pathlib import Path
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(lines.get("VmHWM", "0").split()[0]) * 1024
"""
"""Defines `peak_memory`: the most bytes that the process ever had in memory, 0 where the system does not tell."""

# Nothing is ever written to standard input: reading returns when the process that holds the pipe's other end has ended.
_END_WITH_PARENT = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""


def loader_config(setup: Setup, cache: Path, backend: Backend, level: Level | AugmentConfig) -> LoaderConfig:
    """The loader of a training run."""
    return dataclasses.replace(setup.training.loader, cache=cache, backend=backend, augment=level)


def pull(loader: Loader) -> Work:
    """Take batches and throw them away: `PULLED_SAMPLES` per call, each continuing where the last one ended.

    A run begins and ends in the middle of an epoch, with the same number of batches prefetched. An item is a sample.
    """
    count = max(1, PULLED_SAMPLES // loader.config.batch_size)
    batches: Iterator[Batch] = iter(())

    def prepare() -> None:
        nonlocal batches
        batches = endless(loader)
        skip(batches, loader.config.prefetch + 1)  # else the first ones would be ready before the clock starts

    return Work(run=lambda: skip(batches, count), items=count * loader.config.batch_size, prepare=prepare)


def endless(loader: Loader) -> Generator[Batch]:
    """The batches of one epoch after another."""
    while True:
        yield from loader


def skip(batches: Iterator[Batch], number: int) -> None:
    """Take so many batches and throw them away."""
    for _ in islice(batches, number):
        pass


def build_step(training: TrainConfig) -> TrainStep:
    """The training step of a run, in a process set up as a run sets it up."""
    if training.device == "cpu":
        keep_freed_memory()
    network = prepare_network(training)
    small = dataclasses.replace(training, learning_rate=LEARNING_RATE)
    return TrainStep(small, network, compile="inductor" if training.compile else None)


def describe(training: TrainConfig) -> str:
    """Precision, layout and mode of a step in words."""
    layout = "channels_last" if training.channels_last else "NCHW"
    mode = message("compiled") if training.compile else message("eager")
    return message("{precision} {layout} {mode}", precision=training.precision, layout=layout, mode=mode)


def random_batch(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """Images `(N, 3, S, S)` in channels_last strides, and two planes `(N, 1, S, S)`, uint8, as a loader gives them."""
    generator, side, count = torch.Generator().manual_seed(0), setup.side, setup.batch_size

    def draw(below: int, *shape: int) -> Tensor:
        return torch.randint(0, below, shape, dtype=torch.uint8, generator=generator).to(setup.device)

    planes = draw(2, count, 1, side, side), draw(2, count, 1, side, side)
    return draw(256, count, side, side, 3).permute(0, 3, 1, 2), *planes


def learn(step: TrainStep, batch: tuple[Tensor, Tensor, Tensor]) -> Work:
    """A step on the same batch again and again; an item is an image."""
    return Work(run=lambda: step(*batch, LEARNING_RATE), items=len(batch[0]))


def free_memory(device: str) -> None:
    """Give back what is no longer used, of a GPU, or of this process."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    else:  # only glibc can, see malloc_trim(3); Windows raises TypeError
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """The peak memory since it was made: of a GPU, or of this process as seen by `look`.

    A process that trains keeps what it frees (see `train.process`), so looking between two steps misses nothing.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._process, self._most = psutil.Process(), 0
        free_memory(device)  # it would count
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def look(self) -> None:
        """Take in the memory that the process has now, without the pages of files that it maps."""
        if not self._on_gpu:
            memory = self._process.memory_info()
            self._most = max(self._most, memory.rss - getattr(memory, "shared", 0))

    def found(self) -> dict[str, int]:
        """Bytes at the peak, by what they are, as notes give it."""
        if self._on_gpu:
            return {
                message("of tensors on the GPU"): torch.cuda.max_memory_allocated(),
                message("held by torch on the GPU"): torch.cuda.max_memory_reserved(),
            }
        return {message("of the process, not of files"): self._most}


@contextmanager
def start_program(
    program: str, *arguments: Path | str | int, variables: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a Python program in a process of its own, whose standard output is a pipe; it is killed with the block.

    It finds modules as this process does, and ends with this process, even if that is killed. `variables` are added to
    its environment; `options` are those of `subprocess.Popen`.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(variables or {})}
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb"), os.fdopen(ours, "rb") as standard_input:
        command = [sys.executable, "-c", _END_WITH_PARENT + program, *map(str, arguments)]
        options |= {"env": environment, "stdin": standard_input, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **options) as process:
            try:
                yield process
            finally:
                process.kill()


def run_program(program: str, *arguments: Path | int) -> list[float]:
    """Run a Python program, see `start_program`, and give the numbers in the last line that it prints."""
    with start_program(program, *arguments) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, program)
    return [float(number) for number in output.splitlines()[-1].split()]
