"""Ctrl-C in a terminal reaches all its processes; of a cluster on the same machine, only the client may react."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin


class IgnoreInterrupt(WorkerPlugin):
    """Makes each process of a local cluster ignore Ctrl-C, including those that replace a lost one."""

    name = "ignore-interrupt"

    def setup(self, worker: Worker) -> None:
        """Called in the worker's process, in its main thread."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
