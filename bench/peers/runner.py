"""Measures a group of entries in rounds: all are opened, then each measures a window in turn.

A slow moment of the machine then affects all of them. An entry is a process of its own (`bench.peers.child`), which
waits to be asked, with whatever it has prefetched.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bench.config import Setup
from bench.peers.child import Epoch, Window
from bench.peers.prepare import Datasets, PeerError, find_python, foreign_variables
from bench.peers.task import OWN, Entry, Task
from bench.timing import Rates
from cache.messages import message

T = TypeVar("T")

MOST_ROUNDS = 7  # most windows of each entry: a whole run is to take minutes, not an hour

READY_SECONDS, ANSWER_SECONDS, WRITE_SECONDS = 300.0, 120.0, 1200.0
"""Limits for opening and one epoch, for an answer beyond its window, and for writing a dataset."""

CLOSING_SECONDS = 10.0  # time for a process to end by itself; then it is killed, with all that it started

_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How the last line of a traceback begins; more may follow it."""

_MODULE = re.compile(r"^(\w+\.)+(?=\w+:)")  # module of an exception's class

_LAUNCH = Path(__file__).with_name("launch.py")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Score:
    """What an entry achieved: the epoch that was compared, and a window for each round."""

    entry: Entry
    epoch: Epoch
    windows: list[Window]

    @property
    def rates(self) -> Rates:
        """Samples per second."""
        return Rates(tuple(window.samples / window.seconds for window in self.windows))


@dataclasses.dataclass(frozen=True)
class Result:
    """What measuring a group gave."""

    scores: Mapping[str, Score]  # by the entries' names, in the group's order
    absent: Mapping[str, str]  # why the other entries have none


class Worker:
    """The process of an entry, which is idle until it is asked. The caller closes it.

    The methods raise a `PeerError` if the process has failed, or takes longer than `seconds`.
    """

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
        assert self._process.stdin
        assert self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout

    def wait_ready(self, seconds: float) -> Epoch:
        """Wait until its first epoch is over."""
        return Epoch(**self._answer(seconds))

    def measure(self, window: float, seconds: float) -> Window:
        """Measure for `window` seconds."""
        with suppress(OSError):  # it has ended: there will be no answer
            print(window, file=self._input, flush=True)
        return Window(**self._answer(seconds))

    def wait_end(self, seconds: float) -> None:
        """Wait until it has done its work and ended."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PeerError("was not done after {seconds:.0f} s", seconds=seconds) from None
        if status:
            raise PeerError(self._last_error())

    def close(self) -> None:
        """Let it end, or end it. May be called again."""
        if self._errors.closed:
            return
        with suppress(OSError):  # what was written did not arrive: it had ended
            self._input.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSING_SECONDS)
        with suppress(OSError):  # also when it has ended: those that it started may not have
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._errors.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        """Its next line. A process that fails is closed, so that it does not disturb the others."""
        # It writes a line for each that it is asked for, so the buffer holds nothing of an earlier answer.
        if not select.select([self._output], [], [], seconds)[0]:
            reason = message("did not answer within {seconds:.0f} s", seconds=seconds)
        elif not (line := self._output.readline()):
            reason = self._last_error()
        else:
            with suppress(json.JSONDecodeError):
                found: dict[str, Any] = json.loads(line)
                return found
            reason = message("answered {line!r}, which is no JSON", line=line.strip()[:80])
        self.close()
        raise PeerError(reason)

    def _last_error(self) -> str:
        """The last line of its errors, or the last that begins as an exception does."""
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return message("closed its output, but did not end")
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return message("ended with status {status}, without a word", status=self._process.returncode)
        return _MODULE.sub("", next(filter(_EXCEPTION.match, reversed(lines)), lines[-1]))


class Runner:
    """Measures groups of entries. What could not be prepared once is not tried again.

    `environments` is the folder of the libraries' environments.
    """

    def __init__(self, setup: Setup, datasets: Datasets, environments: Path) -> None:
        self._setup, self._datasets, self._environments = setup, datasets, environments
        self._failed: dict[str, str] = {}

    def prepare(self, entries: Sequence[Entry]) -> None:
        """Set up environments and write datasets beforehand: `run` gives the reasons of what fails here."""
        for entry in entries:
            with suppress(PeerError):
                self._prepare(entry)

    def run(self, group: str, entries: Sequence[Entry]) -> Result:
        """Measure a group. An entry that fails is left out, with the reason."""
        window, rounds = self._setup.seconds / 2, min(MOST_ROUNDS, self._setup.rounds)
        scores: dict[str, Score] = {}
        absent: dict[str, str] = {}
        workers: dict[str, Worker] = {}
        with ExitStack() as stack:
            for entry in entries:
                _log.info(message("{group}: opening {name}", group=group, name=entry.name))
                try:
                    self._prepare(entry)
                    worker = workers[entry.name] = stack.enter_context(closing(self._start(entry, "measure")))
                    scores[entry.name] = Score(entry, worker.wait_ready(READY_SECONDS), [])
                except PeerError as error:
                    absent[entry.name] = str(error)
            for number in range(1, rounds + 1):
                _log.info(message("{group}: round {number} of {rounds}", group=group, number=number, rounds=rounds))
                for name, score in list(scores.items()):
                    try:
                        score.windows.append(workers[name].measure(window, ANSWER_SECONDS))
                    except PeerError as error:
                        absent[name] = str(error)
                        del scores[name]
        for name, reason in absent.items():
            _log.warning(message("{name} is left out: {reason}", name=name, reason=reason))
        return Result(scores, absent)

    def _prepare(self, entry: Entry) -> None:
        """See that the entry's Python and its own dataset are there."""
        self._python(entry)
        if entry.dataset:
            self._once(entry.dataset, lambda: self._datasets.make(entry.dataset, partial(self._write, entry)))

    def _write(self, entry: Entry, folder: Path) -> None:
        _log.info(message("writing the dataset {name}", name=entry.dataset))
        try:
            with closing(self._start(entry, "write", str(folder))) as worker:
                worker.wait_end(WRITE_SECONDS)
        except PeerError as error:
            raise PeerError("its dataset could not be written: {error}", error=error) from None

    def _python(self, entry: Entry) -> Path:
        name = entry.environment
        return self._once(f"environment:{name}", lambda: find_python(self._environments, name))

    def _once(self, name: str, prepare: Callable[[], T]) -> T:
        if name not in self._failed:
            try:
                return prepare()
            except PeerError as error:
                self._failed[name] = str(error)
        raise PeerError(self._failed[name])

    def _start(self, entry: Entry, command: str, *arguments: str) -> Worker:
        variables = foreign_variables()
        if entry.environment == OWN:
            variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        task = Task(
            **vars(entry),
            data=str(self._datasets.folder.resolve()),
            side=self._setup.side,
            batch_size=self._setup.batch_size,
            samples=self._datasets.samples,
            writers=self._setup.threads,
        )
        return Worker([str(self._python(entry)), str(_LAUNCH), command, json.dumps(vars(task)), *arguments], variables)
