"""The process of one entry: it opens the loader, compares an epoch with the samples, and measures when asked.

    launch.py write TASK FOLDER    writes the dataset; the exit status is 0 if that worked
    launch.py measure TASK         pulls an epoch, comparing it with the samples, then writes the `Epoch` as JSON
    > 1.0                          and for each line with a number of seconds
    < {"samples": 20160, ...}      a `Window`

until its input ends. Whatever libraries print goes to standard error. If the process that asks is killed, this one's
process group is killed soon after: workers of some libraries would wait for ever.

TASK is a `Task` in JSON. What all processes of the entry use is read from Linux's `/proc`. This file runs in any
environment: it imports the standard library and NumPy only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pkgutil
import platform
import resource
import select
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.peers.task import U8, Samples, Task

Batch = tuple[Any, Any, Any]
"""Image, person, ignore: arrays or tensors of uint8, samples first."""

Feed = Callable[[], Iterable[Batch | int]]
"""Begins an epoch of batches; a limit, which has no batches to show, gives numbers of samples instead."""

LEAD_BATCHES = 8
"""Batches that are taken before the clock starts: more than any loader prefetches, so that none counts for free."""

COMPARED = 64
"""At least this many images of an epoch are compared pixel by pixel; the planes of all samples are."""

CLOSE, CLOSE_IMAGE = 3.0, 12.0
"""Grey levels on average by which images that are only to be close may differ, all together and each: JPEG with colours
of half the resolution differs by about two, and by four where clothes are bright."""

CLOSING_SECONDS = 20.0
"""Time from the end of the input until the process group is killed; `bench.peers.runner` itself waits for less."""

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


class ContentError(ValueError):
    """A batch is not what it should be."""


@dataclasses.dataclass
class Epoch:
    """How an epoch compares with the samples."""

    samples: int = 0  # that came
    missing: int = 0  # records that did not come, where planes are unchanged
    extra: int = 0  # samples that came once too often, where planes are unchanged
    mean: float = 0.0  # grey levels by which the compared images differ from the samples
    largest: int = 0  # the largest such difference
    found: dict[str, str] = dataclasses.field(default_factory=dict)  # versions, and what the opener found out


@dataclasses.dataclass(frozen=True)
class Window:
    """The samples that came while the clock ran, and what all processes of the entry used for them."""

    samples: int
    seconds: float  # of the clock
    cpu: float  # seconds, user and system
    disk: int  # bytes that were not in the page cache
    memory: int  # the most bytes seen after this window and those before it


def main() -> None:
    """Do what the command line says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    if command == "write":
        resolve(task.writer)(task, Path(sys.argv[3]))
        return
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed goes to standard error
    with ExitStack() as stack:
        feed = resolve(task.opener)(task, stack)
        epoch = check_epoch(feed, task)
        epoch.found = {name: version(name) for name in task.packages} | task.found
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            epoch.found["Python"] = f"{platform.python_version()} (free-threaded)"
        print(json.dumps(vars(epoch)), file=out)
        pump = Pump(feed, LEAD_BATCHES if epoch.samples else 1)
        for line in sys.stdin:
            print(json.dumps(vars(pump.window(float(line)))), file=out)


def resolve(name: str) -> Callable[..., Any]:
    """The opener or writer that an entry names as `module:function`."""
    function: Callable[..., Any] = pkgutil.resolve_name(f"bench.peers.libraries.{name}")
    return function


def _end_with_parent() -> None:
    """Wait until nobody can write to standard input any more, without reading from it; then leave time to close."""
    input_end = select.poll()
    input_end.register(0, 0)  # a pipe's end is reported whatever is asked for
    input_end.poll()
    time.sleep(CLOSING_SECONDS)
    os.killpg(0, signal.SIGKILL)


def check_epoch(feed: Feed, task: Task) -> Epoch:
    """Compare an epoch with the samples, so that no library can skip work. Of a limit, nothing is compared.

    Raises `ContentError`: a batch, or the images on average, are not what they should be.
    """
    epoch, expected, found, means = Epoch(), Samples(task.folder, task.samples), Counter[int](), list[float]()
    checksums = expected.checksums()
    photo_of = {checksum: photo for photo, checksum in enumerate(checksums)}
    for batch in feed():
        if isinstance(batch, int):
            return epoch
        image, planes = _arrays(batch, task)
        for row in range(len(image)) if task.check != "shape" else ():
            checksum = zlib.crc32(np.packbits(planes[row], bitorder="little").tobytes())
            if checksum not in photo_of:
                raise ContentError(f"sample {epoch.samples + row} has planes that no record has")
            found[checksum] += 1
            if epoch.samples + row < COMPARED:
                off = _difference(image[row], expected, photo_of[checksum], task)
                means.append(float(off.mean()))
                epoch.largest = max(epoch.largest, int(off.max()))
        epoch.samples += len(image)
    if task.check != "shape":
        counts = Counter(checksums[record % expected.photos] for record in range(task.samples))
        epoch.missing, epoch.extra = (counts - found).total(), (found - counts).total()
    epoch.mean = float(np.mean(means)) if means else 0.0
    if epoch.mean > CLOSE:
        raise ContentError(f"images are off by {epoch.mean:.2f} grey levels on average; at most {CLOSE} is expected")
    return epoch


