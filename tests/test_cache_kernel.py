"""Do kernels compile where the code, the home and the temporary folder cannot be written, or the disk is full?

Each case is a process of its own, which is subject to the modes of files even if root runs the tests.
"""

import os
import shutil
import stat
import sys
from functools import partial
from pathlib import Path

import pytest

from cache import kernel
from console.language import speaking
from console.progress import kernel_notes

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
from cache.kernel import kernel

@kernel
def double(number: int) -> int:
    return 2 * number
"""

RUN = """
import resource, tempfile
tempfile.tempdir = {temporary!r}
import program, other
if {full}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print(program.double(21), other.double(4), sum(program.double.stats.cache_hits.values()))
"""


@pytest.fixture
def run(start_child):
    """The function `_run`, which starts its processes by `start_child`."""
    return partial(_run, start_child)


@pytest.fixture
def installed(tmp_path):
    """A folder with two modules of kernels, which cannot be written, and a temporary folder beside it."""
    code = tmp_path / "code"
    (code / "__pycache__").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    for name in ("program", "other"):
        (code / f"{name}.py").write_text(PROGRAM)
    (code / "__pycache__").chmod(0o555)
    code.chmod(0o555)
    yield code
    code.chmod(0o755)
    (code / "__pycache__").chmod(0o755)


def _run(start_child, code, *, temporary=None, full=False, **environment):
    """What the program prints on both streams; `temporary` is the system's temporary folder, by default beside it."""
    temporary = str(temporary or code.parent / "temporary")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(code / "home"),  # it cannot be made
        "PYTHONPATH": f"{code}{os.pathsep}{Path(kernel.__file__).parents[1]}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    command = [sys.executable, "-c", RUN.format(temporary=temporary, full=full)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv to make it obey the modes of files")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    child = start_child(command, env=environment)
    out, err = child.communicate()
    assert child.returncode == 0, err
    return out, err


def one_line(text):
    (line,) = text.splitlines()
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in line
    return line


def test_kernels_go_to_the_temporary_folder_and_come_from_there(run, installed):
    folder = installed.parent / "temporary" / f"maskcache-kernels-{os.geteuid()}"
    out, err = run(installed)
    assert out == "42 8 0\n"
    assert f"kept in {folder}, since neither {installed} nor" in one_line(err)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    out, err = run(installed)
    assert out == "42 8 1\n"
    one_line(err)


def test_without_any_folder_they_are_compiled_in_each_run(run, installed):
    for _ in range(2):
        out, err = run(installed, temporary=installed)
        assert out == "42 8 0\n"
        assert one_line(err).startswith("kernels are compiled again in each run, since neither")


def test_the_folder_that_was_asked_for_is_taken_or_named(run, installed, tmp_path):
    asked = tmp_path / "asked"
    assert run(installed, NUMBA_CACHE_DIR=str(asked)) == ("42 8 0\n", "")
    assert run(installed, NUMBA_CACHE_DIR=str(asked)) == ("42 8 1\n", "")
    installed.chmod(0o755)  # also where the code could be written: that is not what was asked for
    (installed / "__pycache__").chmod(0o755)
    asked.chmod(0o555)
    for each in asked.iterdir():
        each.chmod(0o555)
    out, err = run(installed, NUMBA_CACHE_DIR=str(asked))
    assert out == "42 8 0\n"
    assert f"since NUMBA_CACHE_DIR={asked} cannot be written" in one_line(err)
    assert not list(installed.glob("__pycache__/*.nbi"))


def test_a_disk_that_is_full_ends_nothing(run, installed):
    installed.chmod(0o755)
    (installed / "__pycache__").chmod(0o755)
    out, err = run(installed, full=True)
    assert out == "42 8 0\n"
    assert f"cannot be kept in {installed / '__pycache__'} (File too large)" in one_line(err)
    assert run(installed) == ("42 8 0\n", "")
    assert run(installed) == ("42 8 1\n", "")


def test_what_cannot_be_read_is_compiled(run, installed):
    (installed / "__pycache__").chmod(0o755)
    run(installed)
    for each in (installed / "__pycache__").glob("*.nbi"):
        each.chmod(0)
    out, err = run(installed)
    assert out == "42 8 0\n"
    assert "(Permission denied)" in one_line(err)
    assert run(installed) == ("42 8 0\n", "")
    assert run(installed) == ("42 8 1\n", "")


@pytest.mark.parametrize("planted", ["link", "open to others", "of another user", "file"])
def test_a_folder_that_others_could_write_is_not_used(tmp_path, monkeypatch, planted):
    monkeypatch.setattr(kernel.tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"maskcache-kernels-{os.geteuid()}"
    assert kernel._temporary_folder.__wrapped__() == folder
    assert kernel._temporary_folder.__wrapped__() == folder
    folder.rmdir()
    if planted == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif planted == "file":
        folder.touch(mode=0o700)
    else:
        folder.mkdir(mode=0o700)
    if planted == "open to others":
        folder.chmod(0o777)
    if planted == "of another user":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 65534, -1)
    assert kernel._temporary_folder.__wrapped__() is None


def test_the_note_speaks_spanish_and_comes_once(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "_said", False)
    with speaking("es"), kernel_notes():
        for _ in range(2):
            kernel._say(f"compiled kernels cannot be kept in /x (No space left on device); {kernel.REMEDY}")
    assert capsys.readouterr().err.count("NUMBA_CACHE_DIR") == 1


def test_a_kernel_of_another_file_that_changed_is_compiled_anew(start_child, tmp_path):
    """Also if it is called by way of a third file."""
    (tmp_path / "outer.py").write_text(
        "from cache.kernel import kernel\nfrom middle import middle\n\n"
        "@kernel\ndef outer(number: int) -> int:\n    return middle(number) + 1\n"
    )
    (tmp_path / "middle.py").write_text(
        "from cache.kernel import kernel\nfrom inner import inner\n\n"
        "@kernel\ndef middle(number: int) -> int:\n    return inner(number)\n"
    )

    def run(factor):
        inner = f"@kernel\ndef inner(number: int) -> int:\n    return {factor} * number\n"
        (tmp_path / "inner.py").write_text(f"from cache.kernel import kernel\n\n{inner}")
        code = "from outer import outer; print(outer(2), sum(outer.stats.cache_hits.values()))"
        child = start_child([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"})
        said, errors = child.communicate()
        assert child.returncode == 0, errors
        return said.split()

    assert run(10) == ["21", "0"]
    assert run(10) == ["21", "1"], "unchanged, it is loaded"
    assert run(100) == ["201", "0"]
