"""Torch's switches that decide whether a run gives the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kernels(*, deterministic: bool) -> Iterator[None]:
    """Within the block, take kernels that give the same bits each time, or those that cuDNN finds the fastest.

    The switches are torch's own, for the whole process; afterwards they are as they were.

    See https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    deterministic = deterministic or before[0]  # who has asked for it already is not contradicted
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic  # shapes never change, so looking for the fastest pays
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
