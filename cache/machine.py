"""What a process may use: processors and memory, those of the machine or less in a container, and compilers.

Limits are those of the cgroups: https://docs.kernel.org/admin-guide/cgroup-v2.html and, of version 1, `cgroup-v1`.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from cache.messages import message, said

ROOT = Path("/")  # where `proc` and `sys` are
PARENT = os.getppid()  # which has started this process, known early: when it ends, `os.getppid` gives another

_LACKS = re.compile(
    "out of memory|ALLOC(ATION)?_FAILED|ALLOCATOR_FAILURE"  # CUDA, torch, NCCL; cuBLAS and cuDNN; nvJPEG
    "|[Uu]nable to find (an engine|a valid cuDNN algorithm)"  # torch, where cuDNN gets no workspace
    "|CUDA allocation failed|[Cc]an't allocate|bad_alloc"  # DALI; torch on a CPU
)


def processors() -> int:
    """Processors that this process may use: those of its affinity, and no more than its quota, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        quota = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        with suppress(ValueError):  # there is no such file, or "max" for no quota; in version 1 that is -1
            microseconds, period = map(int, quota)
            count = min(count, -(-microseconds // period)) if microseconds > 0 else count
    return count


def memory() -> tuple[int, int]:
    """Bytes of memory that this process may use at most, and what of it is free or only holds copies of files."""
    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for group in _groups("memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        if limit and limit[0] != "max":
            used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
            words = _words(group / "memory.stat")
            stat = dict(zip(words[::2], words[1::2], strict=False))
            # Version 1 gives sums with the groups below as "total_".
            files = [stat.get(f"total_{name}", stat.get(name, "0")) for name in ("active_file", "inactive_file")]
            total = min(total, int(limit[0]))
            free = min(free, int(limit[0]) - sum(map(int, used)) + sum(map(int, files)))
    return total, max(free, 0)


def out_of_memory(error: BaseException) -> str:
    """The line in which an error of a library says that it got no memory, of a GPU or of the machine; else nothing.

    Torch has a class for that, `OutOfMemoryError`, which cuBLAS, cuDNN, the CUDA runtime and DALI do not use.
    """
    lines = str(error).splitlines() or [type(error).__name__]
    found = [line for line in lines if _LACKS.search(line)] or lines * isinstance(error, MemoryError)
    return found[0][:120] if found else ""


def compile_obstacle(device: str) -> str | None:
    """What `torch.compile` lacks on this machine, with the remedy, or None.

    For a GPU, Triton builds a module in C that launches its kernels; for the CPU, Inductor builds modules in C++.
    """
    if device != "cpu" and find_spec("triton") is None:
        return message("there is no Triton (pip install triton)")
    variable, language, package = ("CXX", "c++", "g++") if device == "cpu" else ("CC", "c", "gcc")
    usual = package if device == "cpu" or shutil.which(package) else "clang"
    headers = sysconfig.get_path("include", "posix_prefix")
    command = [os.environ.get(variable, usual), "-fsyntax-only", f"-I{headers}", "-x", language, "-"]
    try:
        subprocess.run(command, input="#include <Python.h>\n", capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = said(error) if isinstance(error, OSError) else error.stderr.partition("\n")[0]
        values = {"reason": reason, "package": package, "variable": variable}
        return message(
            "no compiler for Python.h: {reason} (install {package} and python3-dev, or set {variable})", **values
        )
    return None


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


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups, and of all above them: in a container, what is mounted may be one of these."""
    for line in filter(None, _words(ROOT / "proc/self/cgroup", "\n")):
        names, _, path = line.partition(":")[2].partition(":")
        if not names or controller in names.split(","):
            for mount in {controller, names} if names else ("", "unified"):  # version 2 has no names
                inner = Path(path.lstrip("/"))
                yield from (ROOT / "sys/fs/cgroup" / mount / each for each in (inner, *inner.parents))


def _words(path: Path, separator: str | None = None) -> list[str]:
    with suppress(OSError):
        return path.read_text().strip().split(separator)
    return []
