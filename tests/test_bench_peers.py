"""The peers suite without a peer: entries that answer, crash and hang; rows made of answers; and our own ones."""

from __future__ import annotations

import ast
import dataclasses
import json
import mmap
import os
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from itertools import count, islice, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bench.peers
from bench import ceilings
from bench.config import BenchConfig, Setup
from bench.material import Material
from bench.peers import prepare as environment_module
from bench.peers import runner as runner_module
from bench.peers.child import ContentError, Epoch, Pump, Window, check_epoch, descendants, memory_bytes, resolve, usage
from bench.peers.entries import entry_groups, limit, ours
from bench.peers.libraries.augmentation import warp
from bench.peers.prepare import Datasets, PeerError, find_python
from bench.peers.runner import Result, Runner, Score, Worker
from bench.peers.suite import peer_rows, peer_suite
from bench.peers.task import OWN, Entry, Samples, Task, unpack
from bench.report import BenchError
from bench.timing import measure_together
from cache.errors import CacheError
from loader.augment import LEVELS, draw_parameters
from loader.batch import LoaderConfig
from loader.loader import open_loader
from loader.order import epoch_order
from preprocess.build.folder import lock_folder
from preprocess.synth.dataset import SynthConfig, make_dataset

SIDE, BATCH, RECORDS, PHOTOS = 64, 2, 40, 6
MEBIBYTE = 1 << 20
FOLDER = Path(bench.peers.__file__).parent


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    make_dataset(root / "coco", SynthConfig(images=8, val_fraction=0, long_side=(96, 128), empty_share=0))
    return Setup.of(
        BenchConfig(
            coco=root / "coco", profile="cpu", side=SIDE, batch_size=BATCH, threads=2, photos=PHOTOS, quick=True,
            seconds=0.02, peers=True, peers_folder=root / "peers",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def material(setup, tmp_path_factory):
    return Material(setup, tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def datasets(setup, material, tmp_path_factory):
    made = Datasets(tmp_path_factory.mktemp("datasets"), setup, material, RECORDS)
    made.prepare()
    return made


def task_for(datasets, entry, **changes):
    common = {"data": str(datasets.folder), "side": SIDE, "batch_size": BATCH, "samples": RECORDS, "writers": 1}
    return Task(**{**vars(entry), **common, **changes})


# The clock


def counting_feed(batches, log):
    def epoch():
        log.append("epoch")
        yield from repeat(BATCH, batches)

    return epoch


def test_a_window_counts_whole_batches_after_those_before_the_clock_and_stops_it_at_the_end_of_an_epoch(monkeypatch):
    log, now = [], [0.0]
    monkeypatch.setattr("bench.peers.child.perf_counter", lambda: now[0])

    def epoch():
        log.append("epoch")
        now[0] += 50  # what begins an epoch costs nothing
        for _ in range(6):
            now[0] += 2
            yield BATCH

    found = Pump(epoch, lead=2).window(29)
    assert found.seconds == 30  # 15 batches, of the 4 of each epoch that come after two
    assert found.samples == 15 * BATCH
    assert len(log) == 4


def test_a_window_goes_on_where_the_last_one_ended():
    log = []
    pump = Pump(counting_feed(10**9, log))
    assert pump.window(0.001).samples
    assert pump.window(0.001).samples
    assert log == ["epoch"]


def test_an_epoch_without_batches_to_count_is_an_error():
    with pytest.raises(ValueError, match="no more than 3 batches; use more samples"):
        Pump(counting_feed(3, []), lead=3).window(0.01)


def test_an_iterator_that_has_ended_is_not_asked_again(monkeypatch):
    monkeypatch.setattr("bench.peers.child.perf_counter", count().__next__)  # else a millisecond has hundreds of epochs

    class Waits:
        left = 4

        def __iter__(self):
            return self

        def __next__(self):
            assert self.left >= 0, "as FFCV's, it would wait for ever"
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return BATCH

    assert Pump(Waits, lead=1).window(9).samples


# What is used


def test_time_of_children_counts_while_they_live_and_afterwards(start_child):
    burn = "import time\nwhile time.process_time() < 0.1: pass\n"
    child = start_child([sys.executable, "-c", f"{burn}print(flush=True); input()"], stdin=subprocess.PIPE)
    before = usage([])[0]
    child.stdout.readline()
    assert child.pid in descendants()
    living = usage([child.pid])[0] - before
    child.communicate("\n")
    assert living >= 0.08
    assert usage([])[0] - before >= 0.08


def test_memory_counts_what_is_our_own_and_not_files(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64 * MEBIBYTE))
    before = memory_bytes()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) == 0
        assert memory_bytes() - before < 16 * MEBIBYTE
    # Mapped, for an allocator might hand out memory that it had all along.
    with mmap.mmap(-1, 64 * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert 48 * MEBIBYTE < memory_bytes() - before < 96 * MEBIBYTE


# What is delivered


def batches_of(samples, order, *, spoil=None):
    for first in range(0, len(order) - BATCH + 1, BATCH):
        numbers = order[first : first + BATCH]
        image = np.stack([samples.image(number) for number in numbers])
        planes = np.stack([unpack(samples.bits(number), SIDE) for number in numbers])
        if spoil:
            spoil(image, planes)
        yield image.transpose(0, 3, 1, 2) if first % 4 else image, planes[:, 0], planes[:, 1, None]


def checked(datasets, order=range(RECORDS), *, spoil=None, **changes):
    samples = Samples(datasets.folder, RECORDS)
    task = task_for(datasets, ours("native", "raw", 1), **changes)
    return check_epoch(lambda: batches_of(samples, list(order), spoil=spoil), task)


def test_an_epoch_is_compared_whatever_the_order_of_samples_and_axes(datasets):
    found = checked(datasets, np.random.default_rng(0).permutation(RECORDS).tolist())
    assert (found.samples, found.missing, found.extra, found.largest) == (RECORDS, 0, 0, 0)


def test_what_comes_twice_or_not_at_all_is_counted(datasets):
    found = checked(datasets, [*range(RECORDS - 2), 0, 1])
    assert (found.samples, found.missing, found.extra) == (RECORDS, 2, 2)
    assert checked(datasets, range(RECORDS - 4)).missing == 4


def test_a_wrong_pixel_or_plane_is_an_error(datasets):
    def pixel(image, _):
        image[0, 0, 0, 0] ^= 1

    def plane(_, planes):
        planes[0, 0, 0, 0] ^= 1

    def value(_, planes):
        planes[0, 0] = 255

    with pytest.raises(ContentError, match="off by"):
        checked(datasets, spoil=pixel)
    with pytest.raises(ContentError, match="planes that no record has"):
        checked(datasets, spoil=plane)
    with pytest.raises(ContentError, match="the value 255, not 0 and 1"):
        checked(datasets, spoil=value)
    with pytest.raises(ContentError, match="a batch has shapes"):
        checked(datasets, batch_size=3)


def test_what_is_to_be_close_may_be_off_a_little_and_says_how_much(datasets):
    def slightly(image, _):
        image += np.where(image < 255, 1, 0).astype(np.uint8)

    def much(image, _):
        image[:] = 255 - image

    found = checked(datasets, spoil=slightly, check="close")
    assert found.largest == 1
    assert 0 < found.mean <= 1
    with pytest.raises(ContentError, match="grey levels"):
        checked(datasets, spoil=much, check="close")


# Processes


READY = {"samples": 40, "missing": 0, "extra": 0, "mean": 0.0, "largest": 0}
ANSWER = {"samples": 100, "seconds": 0.5, "cpu": 0.2, "disk": 0, "memory": 5_000_000}

FAKE = f"""
import json, sys, time
command, module = sys.argv[1], json.loads(sys.argv[2])["opener"]
if module == "absent":
    import a_library_that_is_not_there
if module == "crash":
    class OddError(Exception): pass
    OddError.__module__ = "some.where"
    try:
        raise OddError("it broke")
    finally:
        import atexit
        atexit.register(lambda: print("more after the traceback", file=sys.stderr))
if module == "hang":
    time.sleep(60)
if command == "write":
    open(sys.argv[3] + "/log", "a").write("written")
    sys.exit(module == "unwritten")
print({json.dumps(READY)!r} if module != "mumble" else "hello", flush=True)
for number, line in enumerate(sys.stdin):
    if module == "faint" and number == 1:
        sys.exit("cannot go on")
    print({json.dumps(ANSWER)!r}, flush=True)
"""


@pytest.fixture
def fakes(monkeypatch, tmp_path, setup):
    """A runner whose entries are fakes, by the name of their module."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(runner_module, "_LAUNCH", script)
    monkeypatch.setattr(runner_module, "READY_SECONDS", 3.0)
    monkeypatch.setattr(runner_module, "CLOSING_SECONDS", 1.0)
    kept = SimpleNamespace(folder=tmp_path / "data", samples=RECORDS)
    kept.folder.mkdir()
    kept.make = lambda name, write: Datasets.make(kept, name, write)
    return Runner(dataclasses.replace(setup, rounds=2), kept, tmp_path / "environments")


def fake(module, **fields):
    return Entry(name=module, opener=module, threads=1, **fields)


def test_whoever_fails_is_left_out_with_the_reason_and_the_others_go_on(fakes):
    others = set(descendants())  # that earlier tests' libraries keep
    result = fakes.run("fakes", list(map(fake, ("good", "absent", "crash", "hang", "mumble", "faint"))))
    assert result.scores.keys() == {"good"}
    assert result.scores["good"].rates.values == (200.0, 200.0)
    assert result.absent == {
        "absent": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
        "crash": "OddError: it broke",
        "hang": "did not answer within 3 s",
        "mumble": "answered 'hello', which is no JSON",
        "faint": "cannot go on",
    }
    assert set(descendants()) <= others, "nobody is left running"


def test_a_dataset_is_written_once_and_what_failed_is_not_tried_again(fakes, caplog):
    entries = [fake("good", writer="good", dataset="kept"), fake("unwritten", writer="unwritten", dataset="not")]
    with caplog.at_level("INFO", logger="bench"):
        fakes.prepare(entries)
        result = fakes.run("fakes", entries)
    assert result.scores.keys() == {"good"}
    assert result.absent["unwritten"].startswith("its dataset could not be written: ended with status 1")
    assert [record.getMessage() for record in caplog.records].count("writing the dataset kept") == 1
    assert [record.getMessage() for record in caplog.records].count("writing the dataset not") == 1


def test_what_a_process_started_ends_with_it(monkeypatch):
    monkeypatch.setattr(runner_module, "CLOSING_SECONDS", 0.1)
    others = set(descendants())
    program = f"import os, time\nif os.fork(): print({json.dumps(READY)!r}, flush=True)\ntime.sleep(60)"
    with closing(Worker([sys.executable, "-c", program], os.environ)) as worker:
        assert worker.wait_ready(10).samples == 40
        assert len(set(descendants()) - others) == 2
    assert set(descendants()) <= others
    worker.close()


# Rows


def scored(entry, samples, cpu=0.5, memory=10**8, **found):
    windows = [Window(samples=n, seconds=1.0, cpu=cpu, disk=0, memory=memory + n) for n in samples]
    return Score(entry, Epoch(**{**READY, **found}), windows)


def test_rows_are_rates_beside_their_limits_ratios_by_the_round_and_what_was_used():
    copying, native = limit("raw", 2), ours("native", "raw", 2)
    common = {"opener": "fake", "threads": 2, "compare_to": native.name, "limit": copying.name}
    other = Entry(name="other", **common)
    close = Entry(name="close", note="a remark", check="close", **common)
    scores = {
        copying.name: scored(copying, (4000, 2000, 1000), found={"copying": "streamed 4"}),
        native.name: scored(native, (3000, 1500, 750)),
        "other": scored(other, (1000, 750, 250), missing=3, extra=1, found={"spdl": "0.8", "Python": "3.13"}),
        "close": scored(close, (100, 100, 100), mean=0.5, largest=9),
    }
    results = [
        Result(scores, absent={"lost": "it is gone"}),
        Result({native.name: scored(native, (1, 1, 1))}, absent={copying.name: "ill"}),
    ]
    rows = list(peer_rows(results, "side 64"))
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "names are distinct"
    assert {row.suite for row in rows} == {"loader"}
    assert {row.name for row in rows if row.ours and row.unit != "times"} == {
        f"native raw, 2 threads{what}" for what in ("", ": CPU", ": memory")
    }
    assert found["native raw, 2 threads"].value == 1500, "from the group where it stands first"
    assert found["native raw, 2 threads"].ratio == 0.75
    assert found["native raw, 2 threads"].limit_name == "copying the same bytes, 2 threads"
    assert found["copying the same bytes, 2 threads"].limit is None
    times = found["native raw, 2 threads: times other"]
    assert (times.value, times.unit, times.runs) == (3.0, "times", 3)
    assert (times.p10, times.p90) == pytest.approx((2.2, 3.0))
    cpu, memory = found["other: CPU"], found["other: memory"]
    assert (cpu.value, cpu.unit) == (pytest.approx(1000 * 0.5 / 750), "s/1000")
    assert (memory.value, memory.unit) == (pytest.approx(100.001), "MB")
    assert "lost is left out: it is gone" in rows[0].note
    assert "copying the same bytes, 2 threads is left out: ill" in rows[0].note
    assert rows[0].note.endswith("; stores past the caches, 4 threads")
    assert found["other"].note == "spdl 0.8, Python 3.13; an epoch lacks 3 records and has 1 twice"
    assert found["close"].note == "a remark; pixels differ by 0.50 grey levels on average, 9 at most"


# Environments


def test_a_missing_package_of_the_system_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(environment_module, "_has_package", lambda name: False)
    with pytest.raises(PeerError, match="needs opencv4: apt-get install libopencv-dev libturbojpeg0-dev pkg-config"):
        find_python(tmp_path, "ffcv")


def test_an_environment_is_made_once_and_one_that_failed_is_not_tried_again(monkeypatch, fakes, tmp_path):
    for name in ("good", "bad"):
        (tmp_path / f"{name}.txt").write_text("")
        (tmp_path / f"{name}-alone.txt").write_text("")
    monkeypatch.setattr(environment_module, "_REQUIREMENTS", tmp_path)
    ran = []

    def run(command, seconds):
        ran.append(command[1:4])
        if str(command[-1]).endswith("bad.txt"):
            raise PeerError("pip failed")

    monkeypatch.setattr(environment_module, "_run", run)
    root = tmp_path / "environments"
    folder = root / "good"
    monkeypatch.setattr(environment_module.shutil, "rmtree", lambda *_, **__: folder.mkdir(parents=True, exist_ok=True))
    assert find_python(root, OWN) == Path(sys.executable)
    assert find_python(root, "good") == folder / "bin" / "python"
    assert len(ran) == 3, "venv, and pip twice"
    assert find_python(root, "good")
    assert len(ran) == 3, "it was there"
    bad = [fake("good", environment="bad"), fake("crash", environment="bad")]
    assert fakes.run("bad", bad).absent == {"good": "pip failed", "crash": "pip failed"}
    assert len(ran) == 5
    (tmp_path / "good.txt").write_text("# other requirements")
    find_python(root, "good")
    assert len(ran) == 8


def test_a_command_that_fails_says_its_first_error_and_one_that_lasts_is_ended():
    with pytest.raises(PeerError, match="ERROR: no such thing"):
        environment_module._run([sys.executable, "-c", "print('fine'); exit('ERROR: no such thing')"], 10)
    with pytest.raises(PeerError, match="was not done after 0 s"):
        environment_module._run([sys.executable, "-c", "import time; time.sleep(60)"], 0.1)


def test_an_environment_of_another_python_needs_one_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setattr(environment_module, "_run", lambda command, seconds: ran.append(command[0]))
    ran = []
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(PeerError, match=r"needs one of python3\.14t, python3\.13t on the PATH"):
        find_python(tmp_path, "free-threaded")
    python = tmp_path / "bin" / "python3.13t"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setattr(environment_module.shutil, "rmtree", lambda folder, **_: folder.mkdir())
    made = find_python(tmp_path, "free-threaded")
    assert ran == [str(python), str(made)], "a venv, and pip once, as nothing is installed alone"


def test_versions_of_an_entry_are_those_that_its_environment_installs():
    for group in entry_groups(2).values():
        for entry in group:
            files = FOLDER.glob(f"requirements/{entry.environment}*.txt")
            if entry.environment == OWN:
                files = [Path(__file__).parents[1] / "constraints.txt"]
            pinned = {line.partition("==")[0] for path in files for line in path.read_text().splitlines()}
            assert entry.environment == OWN or entry.packages, entry
            assert set(entry.packages) <= pinned, entry


def test_all_requirements_are_pinned():
    for path in (FOLDER / "requirements").iterdir():
        lines = path.read_text().splitlines()
        assert all(line.startswith("#") or line.count("==") == 1 for line in lines), path


# The entries


def library_functions():
    """The openers and writers, as entries name them."""
    for path in (FOLDER / "libraries").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith(("open_", "write_")):
                yield f"{path.stem}:{node.name}"


def test_entries_name_functions_and_environments_that_are_there_and_groups_hold_what_they_are_compared_with():
    environments = {OWN} | {path.stem.removesuffix("-alone") for path in (FOLDER / "requirements").iterdir()}
    for threads in (1, 2, 16):
        functions = set()
        for group in entry_groups(threads).values():
            names = {entry.name for entry in group}
            assert len(names) == len(group)
            for entry in group:
                assert entry.environment in environments, entry
                assert {entry.limit, entry.compare_to} <= names | {""}, entry
                assert bool(entry.writer) == bool(entry.dataset), entry
                functions |= {entry.opener, entry.writer} - {""}
        assert functions == set(library_functions())


def test_what_runs_in_other_environments_imports_nothing_of_ours_but_what_runs_there():
    foreign = [FOLDER / f"{name}.py" for name in ("launch", "child", "task")]
    foreign += [path for path in (FOLDER / "libraries").glob("*.py") if path.stem != "own"]
    allowed = {".".join(["bench.peers", *path.relative_to(FOLDER).with_suffix("").parts]) for path in foreign}
    ours_ = {"cache", "loader", "preprocess", "model", "train", "console", "cli", "bench", "predict"}
    for path in foreign:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.partition(".")[0] not in ours_ or name in allowed, f"{path.name} imports {name}"


# Datasets and entries of our own


def test_datasets_are_made_once_of_the_photos_in_turn(datasets, setup, material, monkeypatch):
    samples = Samples(datasets.folder, RECORDS)
    assert (samples.photos, samples.side, len(samples)) == (PHOTOS, SIDE, RECORDS)
    np.testing.assert_array_equal(samples.image(PHOTOS + 1), samples.image(1))
    assert samples.encoded(1, "jpeg") == samples.jpeg(1 + 2 * PHOTOS)
    again = Datasets(datasets.folder.parent, setup, material, RECORDS)
    assert again.folder == datasets.folder
    monkeypatch.setattr(again, "_write_samples", lambda out: pytest.fail("they are there"))
    again.prepare()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr("bench.peers.prepare.SPACE", 10**6)
    with pytest.raises(BenchError, match=r"needs .* GB, 0\.0 GB are free; delete"):
        again.prepare()


def own_entries():
    found = {entry.name: entry for group in entry_groups(2).values() for entry in group}
    return [entry for entry in found.values() if entry.environment == OWN]


def test_every_entry_of_our_own_delivers_the_samples(datasets, monkeypatch):
    monkeypatch.setattr(ceilings, "measure_together", lambda works, **_: measure_together(works, seconds=0, rounds=1))
    taken = 0
    for entry in own_entries():
        if "dali" in entry.name.lower() and not (find_spec("nvidia") and find_spec("nvidia.dali")):
            continue
        task = task_for(datasets, entry)
        if entry.dataset:
            datasets.make(entry.dataset, partial(resolve(entry.writer), task))
        with ExitStack() as stack:
            feed = resolve(entry.opener)(task, stack)
            found = check_epoch(feed, task)
            if entry.opener != "own:open_limit":
                assert found.samples == RECORDS, entry.name
                assert found.missing == found.extra == 0, entry.name
            window = Pump(feed).window(0.01)
            assert window.samples > 0, entry.name
            assert window.cpu > 0 or entry.threads != 1, entry.name
            taken += 1
    assert taken >= 12


def test_opencv_augments_as_our_loaders_do(datasets):
    """The other does the same work: planes agree but for pixels on an edge, images within resampling tolerance."""
    config = LoaderConfig(
        cache=datasets.folder / "cache-raw", batch_size=BATCH, backend="native", augment=LEVELS["light"], threads=1
    )
    drawn = draw_parameters(LEVELS["light"], SIDE, config.seed, 0, np.arange(RECORDS))
    samples = Samples(datasets.folder, RECORDS)
    order = epoch_order(RECORDS, config.seed, 0)
    with open_loader(config) as loader:
        for number, batch in enumerate(islice(loader, 8)):
            for row, sample in enumerate(order[number * BATCH :][:BATCH].tolist()):
                image, (person, ignore) = samples.image(sample), unpack(samples.bits(sample), SIDE)
                made = np.empty_like(image), np.empty_like(person), np.empty_like(ignore)
                warp(image, person, ignore, drawn.matrix[sample], drawn.colour[sample], out=made)
                for plane, target in zip(made[1:], (batch.person, batch.ignore), strict=True):
                    assert (plane == target[row, 0].numpy()).mean() > 0.98
                off = np.abs(made[0].astype(int) - batch.image[row].permute(1, 2, 0).numpy())
                assert off.mean() < 2
                assert np.quantile(off, 0.9) <= 4


def test_the_suite_runs_entries_in_processes_of_their_own(setup, material, monkeypatch, caplog):
    small = [limit("raw", 1), ours("native", "raw", 1), Entry(name="gone", opener="no_such_module:open", threads=1)]
    monkeypatch.setattr("bench.peers.suite.entry_groups", lambda *_: {"small": small})
    monkeypatch.setattr("bench.peers.suite.QUICK_SAMPLES", RECORDS)
    with caplog.at_level("INFO", logger="bench"):
        rows = {row.name: row for row in peer_suite(setup, material)}
    assert {"copying the same bytes, 1 thread", "native raw, 1 thread", "native raw, 1 thread: CPU"} <= rows.keys()
    assert rows["native raw, 1 thread"].runs == 3
    assert rows["native raw, 1 thread"].setup == "side 64, batch 2, 40 records of 6 photos, page cache warm"
    assert 20 < rows["native raw, 1 thread: memory"].value < 2000
    note = next(iter(rows.values())).note
    assert note.startswith("gone is left out: ModuleNotFoundError: No module named 'bench.peers.libraries.no_such")
    assert "small: round 3 of 3" in caplog.text


def test_two_runs_do_not_share_a_folder(setup, material):
    setup.config.peers_folder.mkdir(exist_ok=True)
    with lock_folder(setup.config.peers_folder), pytest.raises(CacheError, match="by process"):
        next(peer_suite(setup, material))
