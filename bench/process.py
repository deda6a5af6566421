"""Work in a Python process of its own: for memory, which never shrinks, and for first times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# VmHWM, as ru_maxrss begins with the memory of the process that started this one. Only Linux has it.
PEAK_MEMORY = """
def peak_memory():
    from pathlib import Path
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(lines.get("VmHWM", "0").split()[0]) * 1024
"""
"""Defines `peak_memory`: the most bytes that the process ever had in memory, 0 where a system does not tell."""


# Nothing is ever written to standard input: reading returns when the process that holds the pipe's other end has gone.
_END_WITH_PARENT = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""


def run_program(program: str, *arguments: Path | int) -> list[float]:
    """The numbers in the last line that a Python program prints, which finds modules as this process does.

    It ends with this process, even if that is killed.
    """
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb"), os.fdopen(ours, "rb") as standard_input:
        done = subprocess.run(
            [sys.executable, "-c", _END_WITH_PARENT + program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=standard_input,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]
