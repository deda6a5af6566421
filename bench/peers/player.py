"""Our side of the protocol: a contestant's process, asked for one window at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How the last line of a traceback begins; more may follow it."""

_MODULE = re.compile(r"^(\w+\.)+(?=\w+:)")
"""Where the class of an exception is from."""

CLOSING_SECONDS = 10.0
"""For ending by itself; then it is killed, with all that it started."""


class PeerError(Exception):
    """A contestant cannot take part, or no longer: the text says why, in a line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Introduction:
    """What a contestant says when it is ready: see `bench.peers.content.Epoch`."""

    library: str
    samples: int
    missing: int
    extra: int
    mean: float
    largest: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A window: see `bench.peers.feed.Window`; memory is the most bytes that were seen so far."""

    samples: int
    seconds: float
    cpu: float
    disk: int
    memory: int


class Player:
    """A process that waits to be asked. Idle in between, whatever it has made ahead."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, seconds: float) -> Introduction:
        """Wait until its first epoch is over.

        Raises:
            PeerError: it ended, or took longer.
        """
        return Introduction(**self._answer(seconds))

    def measure(self, window: float, seconds: float) -> Answer:
        """Measure so many seconds.

        Raises:
            PeerError: it ended, or took longer than `seconds` to answer.
        """
        assert self._process.stdin
        try:
            print(window, file=self._process.stdin, flush=True)
        except OSError:
            raise PeerError(self._last_words()) from None
        return Answer(**self._answer(seconds))

    def wait_end(self, seconds: float) -> None:
        """Wait until it has done its work and ended.

        Raises:
            PeerError: it failed, or took longer.
        """
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PeerError(f"was not done after {seconds:.0f} s") from None
        if status:
            raise PeerError(self._last_words())

    def close(self) -> None:
        """Let it end, or end it. May be called again."""
        if self._errors.closed:
            return
        if self._process.stdin:
            with suppress(OSError):  # what was written did not arrive: it had ended
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSING_SECONDS)
        with suppress(OSError):  # also when it has ended: those that it started may not have
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise PeerError(f"did not answer within {seconds:.0f} s") from None
        if not line:
            raise PeerError(self._last_words())
        try:
            found: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise PeerError(f"answered {line.strip()[:80]!r}, which is no JSON") from None
        return found

    def _last_words(self) -> str:
        """The last line of its errors: of a traceback, the one that tells."""
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its output, but did not end"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if _EXCEPTION.match(line)] or lines
        if not telling:
            return f"ended with status {self._process.returncode}, without a word"
        return _MODULE.sub("", telling[-1])
