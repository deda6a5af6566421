"""The contestant's side of the protocol: lines of JSON on standard input and output. Runs in any environment.

    launch.py write TASK FOLDER    writes the dataset; the exit status tells
    launch.py measure TASK         pulls an epoch, comparing it with the samples, then says
                                   {"library": "ffcv 1.0.2", "samples": 4000, "missing": 0, ...}
    > 1.0                          and for each line with a number of seconds
    < {"samples": 20160, "seconds": 1.0003, "cpu": 1.98, "disk": 0, "memory": 301989888}

until its input ends. Whatever libraries print goes to standard error. If the process that asks is killed, this one's
process group is killed soon after: workers of some libraries would wait for ever.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from bench.peers.content import check_epoch
from bench.peers.feed import Pump
from bench.peers.task import Task
from bench.peers.usage import memory_bytes

CLOSING_SECONDS = 20.0
"""Between the end of the input and the end of the process group; `bench.peers.player` itself waits for less."""


def main() -> None:
    """Do what the command line says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command, task = sys.argv[1], Task.from_json(sys.argv[2])
    module = importlib.import_module(f"bench.peers.contestants.{task.module}")
    if command == "write":
        module.write_dataset(task, Path(sys.argv[3]))
    else:
        _measure(module, task, _claim_output())


def _measure(module: Any, task: Task, out: TextIO) -> None:
    with module.open_feed(task) as feed:
        epoch = check_epoch(feed, task)
        _say(out, {"library": feed.library, **dataclasses.asdict(epoch)})
        pump = Pump(feed)
        memory = memory_bytes()
        for line in sys.stdin:
            window = pump.window(float(line))
            memory = max(memory, memory_bytes())
            _say(out, {**dataclasses.asdict(window), "memory": memory})


def _end_with_parent() -> None:
    """Wait until nobody can write to standard input any more, without reading from it; then leave time to close."""
    input_end = select.poll()
    input_end.register(0, 0)  # a pipe's end is told whatever is asked for
    input_end.poll()
    time.sleep(CLOSING_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _claim_output() -> TextIO:
    """Standard output for the protocol alone: everyone else's goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def _say(out: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=out, flush=True)