def _arrays(batch: Batch, task: Task) -> tuple[U8, U8]:
    """Images `(N, S, S, 3)` and planes `(N, 2, S, S)` of a batch, whatever the order of its axes."""
    image, person, ignore = (np.asarray(part) for part in batch)
    for array in (image, person, ignore):
        if array.dtype != np.uint8:
            raise ContentError(f"a batch has type {array.dtype}, not uint8")
    side = task.side
    if image.shape[1:] == (3, side, side):
        image = image.transpose(0, 2, 3, 1)
    shape = (task.batch_size, side, side)
    if image.shape != (*shape, 3) or any(plane.size != np.prod(shape) for plane in (person, ignore)):
        raise ContentError(f"a batch has shapes {image.shape}, {person.shape} and {ignore.shape}, not {shape}")
    planes = np.stack([person.reshape(shape), ignore.reshape(shape)], axis=1)
    if planes.max() > 1:
        raise ContentError(f"a plane has the value {planes.max()}, not 0 and 1")
    return image, planes


def _difference(image: U8, expected: Samples, photo: int, task: Task) -> npt.NDArray[np.int16]:
    """Grey levels by which each value of an image is off."""
    target = expected.decoded(photo) if task.codec == "jpeg" else expected.image(photo)
    off: npt.NDArray[np.int16] = np.abs(image.astype(np.int16) - target)
    if off.mean() > (CLOSE_IMAGE if task.check == "close" else 0):
        raise ContentError(f"an image is off by {off.mean():.2f} grey levels on average, {off.max()} at most")
    return off


class Pump:
    """Pulls a feed in windows; between them the feed rests in the middle of an epoch, with what it has prefetched.

    Where an epoch ends, the clock stops until the batches of the next one flow: epochs are short here, and what their
    ends cost would weigh sixteen times as much as with all of COCO. `lead` batches are taken before the clock starts.
    """

    def __init__(self, feed: Feed, lead: int = LEAD_BATCHES) -> None:
        self._feed, self._lead = feed, lead
        self._batches: Iterator[Batch | int] = iter(())
        self._memory = memory_bytes()

    def window(self, seconds: float) -> Window:
        """Take whole batches for at least this many seconds.

        Raises `ValueError`: an epoch has no batches beyond those before the clock starts.
        """
        samples, spent, cpu, disk = 0, 0.0, 0.0, 0
        while spent < seconds:
            fresh, before, workers = self._take_lead(), samples, descendants()
            cpu_begun, disk_begun = usage(workers)
            start = last = perf_counter()
            for batch in self._batches:
                samples += batch if isinstance(batch, int) else len(batch[0])
                last = perf_counter()
                if spent + last - start >= seconds:
                    break
            cpu_ended, disk_ended = usage(workers)
            spent, cpu, disk = spent + last - start, cpu + cpu_ended - cpu_begun, disk + max(0, disk_ended - disk_begun)
            if fresh and samples == before:
                raise ValueError(f"an epoch has no more than {self._lead} batches; use more samples")
        self._memory = max(self._memory, memory_bytes())
        return Window(samples, spent, cpu, disk, self._memory)

    def _take_lead(self) -> bool:
        """Take batches until they flow; returns whether that began an epoch."""
        if sum(1 for _ in islice(self._batches, self._lead)) == self._lead:
            return False
        # Through a generator, which may be asked again when it has ended: FFCV's iterator then waits for ever.
        self._batches = (batch for batch in self._feed())
        for _ in islice(self._batches, self._lead):
            pass
        return True


def usage(processes: list[int]) -> tuple[float, int]:
    """What this process, its descendants `processes`, and all whose end was waited for have used since they began.

    Returns:
        User and system seconds (those of living descendants to a hundredth of a second), and bytes read that were not
        in the page cache (0 where a system does not tell).
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(int(field) for process in processes for field in _stat(process)[11:15])
    disk = sum(int(_fields(process, "io").get("read_bytes", "0")) for process in (os.getpid(), *processes))
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / _TICK, disk


def descendants() -> list[int]:
    """The living processes that this one started, and those that they started."""
    numbers = [int(folder.name) for folder in _PROC.glob("[0-9]*")]
    parents = {number: int(fields[1]) for number in numbers if (fields := _stat(number))}
    found, wave = list[int](), [os.getpid()]
    while wave:
        wave = [process for process, parent in parents.items() if parent in wave]
        found += wave
    return found


def memory_bytes() -> int:
    """What this process and its descendants hold in memory of their own; 0 where a system does not tell.

    The proportional set size of anonymous and of shared memory: a page that several processes share is divided among
    them, and so counts once. Pages of files belong to the page cache, which may drop them: they are left out.
    """
    total = 0
    for process in [os.getpid(), *descendants()]:
        fields = _fields(process, "smaps_rollup")
        total += sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem") if name in fields) * 1024
    return total


def _fields(process: int, name: str) -> dict[str, str]:
    """The lines `name: value` of a file about a process; empty if it has ended, or there is no such file."""
    lines = (line.partition(":") for line in _read(process, name).splitlines())
    return {key: value.strip() for key, _, value in lines}


def _stat(process: int) -> list[str]:
    """Fields of a process from its state on; empty if it has ended. The name before them may hold blanks."""
    return _read(process, "stat").rpartition(")")[2].split()


def _read(process: int, name: str) -> str:
    try:
        return (_PROC / str(process) / name).read_text()
    except OSError:
        return ""
