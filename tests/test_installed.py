"""A wheel in an environment of its own, used from another folder: is all there, and is nothing of the checkout seen?"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.calibration import RESULTS
from preprocess.synth.dataset import SynthConfig, make_dataset

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(sysconfig.get_path("purelib"))
PACKAGES = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, start_module_child):
    """A wheel of a copy of the checkout, which building leaves files in."""
    if not (SITE / "pip").is_dir():  # to look for it otherwise changes what `import distutils` gives
        pytest.skip("no pip to build a wheel with")
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("the wheel is built with setuptools 77 or later")
    source, out = tmp_path_factory.mktemp("source") / "maskcache", tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.*"), ROOT / "LICENSE"):
        if path.is_file():
            shutil.copy(path, source)
    pip("wheel", "--no-build-isolation", "--wheel-dir", out, source, start=start_module_child)
    return next(out.glob("maskcache-*.whl"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small dataset, far from the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    make_dataset(folder / "COCO", SynthConfig(images=6, long_side=(96, 128)))
    return folder


@pytest.fixture(scope="module")
def run(wheel, folder, tmp_path_factory, start_module_child):
    """A function that starts a program of an environment where the wheel is, and of what it depends on, is installed.

    The dependencies are those of the environment that runs the tests. That path comes by a file of ours: its own
    `.pth` files, such as that of an editable installation of maskcache, are not read then.
    """
    environment = tmp_path_factory.mktemp("environment")
    command = [sys.executable, "-m", "venv", "--without-pip", environment]
    child = start_module_child(command)
    assert child.wait() == 0, child.stderr.read()
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{SITE}\n")
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-compile", wheel, start=start_module_child)
    variables = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "MASKCACHE_LANG": "en",
        "OMP_NUM_THREADS": "1",
        "TERM": "dumb",
    }

    def start(name, *arguments, **options):
        return start_module_child([environment / "bin" / name, *arguments], cwd=folder, env=variables, **options)

    out, err = start("python", "-c", "import cache, sys; print(cache.__file__, *sys.path, sep='\\n')").communicate()
    found, *paths = out.splitlines()
    assert Path(found) == site / "cache" / "__init__.py", err
    assert str(ROOT) not in paths
    return start


def pip(*arguments, start):
    """Run pip, without an index and without dependencies."""
    python, rest = (arguments[:2], arguments[2:]) if arguments[0] == "--python" else ((), arguments)
    command = [sys.executable, "-m", "pip", *python, rest[0], "--no-deps", "--no-index", "-q", *rest[1:]]
    # Without what may name the checkout: pip would find maskcache there.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    child = start(command, cwd=Path(sys.prefix), env=environment, stderr=subprocess.STDOUT)
    out, _ = child.communicate()
    assert child.returncode == 0, out


def said(child, code=0):
    out, err = child.communicate()
    assert child.returncode == code, out + err
    return out + err


def test_all_files_of_the_packages_are_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    ours = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"bench/results/cpu-2-cores.json", "webpage/.streamlit/config.toml"} < ours
    assert names == {"app.py", "cli.py", *ours}


def test_commands(run):
    assert "COCO structure verified!" in said(run("maskcache", "quick"))
    assert "Usage: maskcache predict" in said(run("maskcache", "predict", "--help"))
    assert "Opciones" in said(run("maskcache", "--lang", "es", "--help"))


def test_texts_name_the_command_that_there_is(run):
    assert "maskcache preprocess --coco COCO" in said(run("maskcache", "--help"))
    # Of all commands that want a cache this is the one that starts fastest.
    assert "make it with: maskcache preprocess --coco DIR" in said(run("maskcache", "analyze", "--cache", "none"), 1)
    spanish = said(run("maskcache", "--lang", "es", "analyze", "--cache", "none"), 1)
    assert "créala con: maskcache preprocess --coco CARPETA" in spanish
    code = "import runpy, sys; sys.argv = ['x']; runpy.run_module('webpage.page', run_name='__main__')"
    assert said(run("python", "-c", code), 1).splitlines()[-1] == "error: the page wants a server; maskcache-page"


def test_the_sample_network_is_installed(run):
    assert "(the sample network; " in said(run("maskcache", "predict", "COCO/val2017", "--out", "o", "--json"))


def test_estimates_have_their_rows_of_processors(run):
    code = "from bench.calibration import calibrations; print(*(row.name for row in calibrations()), sep='\\n')"
    lines = said(run("python", "-c", code)).splitlines()
    for path in RESULTS.glob("*step*.json"):
        assert any(path.stem in line for line in lines), path


def test_what_is_missing_is_installed_beside_it(run):
    code = "import sys; sys.modules['streamlit'] = None; import webpage.page"
    error = "error: the page wants the package streamlit; pip install 'maskcache[app]'"
    assert said(run("python", "-c", code), 1).splitlines()[-1] == error


def test_the_page_starts_for_this_machine_alone(run):
    pytest.importorskip("streamlit", reason="no streamlit; pip install -e '.[app]'")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = run("maskcache-page", "--server.port", port, "--server.headless", "1", stderr=subprocess.STDOUT)
    address = f"http://localhost:{port}"
    answers = []
    for place in ("/_stcore/health", "/"):
        while server.poll() is None:
            try:
                with urllib.request.urlopen(address + place, timeout=10) as answer:
                    answers.append((answer.status, answer.read().decode()))
                break
            except urllib.error.URLError:
                time.sleep(0.2)
    server.kill()
    text = server.stdout.read()
    assert [status for status, _ in answers] == [200, 200], text
    assert answers[0][1] == "ok"
    assert address in text
    assert "Network URL" not in text  # as without our settings
    assert "Traceback" not in text
