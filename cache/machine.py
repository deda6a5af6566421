"""How many processors and how much memory this process may use: those of the machine, or less in a container.

A container's limits are those of its cgroups: https://docs.kernel.org/admin-guide/cgroup-v2.html, and of version 1
https://docs.kernel.org/admin-guide/cgroup-v1/index.html.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path("/")
"""Where `proc` and `sys` are."""


def processors() -> int:
    """Processors that this process may use: those of its affinity, and no more than its quota, rounded up."""
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count() or 1
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        quota = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        with suppress(ValueError):  # no such file, or no quota: "max"; in version 1 it is -1
            microseconds, period = map(int, quota)
            if microseconds > 0:
                count = min(count, -(-microseconds // period))
    return count


def memory() -> int:
    """Bytes of memory that this process may use at most."""
    total: int = psutil.virtual_memory().total
    return min([total, *(limit for _, limit in _memory_limits())])


def free_memory() -> int:
    """Bytes of memory that this process can still get: what is free, or is only a copy of files."""
    free: int = psutil.virtual_memory().available
    for group, limit in _memory_limits():
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        words = _words(group / "memory.stat")
        stat = dict(zip(words[::2], words[1::2], strict=False))
        # Version 1 counts the groups below apart, in "total_".
        files = [stat.get(f"total_{name}", stat.get(name, "0")) for name in ("active_file", "inactive_file")]
        free = min(free, limit - sum(map(int, used)) + sum(map(int, files)))
    return max(free, 0)


def settle() -> None:
    """Set environment variables for what libraries do not find in a container. Those that are set are kept.

    OpenMP, and torch with it, sees no quota of processors: call this before torch is loaded. A user whom `/etc/passwd`
    does not have has neither a name nor, without HOME, a home: libraries would make a folder that is called `~`.
    """
    if (count := processors()) < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(count))
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13
        os.environ["LOGNAME"] = f"uid-{os.geteuid()}"
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (of Path, it raises)
        os.environ["HOME"] = "/"  # as Docker does


def _memory_limits() -> Iterator[tuple[Path, int]]:
    for group in _groups("memory"):
        for limit in _words(group / "memory.max") or _words(group / "memory.limit_in_bytes"):
            if limit != "max":
                yield group, int(limit)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups that may limit something: its own, and all above it.

    Within a container the path may be that of the host, and what is mounted is the container's own group.
    """
    with suppress(OSError):
        for line in (ROOT / "proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names and controller not in names.split(","):
                continue
            for mount in {controller, names} if names else ("", "unified"):  # version 2 has no names
                place = ROOT / "sys/fs/cgroup" / mount
                inner = Path(path.lstrip("/"))
                yield from (place / each for each in (inner, *inner.parents))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
