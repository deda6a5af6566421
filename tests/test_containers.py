"""Containers: limits of processors and memory, a user without a name and a home, a disk that cannot be written."""

import json
import os
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner
from torch._inductor.exc import CppCompileError, InductorError

from cache import machine
from commands.group import FriendlyGroup
from preprocess.synth.dataset import SynthConfig, make_dataset

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = f"{sys.executable} {ROOT / 'cli.py'}"
NO_LIMIT = "9223372036854771712"  # of version 1
GIB = 1 << 30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that writes /proc/self/cgroup and files below /sys/fs/cgroup, of a machine of 64 processors."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    found = psutil.virtual_memory()._replace(total=256 * GIB, available=200 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)

    def write(cgroup, files):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
        for name, text in files.items():
            path = tmp_path / "sys" / "fs" / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


@pytest.mark.parametrize(
    ("cgroup", "files", "count", "total"),
    [
        ("0::/\n", {"cpu.max": "150000 100000", "memory.max": f"{2 * GIB}"}, 2, 2),
        ("0::/\n", {"cpu.max": "10000 100000", "memory.max": "max"}, 1, 256),
        ("0::/\n", {"cpu.max": "max 100000"}, 64, 256),
        ("0::/\n", {"cpu.max": f"{90 * 100000} 100000", "memory.max": f"{500 * GIB}"}, 64, 256),
        # The smallest on the way up counts, wherever it stands.
        (
            "0::/a/b\n",
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000", "a/b/memory.max": f"{8 * GIB}",
             "a/memory.max": f"{4 * GIB}", "other/cpu.max": "100000 100000", "other/memory.max": f"{GIB}"},
            4, 4,
        ),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "800000 100000", "a/memory.max": "max"}, 3, 256),
        # Version 1, and both at once.
        (
            "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n",
            {"cpu/docker/x/cpu.cfs_quota_us": "250000", "cpu/docker/x/cpu.cfs_period_us": "100000",
             "memory/docker/x/memory.limit_in_bytes": f"{3 * GIB}", "memory/memory.limit_in_bytes": NO_LIMIT},
            3, 3,
        ),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": NO_LIMIT},
            64, 256,
        ),
        # Within a container that sees the paths of its host, its group is what is mounted.
        (
            "5:memory:/docker/x\n4:cpu:/docker/x\n0::/docker/x\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": str(GIB)},
            2, 1,
        ),
        ("4:cpu:/\n0::/a\n", {"unified/a/memory.max": str(GIB)}, 64, 1),
        ("0::/../../a\n", {"cpu.max": "200000 100000"}, 2, 256),
        ("", {"cpu.max": "100000 100000", "memory.max": str(GIB)}, 64, 256),
    ],
)  # fmt: skip
def test_limits_of_cgroups(groups, cgroup, files, count, total):
    groups(cgroup, files)
    assert machine.processors() == count
    assert machine.memory() == (total * GIB, min(total, 200) * GIB)


def test_a_machine_without_cgroups(groups):
    assert machine.processors() == 64
    assert machine.memory() == (256 * GIB, 200 * GIB)


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/\n", {"memory.max": "1000", "memory.current": "700"}, 300),
        # What was read of files is given up when it is needed.
        (
            "0::/a\n",
            {"a/memory.max": "1000", "a/memory.current": "900",
             "a/memory.stat": "anon 300\ninactive_file 400\nactive_file 200"},
            700,
        ),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "5000", "memory.current": "6000"}, 0),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "900",
             "memory/memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20"},
            150,
        ),
    ],
)  # fmt: skip
def test_what_is_free_below_a_limit(groups, cgroup, files, free):
    groups(cgroup, files)
    assert machine.memory()[1] == free


def test_openmp_is_told_of_the_quota(groups, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    groups("0::/\n", {"cpu.max": "300000 100000"})
    machine.settle()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    machine.settle()
    assert os.environ["OMP_NUM_THREADS"] == "7"


SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount --bind . .
mount -t tmpfs -o size=128k,mode=1777 tmpfs small
mount -o remount,bind,ro /
cd "$PWD"
exec setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps=-all,+dac_read_search \
    --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search -- "$@"
"""
"""Everything but the current folder cannot be written, and the user is in no list. He may read what root's is."""


@pytest.fixture
def run(tmp_path, start_child):
    """A function that runs a command in such a container, and gives all that it says."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("root, unshare and setpriv are needed to make such a place")
    (tmp_path / "small").mkdir()
    os.chown(tmp_path, 12345, 12345)

    def start(*command, **environment):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C", **environment}
        child = start_child(["unshare", "-m", "bash", "-c", SETUP, "bash", *command], cwd=tmp_path, env=environment)
        out, err = child.communicate()
        return child.returncode, out + err

    code, said = start("sh", "-c", f"! touch {ROOT}/file && touch file && rm file")
    if code:
        pytest.skip(f"such a place cannot be made here: {said}")
    return start


PREPROCESS = """
import sys, cli
from preprocess.resize import RESIZING
try: cli.main(["preprocess", "--coco", sys.argv[1], "--out", sys.argv[2], "--side", "32"])
except SystemExit: pass
print("compiled", [sum(kernel.stats.cache_misses.values()) for kernel in RESIZING])
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory, write_coco, start_module_child):
    """The folder where the kernels of a build are, and what two builds said, of which the first compiled them."""
    root = tmp_path_factory.mktemp("kernels")
    coco = write_coco(root / "coco")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(root / "kernels"), "PYTHONPATH": str(ROOT)}
    said = []
    for out in ("first", "second"):
        child = start_module_child([sys.executable, "-c", PREPROCESS, coco, root / out], env=environment)
        said.append(child.communicate())
        assert child.returncode == 0, said
    return root / "kernels", *said


