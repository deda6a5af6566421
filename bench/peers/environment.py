"""Virtual environments for other libraries, made once and kept, so that no library sees another's packages.

`requirements/NAME.txt` is installed with what it depends on, then `requirements/NAME-alone.txt` without.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.task import OWN, PeerError
from cache.messages import message

VENV_SECONDS, PIP_SECONDS = 120.0, 1800.0
"""Limits for making an environment and for each file of requirements: torch alone may be gigabytes."""

SYSTEM = {"ffcv": (("opencv4", "libturbojpeg"), message("apt-get install libopencv-dev libturbojpeg0-dev pkg-config"))}
"""Packages of the system that are needed to build an environment, as `pkg-config` knows them, and how to get them."""

_REQUIREMENTS = Path(__file__).parent / "requirements"
_MARK = "installed.txt"
_log = logging.getLogger(__name__)


def find_python(root: Path, name: str) -> Path:
    """The interpreter of an environment in `root`, which is made if it is not there yet or its requirements changed.

    Raises:
        PeerError: it cannot be made.
    """
    if name == OWN:
        return Path(sys.executable)
    folder = root.resolve() / name
    files = [_REQUIREMENTS / f"{name}.txt", _REQUIREMENTS / f"{name}-alone.txt"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    mark, python = folder / _MARK, folder / "bin" / "python"
    if mark.exists() and mark.read_text() == wanted:
        return python
    packages, remedy = SYSTEM.get(name, ((), ""))
    for package in packages:
        if not _has_package(package):
            raise PeerError(message("building it needs {package}: {remedy}", package=package, remedy=remedy))
    _log.info(message("setting up %s with pip, in %s; this takes some minutes"), name, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], VENV_SECONDS)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--requirement", str(files[0])], PIP_SECONDS)
    _run([*pip, "--no-deps", "--no-build-isolation", "--requirement", str(files[1])], PIP_SECONDS)
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
        raise PeerError(message("{what} was not done after {seconds:.0f} s", what=what, seconds=seconds)) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "rror" in line]
        raise PeerError(
            message(
                "{what} failed: {lines}",
                what=what,
                lines=(lines[0] if lines else message("status {returncode}", returncode=done.returncode)),
            )
        )
