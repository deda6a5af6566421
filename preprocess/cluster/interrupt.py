"""Ctrl-C in a terminal reaches all its processes; with workers on the same machine only the client is to act on it."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin


class IgnoreInterrupt(WorkerPlugin):
    """Makes each process of a local cluster ignore it, those that take the place of a lost one included."""

    name = "ignore-interrupt"

    def setup(self, worker: Worker) -> None:
        """Called in the worker's process, in its main thread."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
