"""What a run sets in its process: how it is stopped, which kernels torch takes, and what its allocator keeps."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from train.ranks import ALONE, Ranks

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Set in the processes that `torchrun` has started."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP = 1 << 30
_PAD = 1 << 27


class StopRequest:
    """Whether to stop, the same on all ranks.

    A rank is asked to by a signal, or by the end of the `torchrun` that started it: were that killed, nobody
    would stop the ranks.

    Args:
        asked: is set when this process is asked to.
        ranks: of the run.
        device: on which they speak to each other.
    """

    def __init__(self, asked: threading.Event, ranks: Ranks = ALONE, device: str = "cpu") -> None:
        self._asked, self._ranks, self._device = asked, ranks, device
        self._agreed = False
        self._launcher = os.getppid() if LAUNCHER_VARIABLE in os.environ else None

    @property
    def agreed(self) -> bool:
        """What was agreed on last. One process alone always agrees with itself."""
        return self._asked_here() if self._ranks.world == 1 else self._agreed

    def agree(self) -> bool:
        """Stop all ranks if one is asked to. All must call it, at the same place."""
        self._agreed = self._ranks.any(self._asked_here(), self._device)
        return self._agreed

    def _asked_here(self) -> bool:
        return self._asked.is_set() or self._launcher not in (None, os.getppid())


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets instead of ending the program at once.

    A second one acts as usual. One that is ignored, as Ctrl-C is in a program that a script started in the background,
    stays so. Outside the main thread, where Python takes no signals, the event just stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # None stands for a handler that was not set from Python: it could not be put back.
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use this many threads of the CPU within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed instead of giving it back to the kernel; returns whether it could.

    A step on the CPU allocates and frees the same activations over and over. By default each block of some size is
    mapped anew and its pages are zeroed by the kernel at first touch: a fifth of a step of a small network, measured.
    The process keeps its peak memory until it ends. See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    settings = ((_M_MMAP_THRESHOLD, _KEEP), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _PAD))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
