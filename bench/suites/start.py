"""The suite `start`: seconds until a command has given its first result, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

from bench.config import Setup
from bench.material import Material
from bench.report import BenchError, Row
from bench.timing import Rates
from bench.workloads import start_program
from cache.messages import message
from preprocess.synth.dataset import SynthConfig, make_dataset

IMAGES = 40
"""Small drawn photos that the commands work on: the constant costs are what is measured."""

ROUNDS, FRESH_ROUNDS = 5, 2
"""Runs of each command, and of those that compile with nothing compiled; one of each when quick."""

PYTHON, TORCH = message("starting Python"), message("importing torch")
_PROGRAMS = {PYTHON: "", TORCH: "import torch"}
_MAIN = "import sys; from cli import main; sys.argv[0] = 'cli.py'; main()"

COMMANDS: dict[str, tuple[str, str]] = {
    "--help": (PYTHON, ""),
    "quick": (PYTHON, "--coco coco --cache cache"),
    "preprocess": (PYTHON, "--coco coco --out out --side 128 --select all"),
    "verify": (PYTHON, "--cache cache"),
    "batch": (PYTHON, "--cache cache --picture out/batch.png"),
    "predict": (TORCH, "photo.png --out out"),
    "train": (TORCH, "--cache cache --out out --profile cpu --epochs 100"),
}
"""Limit and arguments of each command."""

COMPILING = "preprocess", "predict", "train"
"""Commands that are also measured with nothing compiled, as in a fresh checkout."""

FIRST_EPOCH = "Epoch 1/"
"""What `train` prints when its first epoch is scored. It is stopped then."""


def start_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Seconds of each command, with all compiled by earlier runs and with nothing compiled, the page cache warm."""
    folder = material.folder / "start"
    make_dataset(folder / "coco", SynthConfig(images=IMAGES))
    shutil.copy(next((folder / "coco" / "val2017").iterdir()), folder / "photo.png")
    _seconds(folder, "preprocess")
    (folder / "out").rename(folder / "cache")
    rounds, fresh_rounds = (1, 1) if setup.config.quick else (ROUNDS, FRESH_ROUNDS)
    names = *_PROGRAMS, *COMMANDS
    runs = [[_seconds(folder, name) for name in names] for _ in range(1 + rounds)]
    found = dict(zip(names, map(Rates, zip(*runs[1:], strict=True)), strict=True))  # the first may have had to compile
    note = message("train: until the first epoch, of {images} small images, is scored", images=IMAGES)
    row = partial(Row.measured, suite="start", unit="s")
    for name, (limit, _) in COMMANDS.items():
        limited = partial(row, limit=found[limit], limit_name=limit, note=note if name == "train" else "")
        yield limited(found[name], name=f"cli.py {name}", setup=message("all is compiled"))
    for name in COMPILING:
        fresh = [_seconds(folder, name, folder / f"{name}{number}") for number in range(fresh_rounds)]
        title = message("{command}, fresh", command=f"cli.py {name}")
        yield row(Rates(tuple(fresh)), name=title, setup=message("nothing is compiled"))


def _seconds(folder: Path, name: str, compiled: Path | None = None) -> float:
    """Seconds of a command, or of an import, in a folder; what it compiles is kept in `compiled`, if given.

    Raises `BenchError`: the command fails.
    """
    shutil.rmtree(folder / "out", ignore_errors=True)
    variables = {"MASKCACHE_LANG": "en"}
    if compiled:
        variables |= {"NUMBA_CACHE_DIR": f"{compiled}/numba", "TORCHINDUCTOR_CACHE_DIR": f"{compiled}/torch"}
    arguments = [name, *COMMANDS[name][1].split()] if name in COMMANDS else []
    line, start, program = "", perf_counter(), _PROGRAMS.get(name, _MAIN)
    with start_program(program, *arguments, cwd=folder, variables=variables, stderr=subprocess.STDOUT) as process:
        for line in process.stdout or ():
            if name == "train" and FIRST_EPOCH in line:
                return perf_counter() - start
        if process.wait() or name == "train":
            raise BenchError("cli.py {command} fails: {line}", command=name, line=line.strip())
    return perf_counter() - start
