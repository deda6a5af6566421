"""The decorator of every compiled kernel: Numba's, with a cache on disk that never ends a run.

Numba keeps what it compiled beside the source or in the user's cache folder. Where neither can be written, as in a
shared installation, kernels are kept in a private folder of the system's temporary one; where that fails as well, they
are compiled in each run. Either way one line of the log says so, as it does when kernels are compiled at all.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import parent_process
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar, cast

import numba
from numba import njit
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

from cache.machine import settle
from cache.messages import message, system_reason

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

_config: Any = numba.config  # it makes its attributes of environment variables

REMEDY = message("set NUMBA_CACHE_DIR to a folder that can be written, to keep them there")


def kernel(function: Kernel, *, forceinline: bool = False) -> Kernel:
    """Compile a function at its first call, or load what an earlier run compiled. It releases the GIL."""
    compiled: Any = njit(nogil=True, error_model="numpy", forceinline=forceinline)(function)
    found = _find_cache(function)
    if found is not None:
        compiled._cache = found  # `njit(cache=True)` does so with Numba's class, and raises where it finds no folder
    return cast(Kernel, compiled)


class _Compiled:
    """The seconds that this process has compiled kernels, the first of which is told in the log."""

    def __init__(self) -> None:
        self.seconds = self._start = 0.0
        self._depth = 0

    def begin(self) -> None:
        if not self._depth:
            self._start = perf_counter()
            if not self.seconds and _is_first():
                logger.info(message("compiling kernels, once; later runs load them"))
        self._depth += 1

    def end(self) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += perf_counter() - self._start


compiled = _Compiled()


class _KernelCache(FunctionCache):
    """The compiled versions of a function, on disk. An error of the disk only means that it is compiled again.

    Kernels of other files are compiled into those that call them. Numba looks at a function's own file only, so the
    stamps of those files are added to its own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        index: Any = self._cache_file
        self.stamps = {function.__code__.co_filename: index._source_stamp}
        for value in function.__globals__.values():
            if isinstance(value, Dispatcher) and isinstance(found := cast(Any, value)._cache, _KernelCache):
                self.stamps |= found.stamps
        index._source_stamp = tuple(sorted(self.stamps.items()))

    # Numba calls this before it compiles a function, and the next one afterwards; one function at a time, within which
    # those that it calls are compiled.
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        with suppress(OSError):
            found = super().load_overload(sig, target_context)
        if found is None:
            compiled.begin()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        global _full
        compiled.end()
        try:
            if not _full:
                super().save_overload(sig, data)
        except OSError as error:
            # The index is written before what it names: it must not lead to what an older source was compiled to.
            with suppress(OSError):
                self.flush()
            folder = _temporary_folder()
            if folder and Path(self.cache_path).is_relative_to(folder):
                _full = True  # torch needs room there, too, and Python finds no folder where there is none
                for each in folder.iterdir():
                    shutil.rmtree(each, ignore_errors=True)
            values = {"folder": self.cache_path, "reason": system_reason(error), "remedy": REMEDY}
            _say(message("compiled kernels cannot be kept in {folder} ({reason}); {remedy}", **values))


def _find_cache(function: Callable[..., Any]) -> _KernelCache | None:
    """The cache of a function, in the first folder that can be written; None if there is none."""
    if "HOME" not in os.environ:
        settle()
    asked = _config.CACHE_DIR  # NUMBA_CACHE_DIR
    with suppress(RuntimeError):  # no folder can be written
        found = _KernelCache(function)
        if not asked or Path(found.cache_path).is_relative_to(asked):
            return found
    source = Path(function.__code__.co_filename).parent
    reason = message("neither {source} nor the user's cache folder can be written", source=source)
    if asked:
        reason = message("NUMBA_CACHE_DIR={folder} cannot be written", folder=asked)
    folder = _temporary_folder()
    if folder is not None:
        _config.CACHE_DIR = str(folder)
        try:
            found = _KernelCache(function)
        except RuntimeError:
            folder = None
        finally:
            _config.CACHE_DIR = asked
    if folder is None:
        _say(message("kernels are compiled again in each run, since {reason}; {remedy}", reason=reason, remedy=REMEDY))
        return None
    values = {"folder": folder, "reason": reason, "remedy": REMEDY}
    _say(message("compiled kernels are kept in {folder}, since {reason}; {remedy}", **values))
    return found


@cache
def _temporary_folder() -> Path | None:
    """A folder for compiled kernels that only this user can write, or None.

    Kernels are loaded from there as pickles, which run what they like: so nobody else may put one there.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"maskcache-kernels-{os.geteuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
    return folder if private else None


_said = _full = False  # whether a note was logged, and whether the temporary folder was too small for all kernels


def _say(note: str) -> None:
    """Log the first note of a run: of its processes, the one that started the others, and the first of torchrun's."""
    global _said
    if not _said and _is_first():
        logger.warning(note)
    _said = True


def _is_first() -> bool:
    return parent_process() is None and os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def compiling_elsewhere(call: str, *kernels: Any) -> Iterator[None]:
    """Within the block, call a function in another process, to compile kernels; wait for it at the end.

    Numba compiles one function at a time in a process, and every process finds what is kept on disk. Nothing is done if
    that has all of the kernels, or they cannot be kept.

    Args:
        call: the function without arguments, as `package.module.function`.
        kernels: those that it compiles.
    """
    caches = [kernel._cache for kernel in kernels]
    kept = [not isinstance(each, _KernelCache) or Path(each._cache_file._index_path).exists() for each in caches]
    if all(kept):
        yield
        return
    module, _, function = call.rpartition(".")
    child = subprocess.Popen(
        [sys.executable, "-c", f"from {module} import {function}; {function}()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what it cannot do is done, and told, in this process
    )
    try:
        yield
        child.wait()
    finally:
        child.kill()
        child.wait()
