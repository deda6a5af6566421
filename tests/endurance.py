"""A long run in little time: a small training that is killed over and over, beside one that is left alone and watched.

    python -m tests.endurance FOLDER --loader native --epochs 300 --every 3 --seed 0
    python -m tests.endurance FOLDER --loader native,resident,dali --augment none    # the loaders take turns

The one that is killed must end as the other: the same metrics, weights, optimizer and curves, to the last bit. The
other's memory, threads, open files, log and folder are measured after each epoch; growth beyond `BOUNDS` is an error.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import cycle
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

TEMPORARY = (".last_model.pth.tmp", ".best_model.pth.tmp", ".best_model.safetensors.tmp", ".metrics.csv.tmp",
             ".metrics.jsonl.tmp", ".inference.json.tmp", ".config.json.tmp")  # fmt: skip
"""Files amid whose writing a run is killed."""

BOUNDS = {"memory": 8192.0, "threads": 0.01, "open_files": 0.01, "log": 400.0, "files": 0.01, "temporary": 0.01}
"""What may come with each epoch after the first third of them: bytes of memory and of the log, else a number."""

TIMES = {"train_seconds", "val_seconds", "images_per_s", "wait_share", "warmup_seconds", "seconds"}
"""Columns of metrics that no two runs have in common."""

PATIENCE = 120.0
"""Seconds after which a run that was asked to stop counts as hanging."""


class Sample(NamedTuple):
    """What a run holds after an epoch: bytes of resident memory and of the log, else numbers."""

    epoch: int
    memory: int
    threads: int
    open_files: int
    log: int
    files: int  # in its folder
    temporary: int  # in the folder for temporary files, and half-written ones in its own


def prepare(folder: Path, images: int = 20) -> Path:
    """Draw people, and give the cache that is made of them."""
    from cache.spec import CacheSpec
    from preprocess.build.build import BuildConfig, build_cache
    from preprocess.synth.dataset import SynthConfig, make_dataset

    coco, cache = folder / "coco", folder / "cache"
    make_dataset(coco, SynthConfig(images=images, val_fraction=0.2, long_side=(64, 96), seed=1))
    build_cache(BuildConfig(coco=coco, out=cache, spec=CacheSpec(side=32, images="all", shard_samples=8)))
    return cache


class Trainer:
    """Starts the same training again and again, each time in a process that has its modules already."""

    def __init__(self, folder: Path, cache: Path, epochs: int, augment: str) -> None:
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir()
        self._arguments = [
            "train", "--cache", cache, "--profile", "cpu", "--precision", "fp32", "--network", "unet", "--width", 8,
            "--batch-size", 4, "--threads", 1, "--epochs", epochs, "--augment", augment, "--seed", 3, "--ema", 0.9,
            "--dropout", 0.3, "--set", "checkpoint_minutes=0",
        ]  # fmt: skip
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["cli", "train.loop", "console.train", "loader.native", "loader.resident",
                                             "tensorboard", "safetensors.torch"])  # fmt: skip

    def start(self, out: Path, loader: str, *, resume: bool = False) -> BaseProcess:
        """Start or resume the run in `out`."""
        arguments = [*self._arguments, "--out", out, "--loader", loader, *(["--resume"] if resume else [])]
        values = ([str(one) for one in arguments], str(self.folder / "output.txt"), str(self.temporary))
        process = self._server.Process(target=_train, args=values)
        process.start()
        return process

    def wait(self, process: BaseProcess, allowed: tuple[int, ...], seconds: float = PATIENCE) -> int:
        """Give the exit code. Raises `AssertionError`: it is another one, or there is none in time."""
        process.join(seconds)
        code = process.exitcode
        if code is None:
            process.kill()
        assert code in allowed, f"it ended with {code}:\n{(self.folder / 'output.txt').read_text()[-3000:]}"
        return code


def _train(arguments: list[str], output: str, temporary: str) -> None:
    """A run, in a process of its own."""
    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    tempfile.tempdir = os.environ["TMPDIR"] = temporary
    import torch

    from cli import main

    torch.set_num_threads(1)
    main(arguments, prog_name="cli.py")


def watch(trainer: Trainer, out: Path, loader: str) -> list[Sample]:
    """Train without a disturbance; give a sample for each epoch that was seen to end."""
    process, samples = trainer.start(out, loader), list[Sample]()
    metrics, before = out / "metrics.jsonl", 0
    while process.is_alive():
        with suppress(OSError):
            if (changed := metrics.stat().st_mtime_ns) != before:
                before = changed
                samples.append(_sample(process.pid or 0, metrics.read_text().count("\n"), out, trainer.temporary))
        time.sleep(0.01)
    trainer.wait(process, (0,))
    return samples


def _sample(process: int, epoch: int, out: Path, temporary: Path) -> Sample:
    state = Path("/proc") / str(process)
    files = [path for path in out.rglob("*") if path.is_file()]
    halves = sum(path.name.endswith(".tmp") and path.name != ".last_model.pth.tmp" for path in files)
    return Sample(
        epoch=epoch,
        memory=int((state / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
        threads=sum(1 for _ in (state / "task").iterdir()),
        open_files=sum(not link.startswith("pipe:") for link in _links(state / "fd")),
        log=sum(path.stat().st_size for path in files if path.parent.name == "logs"),
        files=sum(not path.name.endswith(".tmp") for path in files),
        temporary=halves + sum(1 for _ in temporary.iterdir()),
    )


def _links(folder: Path) -> list[str]:
    found = []
    for path in folder.iterdir():
        with suppress(OSError):
            found.append(str(path.readlink()))
    return [link for link in found if ".tmp" not in link and "metrics" not in link]


def growth(samples: list[Sample]) -> dict[str, float]:
    """What came with each epoch after the first third of them: the slope of a line through the samples."""
    late = [sample for sample in samples if sample.epoch > samples[-1].epoch / 3]
    epochs = [sample.epoch for sample in late]
    return {name: float(np.polyfit(epochs, [getattr(sample, name) for sample in late], 1)[0]) for name in BOUNDS}


def disturb(trainer: Trainer, out: Path, loaders: list[str], every: float, seed: int) -> Counter[str]:
    """Train with kills, on average after so many seconds; give how often a run was ended how.

    A third of the kills come at any time, a third while a file is being written, and a third are requests to stop.
    """
    random, ends, last = np.random.default_rng(seed), Counter[str](), out / "checkpoints" / "last_model.pth"
    for loader in cycle(loaders):
        resume = last.exists()
        process = trainer.start(out, loader, resume=resume)
        end, logs = random.choice(["kill", "kill amid a file", "stop"]), len(list(out.glob("logs/training_*")))
        early = random.random() < 0.1  # killed while it starts; else the seconds count from where the run goes on
        while not early and process.is_alive() and len(list(out.glob("logs/training_*"))) == logs:
            time.sleep(0.01)
        patience = time.monotonic() + random.uniform(0, 2 * every)
        while time.monotonic() < patience and process.is_alive():
            time.sleep(0.002)
        if end == "kill amid a file":
            name = random.choice(TEMPORARY, p=[0.5, *[0.5 / (len(TEMPORARY) - 1)] * (len(TEMPORARY) - 1)])
            places, patience = (out / "checkpoints" / name, out / name), time.monotonic() + every
            while process.is_alive() and time.monotonic() < patience and not any(map(os.path.exists, places)):
                pass
            ends["amid a file"] += any(map(os.path.exists, places))
        with suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGTERM if end == "stop" else signal.SIGKILL)
        code = trainer.wait(process, (0, 130, -signal.SIGKILL, -signal.SIGTERM))
        if code == 0 and (out / "inference.json").exists():
            return ends  # else it was asked to stop when all was trained, and not yet measured
        ends[f"{end}: {code}"] += 1
        ends[f"with {loader}"] += 1
    return ends


def compare(whole: Path, killed: Path) -> None:
    """Raise an `AssertionError` where two runs differ in more than times."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from train.checkpoint import load_checkpoint

    def rows(out: Path) -> list[dict[str, str]]:
        with (out / "metrics.csv").open() as file:
            return [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(file)]

    def lines(out: Path) -> list[dict[str, object]]:
        found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in row.items() if name not in TIMES} for row in found]

    def same(one: object, other: object, where: str) -> None:
        if isinstance(one, dict) and isinstance(other, dict):
            assert one.keys() == other.keys(), where
            for name in one:
                same(one[name], other[name], f"{where}.{name}")
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, other), where
        else:
            assert one == other, f"{where}: {one}, not {other}"

    def curves(out: Path) -> dict[str, list[int]]:
        steps = {}
        for name in ("epochs", "steps"):
            read = EventAccumulator(str(out / "tensorboard" / name), size_guidance={"scalars": 0}).Reload()
            steps |= {f"{name}/{tag}": [one.step for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
        return steps

    def names(out: Path) -> list[str]:
        found = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
        return sorted(name for name in found if not name.startswith(("logs/", "tensorboard/")))

    same(dict(enumerate(rows(whole))), dict(enumerate(rows(killed))), "metrics.csv")
    same(dict(enumerate(lines(whole))), dict(enumerate(lines(killed))), "metrics.jsonl")
    for name in ("last_model.pth", "best_model.pth"):
        first, second = (load_checkpoint(out / "checkpoints" / name) for out in (whole, killed))
        same(first.network, second.network, f"{name}: network")
        if first.continuation and second.continuation:
            for part in ("step", "loader", "random"):
                same(getattr(first.continuation, part), getattr(second.continuation, part), f"{name}: {part}")
            assert first.continuation.progress.step == second.continuation.progress.step
        measured = [[(one.side, one.iou, one.threshold) for one in each.use.measured] for each in (first, second)]
        assert measured[0] == measured[1], name
    for name, steps in curves(killed).items():
        assert steps == sorted(set(steps)), f"{name}: a step is drawn twice, or too early"
    same(curves(whole), curves(killed), "tensorboard")
    same(dict(enumerate(names(whole))), dict(enumerate(names(killed))), "files")


def endure(folder: Path, loaders: list[str], epochs: int, every: float, seed: int, augment: str) -> None:
    """Train undisturbed and disturbed, and compare. Raises `AssertionError`."""
    folder.mkdir(parents=True)
    trainer = Trainer(folder, prepare(folder), epochs, augment)
    started = time.monotonic()
    samples = watch(trainer, folder / "whole", loaders[0])
    grown = growth(samples)
    print(f"{loaders[0]}: {epochs} epochs undisturbed in {time.monotonic() - started:.0f} s, {len(samples)} seen")
    print(f"  first {samples[0]}\n  last  {samples[-1]}")
    print("  with each epoch: " + ", ".join(f"{name} {value:.4g}" for name, value in grown.items()), flush=True)
    if every:
        started = time.monotonic()
        ends = disturb(trainer, folder / "killed", loaders, every, seed)
        logs = len(list((folder / "killed" / "logs").glob("training_*")))
        print(f"  ended {sum(ends[name] for name in ends if ':' in name)} times in {time.monotonic() - started:.0f} s, "
              f"{dict(ends)}, {logs} logs")  # fmt: skip
        compare(folder / "whole", folder / "killed")
        print("  the same metrics, weights, curves and files")
    if epochs < 100:  # memory has not settled
        return
    beyond = {name: value for name, value in grown.items() if value > BOUNDS[name]}
    assert not beyond, f"it grows with each epoch: {beyond}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new; everything is written there")
    parser.add_argument("--loader", default="native")
    parser.add_argument("--augment", default="heavy")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between kills, on average; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(ROOT))
    endure(asked.folder, asked.loader.split(","), asked.epochs, asked.every, asked.seed, asked.augment)


if __name__ == "__main__":
    main()
