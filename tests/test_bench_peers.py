"""The contest of loaders: its protocol, its rows, what happens to who cannot take part; no other library is needed."""

import sys
import time
from pathlib import Path

import pytest

from bench.config import BenchConfig, Setup
from bench.material import open_material
from bench.peers import environment
from bench.peers.contest import Contest, Plan, Result, Score
from bench.peers.contestant import Contestant, Group
from bench.peers.datasets import Datasets
from bench.peers.environment import OWN, Environments
from bench.peers.feed import Feed, Pump
from bench.peers.player import Answer, Introduction, PeerError, Player
from bench.peers.roster import roster
from bench.peers.rows import peer_rows
from bench.peers.usage import Usage, descendants, memory_bytes
from preprocess.synth import SynthConfig, make_dataset

READY = '{"library": "fake 1", "samples": 8, "missing": 0, "extra": 0, "mean": 0.0, "largest": 0}'
ANSWER = '{"samples": 100, "seconds": 0.5, "cpu": 0.4, "disk": 0, "memory": 5000000}'
POLITE = f"print('{READY}', flush=True)\nfor line in sys.stdin: print('{ANSWER}', flush=True)"


def play(program):
    return Player([sys.executable, "-c", f"import sys, time\n{program}"], {"PATH": "/usr/bin"})


def test_a_contestant_says_that_it_is_ready_and_answers_each_window():
    with play(POLITE) as player:
        assert player.wait_ready(20) == Introduction(library="fake 1", samples=8, missing=0, extra=0, mean=0, largest=0)
        for _ in range(3):
            assert player.measure(0.1, 20) == Answer(samples=100, seconds=0.5, cpu=0.4, disk=0, memory=5_000_000)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise RuntimeError('no such file')", "RuntimeError: no such file"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("print('hello', flush=True)", "answered 'hello', which is no JSON"),
        ("sys.exit(3)", "ended with status 3, without a word"),
    ],
)
def test_who_fails_at_once_is_told_by_its_last_words(program, reason):
    with play(program) as player, pytest.raises(PeerError) as raised:
        player.wait_ready(20)
    assert str(raised.value) == reason


def test_who_hangs_is_left_and_ended_with_all_that_it_started():
    program = "import subprocess\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)"
    with play(program) as player, pytest.raises(PeerError, match=r"did not answer within 1 s"):
        player.wait_ready(1)
    until = time.monotonic() + 5
    while descendants() and time.monotonic() < until:
        time.sleep(0.05)
    assert not any("sleep" in Path(f"/proc/{number}/cmdline").read_text() for number in descendants())


def test_who_fails_later_is_told_too():
    with play(f"print('{READY}', flush=True)\ninput()\nraise ValueError('worker died')") as player:
        player.wait_ready(20)
        with pytest.raises(PeerError, match="ValueError: worker died"):
            player.measure(0.1, 20)


def test_a_window_is_whole_batches_and_goes_on_where_the_last_ended():
    seen = []

    def epoch():
        for number in range(12):
            seen.append(number)
            time.sleep(0.002)
            yield 4

    pump = Pump(Feed(epoch, "fake", lead=2))
    window = pump.window(0.01)
    assert window.samples % 4 == 0
    assert window.seconds >= 0.01
    first = len(seen)
    pump.window(0.03)
    assert seen[:12] == list(range(12))
    assert seen[first] == first, "the second window did not begin an epoch of its own"
    with pytest.raises(ValueError, match="no more than 20 batches"):
        Pump(Feed(epoch, "fake", lead=20)).window(0.01)


def test_usage_counts_what_was_worked():
    before = Usage.now(descendants())
    sum(number * number for number in range(2_000_000))
    assert 0.01 < (Usage.now(descendants()) - before).cpu < 10
    assert memory_bytes() > 10 << 20


def score(name, seconds, **fields):
    contestant = Contestant(name=name, module="none", threads=2, **fields)
    answers = tuple(Answer(samples=100, seconds=s, cpu=0.4, disk=0, memory=5_000_000) for s in seconds)
    said = Introduction(library="fake", samples=100, missing=0, extra=0, mean=0.3, largest=4)
    return Score(contestant=contestant, introduction=said, answers=answers)


