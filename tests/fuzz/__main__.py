"""Fuzz a target with coverage by atheris (pip install atheris), or check all files of a folder again.

    NUMBA_DISABLE_JIT=1 python -m tests.fuzz document FOLDER --seconds 300 --seed 1
    python -m tests.fuzz document FOLDER --replay

Kernels have coverage when they are not compiled; the replay checks with compiled ones what was found. FOLDER/corpus has
the inputs that reached something new, FOLDER/faults the shortest input of each kind of fault: these do not end a run.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fuzz import MODULES, load_target
from tests.fuzz.mutation import mutate_bytes

PACKAGES = ["cache", "preprocess", "loader", "train", "predict", "PIL"]
"""What coverage is measured in."""

MOST_SECONDS = 5.0
"""Seconds of the processor that a check may take."""

HANGS = 60.0
"""Seconds on the clock after which a check is stopped: a machine may be busy."""

MOST_BYTES = 4 << 30
"""Address space that checks may take, beside what is taken when the target is loaded."""

ROOT = Path(__file__).resolve().parents[2]


class Guard:
    """Calls a check, and writes down the faults, the shortest input of each kind."""

    def __init__(self, check: Callable[[bytes], None], folder: Path) -> None:
        self._check, self._folder, self.runs = check, folder, 0
        self.faults: dict[str, bytes] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, data: bytes) -> None:
        self.runs += 1
        started = time.process_time()
        if self.runs % 200 == 0:
            (self._folder.parent / "state").write_text(f"{self.runs} runs, {started:.0f} s of a processor\n")
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        try:
            self._check(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
            own = [frame for frame in ours if "tests" not in Path(frame.filename).parts] or ours
            place = f"{Path(own[-1].filename).stem}-{own[-1].lineno}" if own else "nowhere"
            self._note(f"{type(error).__name__}-{place}", data, traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if (seconds := time.process_time() - started) > MOST_SECONDS:
            self._note("slow", data, f"{seconds:.1f} s")

    def _note(self, kind: str, data: bytes, text: str) -> None:
        if kind in self.faults and len(self.faults[kind]) <= len(data):
            return
        if kind not in self.faults:
            print(f"FAULT {kind} after {self.runs} runs: {text.strip().splitlines()[-1][:200]}", file=sys.stderr)
        self.faults[kind] = data
        (self._folder / kind).write_bytes(data)
        (self._folder / f"{kind}.txt").write_text(text)


def stop(*_: object) -> None:
    """Handle an alarm."""
    raise TimeoutError(f"it hangs for {HANGS} s")


def limit_memory() -> None:
    """Let allocations beyond the bound fail: a `MemoryError` is then a fault as any other."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=MODULES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-len", type=int, default=4096)
    parser.add_argument("--replay", action="store_true")
    asked = parser.parse_args()
    corpus = asked.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stop)
    scratch = asked.folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # a run by atheris ends without cleaning up
    scratch.mkdir()
    tempfile.tempdir = str(scratch.absolute())
    if asked.replay:
        target = load_target(asked.target)
        guard = Guard(target.check, asked.folder / "faults")
        limit_memory()
        inputs = [*target.seeds(), *sorted(path.read_bytes() for path in corpus.iterdir())]
        with suppress(Exception):  # which compiles; it is looked at below
            target.check(inputs[0])
        for data in inputs:
            guard(data)
        print(f"{asked.target}: {guard.runs} inputs, faults: {sorted(guard.faults) or 'none'}")
        sys.exit(bool(guard.faults))

    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        target = load_target(asked.target)
    guard = Guard(target.check, asked.folder / "faults")
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    draw = random.Random(asked.seed)

    def mutate(data: bytes, size: int, _seed: int) -> bytes:
        if target.mutate and draw.random() < 0.6:
            found = target.mutate(data, draw)
            if found is not None and len(found) <= size:
                return found
        if draw.random() < 0.2:
            return mutate_bytes(data, draw)[:size]
        return atheris.Mutate(data, size)

    from PIL import Image  # only now, so that it has coverage

    Image.MAX_IMAGE_PIXELS = 1 << 22  # else most of the time goes into large pictures of one colour
    limit_memory()
    options = {"max_total_time": asked.seconds, "seed": asked.seed, "max_len": asked.max_len, "timeout": 0}
    options |= {"rss_limit_mb": 0, "print_final_stats": 1, "reload": 0, "artifact_prefix": f"{asked.folder}/"}
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(arguments, guard, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
