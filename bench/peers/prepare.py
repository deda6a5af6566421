"""What entries need, made once and kept: samples, our caches of them, libraries' datasets, and virtual environments.

Each other library runs in an environment of its own, so that none sees another's packages. For it
`requirements/NAME.txt` is installed with what it depends on, then `requirements/NAME-alone.txt`, if there is one,
without.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from bench.config import Setup
from bench.material import Material, repeat_cache
from bench.peers.task import ARRAYS, FOLDER, OWN
from bench.report import BenchError
from cache.choices import Codec
from cache.index import CacheIndex
from cache.messages import UserError, message
from cache.reader import CacheReader
from cache.record import RecordLayout
from cache.spec import CacheSpec
from loader.augment import LEVELS, draw_parameters
from preprocess.build.build import build_cache

VERSION = 3
"""Version of what is written; it counts up with each change of a writer in `bench.peers.libraries`."""

SPACE = 12
"""Times the size of a raw cache that all datasets take together."""

VENV_SECONDS, PIP_SECONDS = 120.0, 1800.0
"""Limits for making an environment and for each file of requirements: torch alone may be gigabytes."""

SYSTEM = {"ffcv": ("opencv4", "libturbojpeg")}
"""Packages of the system that are needed to build an environment, as `pkg-config` knows them."""

INTERPRETERS = {"free-threaded": ("python3.14t", "python3.13t")}
"""Interpreters of environments that need another one than ours; the first that is on the PATH is taken."""

_REQUIREMENTS = Path(__file__).parent / "requirements"
_log = logging.getLogger(__name__)


class PeerError(UserError):
    """A library cannot be measured, or no longer; the text gives the reason in one line."""


class Datasets:
    """The folder in `root` of what entries read, for the photos, side and number of records of a run.

    Each dataset has `samples` records: the photos in turn, each with bytes of its own.
    """

    def __init__(self, root: Path, setup: Setup, material: Material, samples: int) -> None:
        self._side, self._material, self.samples = setup.side, material, samples
        sources = CacheIndex.load(self._small_cache()).fingerprint
        self.folder = root / f"v{VERSION}-side{setup.side}-{samples}-{sources[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Make what every run needs: the samples, and our caches.

        Raises `BenchError`: the disk has no room for what is still to be written.
        """
        needed = SPACE * self.samples * RecordLayout(self._side, "raw").raw_bytes
        needed -= sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise BenchError(
                "{folder} needs {needed:.1f} GB, {free:.1f} GB are free; delete datasets of other runs beside it, or "
                "use another --peers-folder",
                folder=self.folder,
                needed=needed / 1e9,
                free=free / 1e9,
            )
        self.make(FOLDER, self._write_samples)
        self.make("cache-raw", lambda out: repeat_cache(self._small_cache(), out, self.samples))
        self.make("cache-jpeg", lambda out: repeat_cache(self._small_cache("jpeg"), out, self.samples))

    def make(self, name: str, write: Callable[[Path], object]) -> None:
        """See that there is a folder of that name; `write` fills it where it is not there yet."""
        path, part = self.folder / name, self.folder / f"{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            write(part)
            part.rename(path)

    def _small_cache(self, codec: Codec = "raw") -> Path:
        """A cache with each photo once, in the material's folder; it is built when it is first asked for."""
        out = self._material.folder / f"peers-{codec}"
        if not out.exists():
            build_cache(self._material.build_config(out, CacheSpec(side=self._side, codec=codec)))
        return out

    def _write_samples(self, out: Path) -> None:
        side, raw_cache, jpeg_cache = self._side, self._small_cache(), self._small_cache("jpeg")
        with CacheReader(raw_cache, "train") as raw, CacheReader(jpeg_cache, "train") as jpeg:
            fields = [raw.fields(number) for number in range(len(raw))]
            jpegs = [jpeg.fields(number).image for number in range(len(jpeg))]
            arrays = {
                "image": np.stack([field.image.reshape(side, side, 3) for field in fields]),
                "decoded": np.stack([simplejpeg.decode_jpeg(image, "RGB") for image in jpegs]),
                "person": np.stack([field.person for field in fields]),
                "ignore": np.stack([field.ignore for field in fields]),
                "jpeg": np.concatenate(jpegs),
                "jpeg_start": np.cumsum([0, *(image.size for image in jpegs)]),
            }
            assert tuple(arrays) == ARRAYS
            arrays |= draw_parameters(LEVELS["light"], side, 0, 0, np.arange(self.samples))._asdict()
            for name, array in arrays.items():
                np.save(out / f"{name}.npy", array)


def find_python(root: Path, name: str) -> Path:
    """The interpreter of an environment in `root`, which is made if it is not there yet or its requirements changed.

    Raises `PeerError`: it cannot be made.
    """
    if name == OWN:
        return Path(sys.executable)
    folder = root.resolve() / name
    files = [path for end in ("", "-alone") if (path := _REQUIREMENTS / f"{name}{end}.txt").exists()]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    mark, python = folder / "installed.txt", folder / "bin" / "python"
    if mark.exists() and mark.read_text() == wanted:
        return python
    for package in SYSTEM.get(name, ()):
        if not _has_package(package):
            raise PeerError(
                "building it needs {package}: apt-get install libopencv-dev libturbojpeg0-dev pkg-config",
                package=package,
            )
    names = INTERPRETERS.get(name, (sys.executable,))
    interpreter = next(filter(None, map(shutil.which, names)), None)
    if not interpreter:
        raise PeerError(
            "it needs one of {names} on the PATH, a Python that was built with --disable-gil", names=", ".join(names)
        )
    _log.info(message("setting up {name} with pip, in {folder}; this takes some minutes", name=name, folder=folder))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([interpreter, "-m", "venv", str(folder)], VENV_SECONDS)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for file, options in zip(files, ([], ["--no-deps", "--no-build-isolation"]), strict=False):
        _run([*pip, *options, "--requirement", str(file)], PIP_SECONDS)
    mark.write_text(wanted)
    return python


def foreign_variables() -> dict[str, str]:
    """Environment variables for another Python: none of what leads to our packages."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**variables, "PYTHONNOUSERSITE": "1"}


def _has_package(name: str) -> bool:
    found = shutil.which("pkg-config")
    return found is not None and subprocess.run([found, "--exists", name], check=False).returncode == 0


def _run(command: Sequence[str], seconds: float) -> None:
    """Run a command to its end. Raises `PeerError`: it failed, or took longer."""
    what = " ".join(command[1:4])
    try:
        done = subprocess.run(
            command, env=foreign_variables(), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError("{what} was not done after {seconds:.0f} s", what=what, seconds=seconds) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        reason = lines[0] if lines else message("status {status}", status=done.returncode)
        raise PeerError("{what} failed: {reason}", what=what, reason=reason)
