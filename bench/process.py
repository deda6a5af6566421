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


def run_program(program: str, *arguments: Path | int) -> list[float]:
    """The numbers in the last line that a Python program prints, which finds modules as this process does."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]
