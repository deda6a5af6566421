"""What a process and all that it started use, read from Linux's `/proc`. Runs in any environment."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


def usage(processes: list[int]) -> tuple[float, int]:
    """What this process, its descendants `processes`, and all whose end was waited for have used since they began.

    Returns:
        User and system seconds (those of living descendants to a hundredth of a second), and bytes read that were not
        in the page cache (0 where a system does not tell).
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, disk = time.process_time() + ended.ru_utime + ended.ru_stime, _disk(os.getpid())
    for process in processes:
        fields = _stat(process)
        cpu += sum(int(ticks) for ticks in fields[11:15]) / _TICK
        disk += _disk(process)
    return cpu, disk


def descendants() -> list[int]:
    """The living processes that this one started, and those that they started."""
    parents: dict[int, int] = {}
    for entry in _PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            parents[int(entry.name)] = int(fields[1])
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


def _disk(process: int) -> int:
    return int(_fields(process, "io").get("read_bytes", "0"))


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
