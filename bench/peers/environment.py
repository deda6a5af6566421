"""Pythons of the contestants' own: virtual environments, made once and kept, so that no library sees another's."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.player import PeerError

OWN = "own"
"""Stands for the Python that we run in."""

VENV_SECONDS, PIP_SECONDS = 120.0, 1800.0
"""At most, for making an environment and for each file of requirements: torch alone may be gigabytes."""

_REQUIREMENTS = Path(__file__).parent / "requirements"
_MARK = "installed.txt"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make an environment.

    Attributes:
        requirements: files, installed one after the other with what they depend on.
        alone: a file whose packages are installed without what they depend on; empty for none.
        system: packages of the system that are needed to build, as `pkg-config` knows them.
        remedy: how to get these.
    """

    requirements: tuple[str, ...]
    alone: str
    system: tuple[str, ...] = ()
    remedy: str = ""


RECIPES = {
    "ffcv": Recipe(
        requirements=("ffcv.txt",),
        alone="ffcv-alone.txt",
        system=("opencv4", "libturbojpeg"),
        remedy="apt-get install libopencv-dev libturbojpeg0-dev pkg-config",
    ),
    # Both of those that are installed alone ask for torchvision, which brings another torch, in gigabytes.
    "streams": Recipe(requirements=("streams.txt",), alone="streams-alone.txt"),
}
"""By name."""


class Environments:
    """The environments in a folder. One that could not be made is not tried again in the same run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._failed: dict[str, str] = {}

    def python(self, name: str) -> Path:
        """The interpreter of an environment, which is made where it is not there yet, or of other requirements.

        Raises:
            PeerError: it cannot be made.
        """
        if name == OWN:
            return Path(sys.executable)
        if name not in self._failed:
            try:
                return self._ready(name, RECIPES[name])
            except PeerError as error:
                self._failed[name] = str(error)
        raise PeerError(self._failed[name])

    def _ready(self, name: str, recipe: Recipe) -> Path:
        folder = self._root.resolve() / name
        files = [_REQUIREMENTS / file for file in (*recipe.requirements, recipe.alone) if file]
        wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        mark, python = folder / _MARK, folder / "bin" / "python"
        if mark.exists() and mark.read_text() == wanted:
            return python
        for package in recipe.system:
            if not _has_package(package):
                raise PeerError(f"building it needs {package}: {recipe.remedy}")
        _log.info("setting up %s with pip, in %s; this takes some minutes", name, folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)], VENV_SECONDS)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for file in files:
            alone = ["--no-deps", "--no-build-isolation"] if file.name == recipe.alone else []
            _run([*pip, *alone, "--requirement", str(file)], PIP_SECONDS)
        mark.write_text(wanted)
        return python


def foreign_variables() -> dict[str, str]:
    """Environment variables for another Python: none of what leads to our packages."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**variables, "PYTHONNOUSERSITE": "1"}


def _has_package(name: str) -> bool:
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0


def _run(command: Sequence[str], seconds: float) -> None:
    """Run a command to its end.

    Raises:
        PeerError: it failed, or took longer.
    """
    what = " ".join(command[1:4])
    try:
        done = subprocess.run(
            command, env=foreign_variables(), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{what} was not done after {seconds:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        raise PeerError(f"{what} failed: {lines[0] if lines else f'status {done.returncode}'}")