def test_kernels_are_compiled_beside_each_other_told_and_not_counted_as_work(kernels):
    """In a process of their own, those that resize; their signatures are the ones that a build calls."""
    _, (said, errors), (again, no_errors) = kernels
    assert said.endswith("compiled [0, 0]\n")
    assert errors.startswith("   Note: compiling kernels, once; later runs load them\n")
    took = re.search(r"\n   Note: compiling kernels took (?:(\d+)m )?([0-9.]+) ?s\n\Z", errors)  # minutes, under load
    rate = re.search(r"images in ([0-9.]+) s", said)
    assert float(rate[1]) < 60 * int(took[1] or 0) + float(took[2])
    assert again.endswith("compiled [0, 0]\n")
    assert "kernels" not in no_errors


def test_a_container_where_nothing_is(run, kernels, tmp_path):
    make_dataset(tmp_path / "COCO", SynthConfig(images=8))
    kept = shutil.copytree(kernels[0], tmp_path / "maskcache-kernels-12345")  # an earlier command has compiled them
    for path in (kept, *kept.rglob("*")):
        os.chown(path, 12345, 12345)
    kept.chmod(0o700)
    build = "preprocess --coco COCO --out cache --side 64 --select all"
    train = "train --cache cache --profile cpu --network unet --width 8 --epochs 1 --batch-size 2 --augment none --out"
    code, said = run("sh", "-c", f"{PROGRAM} {build}", TMPDIR="/nowhere")
    assert code == 0, said
    assert f"compiled kernels are kept in {kept}, since neither" in said
    assert "compiling" not in said
    # Kernels for which there is no room should not fill the folder.
    code, said = run("sh", "-c", f"{PROGRAM} {train} run && ! find small -type f | grep .", TMPDIR=tmp_path / "small")
    assert code == 0, said
    assert sum("Note: compiled" in line for line in said.splitlines()) == 1
    assert "Traceback" not in said
    assert "atplotlib" not in said
    assert (tmp_path / "run" / "checkpoints" / "best_model.pth").exists()
    assert not (tmp_path / "~").exists()


def test_a_user_without_a_home_gets_no_folder_called_tilde(run, tmp_path):
    code, said = run(sys.executable, "-c", "import preprocess.raster", TMPDIR="/nowhere")
    assert code == 0, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maskcache-kernels-12345", "small"]


def test_without_any_folder_for_temporary_files_training_says_what_to_set(run):
    code, said = run("sh", "-c", f"cd / && {PROGRAM} train --cache / --out /run")
    assert code == 1, said
    *notes, line = said.splitlines()
    assert all("Note: kernels are compiled again" in note for note in notes), said
    assert re.fullmatch(r"error: No usable temporary directory .*; set TMPDIR to a folder that can be written", line)


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), CppCompileError(["g++"], "No space left")])
def test_a_folder_that_is_too_small_for_the_compiler_is_told(reason):
    @click.group(cls=FriendlyGroup)
    def main():
        pass

    @main.command()
    def train():
        raise InductorError(reason, None)

    result = CliRunner().invoke(main, ["train"])
    assert result.exit_code == 1
    assert re.fullmatch(r"error: torch.compile: .*; set TMPDIR .*--no-compile\n", result.stderr)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_dockerfiles(name):
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line]
    stages = [number for number, (word, _) in enumerate(lines) if word == "FROM"]
    sources = [rest.split()[:-1] for word, rest in lines[: stages[-1]] if word == "COPY"]
    assert sources == [["."]]
    assert all(re.match(r"\S+:\d\S+( AS \w+)?$", lines[number][1]) for number in stages), "a base without a pinned tag"
    (install,) = (rest for word, rest in lines if word == "RUN" and "pip install" in rest)
    assert "-c /source/constraints.txt" in install
    final = lines[stages[-1] :]
    (entry,) = (rest for word, rest in final if word == "ENTRYPOINT")
    assert json.loads(entry) == ["maskcache"]
    users = [rest for word, rest in final if word == "USER"]
    assert users == ["maskcache"]
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    known = set(setup["options.extras_require"])
    assert set(re.search(r"\[?(?:EXTRAS=)?((?:\w+,)+\w+)", text)[1].split(",")) <= known


def test_docker_sends_all_that_a_wheel_is_made_of():
    """And nothing else: in a checkout there may be gigabytes of data."""
    first, *kept, last = (line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#")
    assert (first, last) == ("*", "**/__pycache__")
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    files = {"app.py", "cli.py", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert {line.removeprefix("!") for line in kept} == packages | files
    assert all((ROOT / name).exists() for name in files)
