"""What a run sets in its process: signal handlers, the kernels that torch uses, and the memory allocator."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch

from cache.choices import Precision
from cache.machine import PARENT
from train.config import TrainConfig
from train.ranks import ALONE, Ranks

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Set in processes that `torchrun` has started."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>


class StopRequest:
    """Whether a run should stop, agreed among its ranks.

    A rank is asked to stop by a signal, which sets the event `asked`, or by the end of the `torchrun` that started it,
    which may have been killed. The ranks communicate on `device`.
    """

    def __init__(self, asked: threading.Event, ranks: Ranks = ALONE, device: str = "cpu") -> None:
        self._asked, self._ranks, self._device = asked, ranks, device
        self._agreed = False
        self._launcher = PARENT if LAUNCHER_VARIABLE in os.environ else None

    @property
    def agreed(self) -> bool:
        """The latest agreement; of a single process, whether it is asked to stop now."""
        return self._asked_here() if self._ranks.world == 1 else self._agreed

    def agree(self) -> bool:
        """Agree to stop if any rank is asked to. All ranks must call this at the same point."""
        self._agreed = self._ranks.any(self._asked_here(), self._device)
        return self._agreed

    def _asked_here(self) -> bool:
        return self._asked.is_set() or self._launcher not in (None, os.getppid())


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets instead of ending the program.

    A second one acts as usual. A signal that is ignored stays ignored, as Ctrl-C in a program that a script started in
    the background. Outside the main thread, where Python handles no signals, the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # None stands for a handler that was not set from Python, which could not be put back.
    kept = (None, signal.SIG_IGN)
    before = {number: handler for number in STOP_SIGNALS if (handler := signal.getsignal(number)) not in kept}

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
def kernels(config: TrainConfig) -> Iterator[None]:
    """Within the block, use kernels that repeat bit for bit, or those that cuDNN finds to be the fastest.

    The configuration also decides on TF32. Afterwards torch's switches, which are of the whole process, are as before.
    See https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    deterministic = config.deterministic or before[0]  # the caller may have asked for it already
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic  # shapes never change, so the search pays
    try:
        with tf32(config.precision):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Within the block, or the function, a GPU rounds fp32 to TF32 where it multiplies only if that is the precision.

    By itself torch does so in convolutions. Of its two sets of switches these are the one that its compiler reads.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use this many threads of the CPU within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Make glibc's allocator keep freed memory instead of giving it back to the kernel.

    Each step on the CPU allocates and frees the same activations. By default large blocks are mapped anew, and the
    kernel zeroes their pages at first touch: a fifth of a step of a small network, measured. The process keeps its peak
    memory until it ends. See mallopt(3).
    """
    with suppress(OSError, AttributeError):  # another libc has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 27)):
            mallopt(ctypes.c_int(name), ctypes.c_int(value))
