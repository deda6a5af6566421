"""The folder of a run and the files in it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path

import torch

from cache.atomic import write_atomically
from cache.messages import system_reason
from cache.remote.folder import only_writer
from train.checkpoint import CheckpointError
from train.result import EpochResult


class RunFolder:
    """The paths and the writing of a run's files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The network of the epoch with the highest validation IoU, for use; and the same weights for other programs:
        # safetensors, which runs no code when it is read.
        self.best_model = root / "checkpoints" / "best_model.pth"
        self.best_weights = root / "checkpoints" / "best_model.safetensors"
        self.last_model = root / "checkpoints" / "last_model.pth"  # the latest checkpoint, to resume from
        self.plots = root / "plots"  # the folder of the pictures

    def locked(self) -> AbstractContextManager[None]:
        """Be the only process that trains into the folder within the block; see `only_writer`."""
        return only_writer(self.root / "train.lock")

    def prepare(self) -> None:
        """Make the folders. Raises `CheckpointError`: they cannot be made."""
        try:
            for name in ("checkpoints", "logs", "plots"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                "cannot create {root}: {reason}; choose another --out", root=self.root, reason=system_reason(error)
            ) from None

    def write_json(self, name: str, value: object) -> None:
        """Write a file of JSON: `config.json`, or `inference.json`, how the best network is to be used."""
        write_atomically(self.root / name, json.dumps(value, indent=1).encode() + b"\n")

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write `environment.json`, and `logs/system_<time>.log` with torch's build and the driver's report as well."""
        self.write_json("environment.json", dict(environment))
        lines = [f"{name}: {text}" for name, text in environment.items()]
        driver = "no nvidia-smi"
        with suppress(OSError, subprocess.TimeoutExpired):
            driver = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=False).stdout
        text = "\n".join([*lines, "", torch.__config__.show(), driver])
        write_atomically(self.root / "logs" / f"system_{timestamp()}.log", text.encode())

    def write_metrics(self, results: list[EpochResult]) -> None:
        """Write `metrics.jsonl` and `metrics.csv`, a line for each epoch. They are written anew: no line repeats."""
        rows = [{**dataclasses.asdict(result), "seconds": result.seconds} for result in results]
        lines = [json.dumps(row) for row in rows]
        write_atomically(self.root / "metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())
        for row in rows:  # as scalars: `val.iou` becomes `val_iou`, the counts one column each
            scores, counts = row.pop("val"), zip(("tp", "fp", "fn", "tn"), row.pop("val_counts"), strict=True)
            row |= {f"val_{name}": value for name, value in [*scores.items(), *counts]}
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.root / "metrics.csv", table.getvalue().encode())


def timestamp() -> str:
    """The time now, as names of log files have it."""
    return f"{datetime.now():%Y%m%d_%H%M%S_%f}"