def test_rows_give_rates_beside_limits_and_ratios_run_by_run():
    scores = [
        score("limit", (0.5, 0.6, 0.7)),
        score("ours", (1.0, 1.2, 1.4), limit="limit"),
        score("theirs", (2.0, 2.4, 5.6), limit="limit", rival="ours", check="close"),
    ]
    group = Group("g", (*tuple(each.contestant for each in scores), Contestant(name="late", module="none", threads=2)))
    result = Result(group=group, scores={each.contestant.name: each for each in scores}, absent={"late": "no pip"})
    rows = {row.name: row for row in peer_rows([result, result], "side 8")}
    assert rows["ours"].value == pytest.approx(100 / 1.2)
    assert rows["ours"].ratio == pytest.approx(0.5)
    assert rows["ours"].limit_name == "limit"
    assert rows["ours: times theirs"].value == pytest.approx(2.0)
    assert rows["ours: times theirs"].p90 == pytest.approx(3.6)
    assert rows["theirs: CPU"].value == pytest.approx(4.0)
    assert rows["theirs: CPU"].unit == "s/1000"
    assert rows["theirs: memory"].value == 5
    assert "late is left out: no pip" in rows["limit"].note
    assert "pixels differ by 0.30 grey levels on average, 4 at most" in rows["theirs"].note
    assert "late" not in rows


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_everyone_in_the_roster_has_its_limit_and_its_rival(threads):
    groups = roster(threads, Path("coco"), 600)  # a group asserts that names are distinct and those named are there
    names = {contestant.name for group in groups for contestant in group.contestants}
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    for name in (f"native raw, {count}", f"resident JPEG light, {count}", f"FFCV raw, {count}", "FFCV JPEG, 1 thread"):
        assert name in names


def test_what_the_system_lacks_is_told_with_its_remedy_and_not_tried_twice(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(environment, "_has_package", lambda name: asked.append(name))
    environments = Environments(tmp_path)
    for _ in range(2):
        with pytest.raises(PeerError, match=r"building it needs opencv4: apt-get install libopencv-dev"):
            environments.python("ffcv")
    assert asked == ["opencv4"]
    assert environments.python(OWN) == Path(sys.executable)


def test_an_environment_that_pip_cannot_make_is_a_reason(tmp_path, monkeypatch):
    def fail(command, seconds):
        raise PeerError(f"{command[1]} failed: ERROR: no network")

    monkeypatch.setattr(environment, "_run", fail)
    with pytest.raises(PeerError, match="failed: ERROR: no network"):
        Environments(tmp_path).python("streams")


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    """On 64 records of drawn people; other libraries' environments cannot be made."""
    root = tmp_path_factory.mktemp("peers")
    make_dataset(root / "coco", SynthConfig(images=8, val_fraction=0, long_side=(96, 128), empty_share=0))
    setup = Setup.of(BenchConfig(coco=root / "coco", side=64, batch_size=2, threads=2, quick=True, seconds=0.1))
    plan = Plan(side=64, batch_size=2, samples=64, window=0.02, rounds=2, threads=2)
    with pytest.MonkeyPatch.context() as patch, open_material(setup) as material:
        patch.setattr(environment, "_has_package", lambda name: False)
        datasets = Datasets(root / "datasets", setup, material, plan.samples)
        datasets.prepare()
        yield Contest(plan, datasets, Environments(root / "environments")), setup, material


def test_ours_and_the_limits_take_part_and_who_cannot_is_told(contest):
    run, setup, material = contest
    group = roster(setup.threads, material.coco, 8)[0]
    chosen = (
        "copying the same bytes, 2 threads",
        "native raw, 2 threads",
        "resident raw, 2 threads",
        "FFCV raw, 2 threads",
    )
    result = run.run(Group("few", tuple(each for each in group.contestants if each.name in chosen)))
    assert set(result.scores) == set(chosen[:3])
    assert "building it needs" in result.absent["FFCV raw, 2 threads"]
    for each in result.scores.values():
        assert len(each.answers) == 2
        assert all(answer.samples > 0 and answer.seconds > 0 for answer in each.answers)
    ours = result.scores["native raw, 2 threads"].introduction
    assert (ours.samples, ours.missing, ours.extra, ours.largest) == (64, 0, 0, 0)
    rows = list(peer_rows([result], "tiny"))
    assert {row.unit for row in rows} == {"samples/s", "s/1000", "MB"}


def test_the_usual_way_of_augmenting_takes_part(contest):
    run, _setup, material = contest
    group = next(group for group in roster(2, material.coco, 8) if group.name == "raw, one by one")
    wanted = [
        each for each in group.contestants if "warpAffine" in each.name or each.name == "native raw light, 2 threads"
    ]
    wanted += [each for each in group.contestants if each.name == "copying the same bytes, 2 threads"]
    result = run.run(Group("light", tuple(wanted)))
    assert not result.absent
    (times,) = [row for row in peer_rows([result], "tiny") if row.unit == "times"]
    assert times.name.startswith("native raw light, 2 threads: times cv2.warpAffine")
