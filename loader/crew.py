"""Threads that do small jobs in the order in which they are given.

At tens of thousands of samples a second a batch takes half a millisecond. A job of `concurrent.futures` costs a tenth
of that in locks and conditions, most of it with the interpreter lock held; two queues cost a few microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Done = SimpleQueue[BaseException | None]
"""Receives what a job has raised, or None."""


class Crew:
    """Threads that wait for work."""

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], None], Done] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, job: Callable[[], None], done: Done) -> None:
        """Have a job done by the next free thread; `done` is told when it is."""
        self._jobs.put((job, done))

    def close(self, seconds: float | None = None) -> None:
        """Let jobs that were given be done, and end the threads. May be called again.

        Args:
            seconds: to wait for each thread; without it as long as it takes.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(seconds)
        self._threads.clear()


def _work(jobs: SimpleQueue[tuple[Callable[[], None], Done] | None]) -> None:
    # Not a method: a thread that held the crew would keep a forgotten loader, and its memory maps, alive.
    while (given := jobs.get()) is not None:
        job, done = given
        try:
            job()
        except BaseException as error:  # it is the caller's to raise
            done.put(error)
        else:
            done.put(None)
        del job, done, given
