"""What `make gpu` runs, and that it keeps what it has. Nothing is measured."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.census import take_census
from bench.gpu import Part, figures, main, plan, run
from bench.hardware import Machine
from bench.report import BenchError, BenchReport, Row, write_json
from model.network import NetworkConfig

ROOT = Path(__file__).resolve().parents[1]
HANGS = "import os, time; print('hanging', os.getpid()); time.sleep(300)"
MACHINE = Machine(
    **{"processor": "some", "cores": 2, "features": (), "memory_total": 8 << 30, "memory_free": 4 << 30},
    **{"system": "Linux", "python": "3.12", "versions": {}, "gpus": (), "driver": None, "dali_devices": None},
    **{"compiler": None, "disk": None},
)
PARTS = [
    "machine",
    "compiler",
    "preprocess",
    "tests",
    "train",
    "unet",
    "profile",
    "resunet",
    "loop",
    "unet, small batch",
]


@pytest.mark.parametrize(("rehearse", "minutes"), [(False, 8), (True, 5)])
def test_each_part_has_a_limit_and_all_have_one(rehearse, minutes, monkeypatch):
    monkeypatch.chdir(ROOT)
    parts = plan(Path("COCO"), Path("out"), Path("work"), rehearse=rehearse)
    assert [part.name for part in parts] == [*PARTS, "resunet, small batch"]
    assert all(part.limit > 0 for part in parts)
    assert sum(part.limit for part in parts) <= 60 * minutes
    words = {part.name: part.arguments for part in parts}
    suites = {
        name: [given[n + 1] for n, word in enumerate(given) if word == "--suite"] for name, given in words.items()
    }
    assert suites["unet"] == ["machine", "model"]
    assert suites["resunet"] == suites["unet, small batch"] == suites["resunet, small batch"] == ["model"]
    assert suites["loop"] == ["epoch", "loader", "stages"]
    reports = {
        words[n + 1] for part in parts for words in [part.arguments] for n, w in enumerate(words) if w == "--json"
    }
    assert len(reports) + len({"log.txt", "profile.txt", "summary.txt"}) <= 8
    tests = [word for word in words["tests"] if word.endswith(".py")]
    assert tests, "none is marked"
    assert set(tests) == {f"tests/{p.name}" for p in Path("tests").glob("*.py") if "pytest.mark.gpu" in p.read_text()}
    kinds = [next((kind for kind in ("train", "predict", "loader") if kind in name), "others") for name in tests]
    assert kinds == sorted(kinds, key=["train", "predict", "loader", "others"].index)


def test_what_a_part_prints_is_kept_and_how_it_ended(tmp_path):
    line = run(Part("small", 60, ["-c", "print('said'); raise SystemExit(3)"]), tmp_path / "log.txt")
    assert re.fullmatch(r"small +\d+\.\d s of  60: exit status 3; said", line)
    line = run(Part("long", 60, ["-c", "print('more')"]), tmp_path / "log.txt")
    assert line.endswith("exit status 0; more")
    assert re.search("=== small: .*\nsaid\n+=== long: .*\nmore\n", (tmp_path / "log.txt").read_text())


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(tmp_path, monkeypatch):
    begun, real = tmp_path / "begun", subprocess.Popen.wait

    def wait(self, timeout=None):
        """As if the limit came just after the part has begun."""
        if timeout is None:
            return real(self)
        while self.poll() is None and not (begun.exists() and begun.read_text()):
            time.sleep(0.05)
        raise subprocess.TimeoutExpired("", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    program = f"""
import os, time
print("said")
child = os.fork()
if child:
    open({str(begun)!r}, "w").write(str(child))
time.sleep(300)
"""
    line = run(Part("hangs", 20, ["-c", program]), tmp_path / "log.txt")
    assert line.endswith("s of  20: stopped at its limit; said")
    assert "\nsaid\n" in (tmp_path / "log.txt").read_text()
    assert is_dead(int(begun.read_text()))


def is_dead(process):
    """Whether it has ended; nobody may have asked for its exit status yet."""
    for _ in range(200):  # a kill takes effect soon
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_run_that_is_stopped_has_a_summary_of_what_it_came_to(tmp_path, start_child):
    program = f"""
import sys
import bench.gpu as gpu
gpu.plan = lambda *_, **__: [gpu.Part("quick", 60, ["-c", "print(1)"]), gpu.Part("hangs", 300, ["-c", "{HANGS}"])]
sys.argv = ["gpu", "--coco", "c", "--out", {str(tmp_path / "out")!r}]
gpu.main()
"""
    child = start_child([sys.executable, "-c", program], cwd=ROOT)
    log = tmp_path / "out/log.txt"
    while child.poll() is None and not (log.exists() and re.search(r"hanging \d", log.read_text())):
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    child.communicate()
    assert child.returncode == 1
    lines = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [re.sub(r" +[\d.]+ s of  60", "", line) for line in lines] == [
        "quick: exit status 0; 1",
        f"{'hangs':21}not finished",
    ]
    hanging = int(re.search(r"hanging (\d+)", log.read_text())[1])
    assert is_dead(hanging)


def test_figures_of_another_run_are_not_mixed_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "bench-unet-2.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["gpu", "--coco", "COCO", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "is not empty; choose another --out" in capsys.readouterr().err


def test_the_summary_has_figures_failures_and_the_estimated_memory(tmp_path):
    config = {
        **{"network": {"name": "unet", "width": 8}, "side": 64, "batch_size": 2, "precision": "fp32"},
        **{"compile": False, "cudnn_benchmark": True, "tf32": False, "deterministic": False, "device": "cuda"},
    }
    rows = (
        Row.measured(12.5, suite="model", name="MFU (profile)", setup="", unit="%", limit=100.0, limit_name="the peak"),
        Row.failed("stages", BenchError("the reason")),
        Row.measured(77.0, suite="epoch", name="peak memory", setup="", unit="MB"),
        Row(suite="tiers", name="guessed", setup="", value=1.0, unit="min", kind="estimated"),
    )
    write_json(tmp_path / "bench-unet-2.json", BenchReport(environment=MACHINE, config=config, rows=rows))
    found = list(figures(tmp_path))
    switches = "compile False, cudnn_benchmark True, tf32 False, deterministic False"
    assert found[0] == f"\nbench-unet-2: unet 8, 64, 2, fp32, {switches}"
    assert [line.split() for line in found[1:4]] == [
        ["model", "MFU", "(profile)", "12.5", "%", "12%", "of", "the", "peak"],
        ["stages", "failed", "the", "reason"],
        ["epoch", "peak", "memory", "77", "MB"],
    ]
    counted = take_census(NetworkConfig(name="unet", width=8), side=64, batch_size=2, precision="fp32").memory
    assert float(found[4].split()[-2]) == pytest.approx(counted / 1e6, rel=1e-3)
    assert len(found) == 5
