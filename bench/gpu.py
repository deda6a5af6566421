"""Tests and measures in one go all that needs a GPU: `make gpu`. Nothing is installed.

Each part is a process with a time limit of its own. What it prints and finds is at once in one folder of eight files:
`log.txt`, `profile.txt`, five reports of `cli.py bench`, and `summary.txt`, which is written anew with each part. A
rehearsal runs the same parts with small sizes, on whatever there is.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from bench.report import BenchReport

FIRST = ("train", "predict", "loader")
"""What names of files of tests contain that come first."""

COMPILE = "import torch; x = torch.ones(8, device='cuda' if torch.cuda.is_available() else 'cpu')"
COMPILE += "; print('torch.compile:', torch.__version__, torch.compile(lambda x: x.relu() + 1)(x).tolist())"

STEPS = 5
"""Steps before the profile, and in it."""


class Part(NamedTuple):
    """A process, and the seconds after which it is killed."""

    name: str
    limit: float
    arguments: list[str]  # of Python


def plan(coco: Path, out: Path, work: Path, *, rehearse: bool) -> list[Part]:
    """The parts in their order, with limits of 8 minutes together, of a rehearsal 5. Caches and runs go to `work`."""
    side, width, large, small, seconds = (64, 8, 4, 2, 0.1) if rehearse else (512, 64, 64, 16, 0.5)
    tests = [path for path in sorted(Path("tests").glob("test_*.py")) if "pytest.mark.gpu" in path.read_text("utf-8")]
    tests.sort(key=lambda path: [name in path.name for name in FIRST], reverse=True)

    def bench(network: str, batch: int, quick: bool, *suites: str) -> list[object]:
        report = out / f"bench-{network}-{batch}{'' if quick else '-loop'}.json"
        what = [*(word for suite in suites for word in ("--suite", suite)), *(["--quick"] if quick or rehearse else [])]
        shape = ["--network", network, "--width", width, "--batch-size", batch, "--side", side, "--seconds", seconds]
        return ["cli.py", "bench", "--coco", coco, *what, *shape, "--json", report]

    build = ["cli.py", "preprocess", "--coco", coco, "--out", work / "cache", "--side", side, "--select", "all"]
    train = ["cli.py", "train", "--cache", work / "cache", "--out", work / "run", "--epochs", 3, "--batch-size", small]
    parts: list[tuple[str, float, float, list[object]]] = [
        ("machine", 20, 20, ["cli.py", "verify", "--coco", coco]),
        ("compiler", 15, 30, ["-c", COMPILE]),
        ("preprocess", 30, 25, build),
        ("tests", 75, 30, ["-m", "pytest", "-qm", "gpu", "--continue-on-collection-errors", "--durations=5", *tests]),
        ("train", 55, 35, train),
        ("unet", 95, 40, bench("unet", large, True, "machine", "model")),
        ("profile", 20, 15, ["-m", "bench.gpu", "profile", side, width, large]),
        ("resunet", 50, 20, bench("resunet", large, True, "model")),
        ("loop", 80, 55, bench("resunet", large, False, "epoch", "loader", "stages")),
        ("unet, small batch", 20, 15, bench("unet", small, True, "model")),
        ("resunet, small batch", 20, 15, bench("resunet", small, True, "model")),
    ]
    return [Part(name, short if rehearse else limit, list(map(str, words))) for name, limit, short, words in parts]


def run(part: Part, output: Path) -> str:
    """Run a part and append what it prints to a file; gives a line on how it ended, with the last one of these."""
    started, line = perf_counter(), f"\n=== {part.name}: {' '.join(part.arguments)}\n"
    with output.open("a") as file:
        file.write(line)
        file.flush()
        command, environment = [sys.executable, *part.arguments], {**os.environ, "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            status = f"exit status {child.wait(part.limit)}"
        except subprocess.TimeoutExpired:
            status = "stopped at its limit"
        finally:
            with suppress(ProcessLookupError):  # with all that it has started
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    said = output.read_text(errors="replace").rstrip().rpartition("\n")[2]
    return f"{part.name:21}{perf_counter() - started:6.1f} s of {part.limit:3g}: {status}; {said[:100]}"


def figures(out: Path) -> Iterator[str]:
    """The rows of all reports, and the memory that is estimated for the same step."""
    from bench.census import take_census
    from model.network import NetworkConfig

    for path in sorted(out.glob("bench-*.json")):
        report = BenchReport.read(path)
        config, network = report.config, NetworkConfig(**report.config["network"])
        switches = [f"{name} {config[name]}" for name in ("compile", "cudnn_benchmark", "tf32", "deterministic")]
        shape = {name: config[name] for name in ("side", "batch_size", "precision")}
        yield f"\n{path.stem}: {', '.join(map(str, [network, *shape.values(), *switches]))}"
        for row in report.rows:
            what, limit = f"  {row.suite:8} {row.name:36}", f"  {row.ratio or 0:.0%} of {row.limit_name}"
            if row.kind == "failed":
                yield f"{what} {row.note}"
            elif row.kind == "measured" and row.suite != "tiers":
                yield f"{what} {row.value:12,.4g} {row.unit:9}{limit if row.limit else ''}"
        if config["device"] == "cuda" and report.find("epoch", "peak memory"):
            yield f"  estimate {'peak memory of tensors':36} {take_census(network, **shape).memory / 1e6:12,.4g} MB"


def profile(side: int, width: int, batch_size: int) -> None:
    """Print the ten kernels that take longest in training steps of a U-Net."""
    import torch

    from bench.census import take_census
    from bench.config import BenchConfig, Setup
    from bench.workloads import LEARNING_RATE, PeakMemory, build_step, random_batch
    from model.network import NetworkConfig
    from train.process import kernels

    network = NetworkConfig(name="unet", width=width)
    setup = Setup.of(BenchConfig(network=network, side=side, batch_size=batch_size))
    activity = torch.profiler.ProfilerActivity.CUDA if setup.device == "cuda" else torch.profiler.ProfilerActivity.CPU
    with kernels(setup.training):
        memory = PeakMemory(setup.device)
        step, batch = build_step(setup.training), random_batch(setup)
        for _ in range(STEPS):
            step(*batch, LEARNING_RATE)
        setup.synchronise()
        with torch.profiler.profile(activities=[activity]) as found:
            for _ in range(STEPS):
                step(*batch, LEARNING_RATE)
                memory.look()
            setup.synchronise()
    by = f"self_{'device' if setup.device == 'cuda' else 'cpu'}_time_total"
    counted = take_census(network, side=side, batch_size=batch_size, precision=setup.training.precision).memory
    print(f"{setup.network}, {setup.shape}, {STEPS} steps; estimated peak memory {counted / 1e6:,.0f} MB")
    print({what: f"{size / 1e6:,.0f} MB" for what, size in memory.found().items()})
    print(found.key_averages().table(sort_by=by, row_limit=10, max_name_column_width=80))


def main() -> None:
    """Run all parts. The summary has what is known, whenever this process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", type=Path, required=True, help="a small COCO folder")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--rehearse", action="store_true", help="take small sizes")
    parser.add_argument("--stretch", type=float, default=1.0, help="multiply all limits, for a slow machine")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if any(given.out.iterdir()):
        parser.error(f"{given.out} is not empty; choose another --out")
    summary, lines = given.out / "summary.txt", list[str]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # `run` then ends its child
    with tempfile.TemporaryDirectory(prefix="maskcache-gpu-") as work:
        for part in plan(given.coco, given.out, Path(work), rehearse=given.rehearse):
            output = given.out / ("profile.txt" if part.name == "profile" else "log.txt")
            lines.append(f"{part.name:21}not finished")
            try:
                lines[-1] = run(part._replace(limit=part.limit * given.stretch), output)
            finally:
                summary.write_text("\n".join([*lines, *figures(given.out)]) + "\n")
            print(lines[-1], flush=True)
    print(summary.read_text())


if __name__ == "__main__":
    profile(*map(int, sys.argv[2:])) if sys.argv[1:2] == ["profile"] else main()
