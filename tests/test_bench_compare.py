"""Two reports beside each other: which way is better, what the spread allows to say, and what stands in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.compare import BETWEEN_RUNS, HIGHER_UNITS, LOWER_UNITS, MOST_BETWEEN_RUNS, Pair, better_of, compare_files
from bench.hardware import Gpu, Machine
from bench.report import BenchError, BenchReport, Row, write_json
from bench.suites.epoch import WAIT
from bench.timing import Rates
from cli import main
from console.compare import conclusions, notes, show_comparison

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MACHINE = Machine(
    processor="Some Processor",
    cores=2,
    features=("avx2",),
    memory_total=8 << 30,
    memory_free=4 << 30,
    system="Linux",
    python="3.11.0",
    versions={"torch": "2.13.0", "numba": "0.68.1"},
    gpus=(),
    driver=None,
    dali_devices=None,
    compiler=None,
    disk=None,
)
CONFIG = {
    "coco": "data/coco",
    "network": {"name": "resunet", "width": 32},
    "precision": "bf16",
    "side": 256,
    "batch_size": 4,
    "torch_threads": 2,
    "rounds": 9,
    "seconds": 2.0,
    "notes": [],
}


def row(*values, unit="images/s", name="what", suite="model", setup="side 256", **fields):
    return Row.measured(Rates(values), suite=suite, name=name, setup=setup, unit=unit, **fields)


def about(value, spread=0.05, **fields):
    """A row of several runs."""
    return row(value * (1 - spread), value, value * (1 + spread), **fields)


def write(path, *rows, environment=MACHINE, config=CONFIG):
    write_json(path, BenchReport(environment=environment, config=config, rows=rows))
    return path


@pytest.fixture
def compared(tmp_path):
    """Compare rows that have been to a file and back."""

    def compare(before, after, **limit):
        return compare_files(
            write(tmp_path / "a.json", *before), write(tmp_path / "b.json", *after), **{"max_regression": None, **limit}
        )

    return compare


def pair_of(before, after, limit=None):
    return Pair.of(before, after, max_regression=limit)


def printed(comparison):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        show_comparison(comparison)
    return text.getvalue()


def run(*arguments, code=0):
    result = CliRunner(catch_exceptions=False).invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


# ------------------------------------------------------------------------------------------------- which way


@pytest.mark.parametrize("unit", sorted(HIGHER_UNITS))
def test_more_is_better(unit):
    assert better_of(row(1.0, unit=unit)) == "higher"
    assert pair_of(about(10.0, unit=unit), about(20.0, unit=unit)).verdict == "faster"
    assert pair_of(about(20.0, unit=unit), about(10.0, unit=unit)).verdict == "slower"


@pytest.mark.parametrize("unit", sorted(LOWER_UNITS))
def test_less_is_better(unit):
    assert better_of(row(1.0, unit=unit)) == "lower"
    assert pair_of(about(10.0, unit=unit), about(20.0, unit=unit)).verdict == "slower"
    assert pair_of(about(20.0, unit=unit), about(10.0, unit=unit)).verdict == "faster"


def test_some_names_turn_their_unit_round():
    assert better_of(row(1.0, unit="%", name=WAIT)) == "lower"
    assert better_of(row(1.0, unit="%", name="model FLOP utilisation")) == "higher"
    assert better_of(row(1.0, unit="images/s", name=WAIT)) == "higher"


def test_every_unit_that_is_measured_has_a_direction():
    sources = [path.read_text() for path in (ROOT / "bench").rglob("*.py")]
    units = {unit for source in sources for unit in re.findall(r'(?:unit=|"unit": )"([^"]+)"', source)}
    assert units >= {"GB/s", "annotations/s", "s/1000", "MB", "times", "%", "min"}
    assert units <= HIGHER_UNITS | LOWER_UNITS
    stored = [found for path in RESULTS.glob("*.json") for found in BenchReport.read(path).rows]
    assert all(better_of(found) for found in stored if found.kind == "measured")


def test_a_unit_that_nobody_knows_is_left_out_and_said(compared):
    rows = [about(10.0), about(5.0, name="energy", unit="J")]
    found = compared(rows, rows)
    assert [pair.name for pair in found.pairs] == ["what"]
    assert found.unknown_units == ("J",)
    assert "rows in J are left out" in notes(found)[0]


# ------------------------------------------------------------------------------------------------- the spread


def test_the_spread_is_as_wide_as_both_rows_allow():
    before = Row(suite="s", name="n", setup="", value=100.0, unit="GB/s", p10=80.0, p90=110.0, runs=9)
    after = Row(suite="s", name="n", setup="", value=90.0, unit="GB/s", p10=88.0, p90=96.0, runs=9)
    found = pair_of(before, after)
    assert (found.ratio, found.low, found.high) == (0.9, 88 / 110, 96 / 80)
    assert (found.worse, found.verdict) == (10.0, "same")


def test_a_steady_row_that_moved_no_farther_than_runs_differ_is_the_same():
    before, small = about(100.0, spread=0.001), 1 - BETWEEN_RUNS
    assert pair_of(before, about(100 * (small + 0.01), spread=0.001), 0.0).verdict == "same"
    assert pair_of(before, about(100 * (small - 0.01), spread=0.001), 0.0).verdict == "slower"
    assert pair_of(before, about(100 * (1 + BETWEEN_RUNS + 0.01), spread=0.001)).verdict == "faster"


@pytest.mark.parametrize(
    "change", [{"p10": None, "p90": None}, {"p10": 90.0, "p90": 90.0, "runs": 1}], ids=["no runs", "one run"]
)
def test_what_ran_once_has_no_spread(change):
    before = Row(suite="s", name="n", setup="", value=100.0, unit="MB", p10=80.0, p90=140.0, runs=9)
    after = dataclasses.replace(before, value=120.0, **change)
    for found in (pair_of(before, after, 10.0), pair_of(dataclasses.replace(before, **change), after, 10.0)):
        assert (found.low, found.high, found.verdict, found.regression) == (None, None, "slower", True)


@pytest.mark.parametrize(
    ("unit", "small", "large"),
    [("pixels", 1009.0, 1011.0), ("MB", 1049.0, 1051.0), ("s", 1499.0, 1501.0)],
    ids=["counted", "memory", "the time of something first"],
)
def test_without_a_spread_the_unit_tells_what_is_nothing(unit, small, large):
    before = row(1000.0, unit=unit)
    assert pair_of(before, row(small, unit=unit), 0.0).verdict == "same"
    assert not pair_of(before, row(small, unit=unit), 0.0).regression
    assert pair_of(before, row(large, unit=unit), 0.0).regression


def test_first_times_differ_more_than_their_spread():
    before = about(1.0, spread=0.001, unit="s")
    assert pair_of(before, about(1.45, spread=0.001, unit="s")).verdict == "same"
    assert pair_of(before, about(1.55, spread=0.001, unit="s")).verdict == "slower"


@pytest.mark.parametrize(
    ("after", "limit", "verdict", "regression"),
    [
        (about(80.0), 10.0, "slower", True),
        (about(80.0), 30.0, "slower", False),
        (about(80.0), None, "slower", False),
        (about(80.0, spread=0.5), 10.0, "same", False),
        (about(120.0), 0.0, "faster", False),
        (row(80.0), 20.0, "slower", False),
        (row(79.9), 20.0, "slower", True),
    ],
    ids=["beyond", "within the limit", "no limit", "within the spread", "better", "at the limit", "just beyond it"],
)
def test_a_regression_is_beyond_the_limit_and_clear_of_the_spread(after, limit, verdict, regression):
    found = pair_of(about(100.0), after, limit)
    assert (found.verdict, found.regression) == (verdict, regression)


def test_the_loss_is_in_percent_of_what_there_was():
    assert pair_of(row(100.0), row(50.0)).worse == 50
    assert pair_of(row(100.0, unit="s"), row(200.0, unit="s")).worse == 100
    assert pair_of(row(100.0, unit="s"), row(75.0, unit="s")).worse == -25
    assert math.copysign(1, pair_of(row(5.0), row(5.0)).worse) == 1  # no "-0.0" in the JSON


# ------------------------------------------------------------------------------------------------- the machine


def test_what_is_not_ours_tells_how_much_two_runs_differ(compared):
    before = [about(100.0, spread=0.0), about(50.0, name="theirs", spread=0.0, ours=False), about(9.0, name="steady")]
    after = [about(88.0, spread=0.0), about(43.0, name="theirs", spread=0.0, ours=False), about(9.0, name="steady")]
    found = compared(before, after, max_regression=5.0)
    assert (found.margin, found.margin_of) == (pytest.approx(50 / 43 - 1), "theirs")
    assert [pair.verdict for pair in found.pairs] == ["same"] * 3
    assert [pair.ours for pair in found.pairs] == [True, False, True]
    said = "theirs, which is not ours, moved by 16 % beyond its spread"
    assert said in notes(found)[0]
    assert said in " ".join(printed(found).split())
    slower = compared(before, [about(85.0, spread=0.0), *after[1:]], max_regression=5.0)
    assert [pair.name for pair in slower.regressions] == ["what"]


def test_what_is_not_ours_and_moved_within_its_spread_tells_nothing(compared):
    before = [about(100.0, spread=0.0), about(50.0, name="theirs", spread=0.1, ours=False)]
    after = [about(88.0, spread=0.0), about(43.0, name="theirs", spread=0.1, ours=False)]
    found = compared(before, after)
    assert (found.margin, found.margin_of, notes(found)) == (BETWEEN_RUNS, "", [])
    assert found.pairs[0].verdict == "slower"


def test_a_machine_that_was_far_slower_does_not_hide_everything(compared):
    before = [about(100.0, spread=0.0), about(50.0, name="disk", spread=0.0, ours=False)]
    found = compared(before, [about(70.0, spread=0.0), about(10.0, name="disk", spread=0.0, ours=False)])
    assert (found.margin, found.margin_of) == (MOST_BETWEEN_RUNS, "disk")
    assert [pair.verdict for pair in found.pairs] == ["slower", "slower"]


def test_on_another_machine_what_is_not_ours_may_differ_as_it_likes(tmp_path):
    rows = about(100.0, spread=0.0), about(50.0, name="theirs", spread=0.0, ours=False)
    faster = about(120.0, spread=0.0), about(60.0, name="theirs", spread=0.0, ours=False)
    other = dataclasses.replace(MACHINE, processor="Other Processor")
    found = compare_files(write(tmp_path / "a.json", *rows), write(tmp_path / "b.json", *faster, environment=other))
    assert (found.margin, found.margin_of) == (BETWEEN_RUNS, "")
    assert [pair.verdict for pair in found.pairs] == ["faster", "faster"]


# ------------------------------------------------------------------------------------------------- zero


@pytest.mark.parametrize("unit", ["MB", "pixels", "images/s"])
def test_nothing_before_and_after_is_the_same(unit):
    for zero in (row(0.0, unit=unit), row(0.0, 0.0, unit=unit)):
        found = pair_of(zero, zero, 0.0)
        assert (found.ratio, found.worse, found.verdict, found.regression) == (1, 0, "same", False)


def test_from_nothing_to_something():
    for runs in (1, 2):
        pixels = pair_of(row(*[0.0] * runs, unit="pixels"), row(*[3.0] * runs, unit="pixels"), 1000.0)
        assert (pixels.ratio, pixels.worse, pixels.verdict, pixels.regression) == (math.inf, math.inf, "slower", True)
        rate = pair_of(row(*[0.0] * runs), row(*[3.0] * runs), 0.0)
        assert (rate.worse, rate.verdict, rate.regression) == (-math.inf, "faster", False)


def test_from_something_to_nothing():
    assert pair_of(row(3.0, unit="pixels"), row(0.0, unit="pixels"), 0.0).verdict == "faster"
    assert pair_of(about(3.0), row(0.0, 0.0), 99.0).regression


def test_a_spread_that_begins_at_nothing_has_no_upper_end():
    # Nine runs of which most did not wait at all.
    before = Row(suite="s", name=WAIT, setup="", value=0.1, unit="%", p10=0.0, p90=0.3, runs=9)
    found = pair_of(before, dataclasses.replace(before, value=0.2), 10.0)
    assert (found.low, found.high, found.verdict, found.regression) == (0, math.inf, "same", False)


# ------------------------------------------------------------------------------------------------- which rows


def test_only_measured_rows_of_one_key_meet(compared):
    common = about(10.0)
    before = [
        common,
        about(10.0, name="gone"),
        about(10.0, name="rewritten", unit="s"),
        about(8.0, suite="tiers", unit="min"),
        Row(suite="tiers", name="rtx4090", setup="", value=8.0, unit="min", kind="guide"),
        Row(suite="model", name="guessed", setup="", value=8.0, unit="min", kind="estimated"),
    ]
    after = [
        about(10.0, setup="side 384"),
        about(10.0, name="rewritten", unit="min"),
        *before[3:],
        common,
        about(10.0, suite="epoch"),
    ]
    found = compared(before, after)
    assert [(pair.suite, pair.name, pair.setup) for pair in found.pairs] == [("model", "what", "side 256")]
    assert [row.name for row in found.only_before] == ["gone", "rewritten"]
    assert [(row.suite, row.setup, row.name) for row in found.only_after] == [
        ("model", "side 384", "what"),
        ("model", "side 256", "rewritten"),
        ("epoch", "side 256", "what"),
    ]
    text = printed(found)
    assert "a.json: 2 rows" in text.replace("\n", "")
    assert "model, side 256: gone; rewritten" in text
    assert "b.json: 3 rows" in text.replace("\n", "")


def test_reports_that_have_nothing_in_common_are_not_the_same(tmp_path):
    one = write(tmp_path / "a.json", about(10.0))
    other = write(tmp_path / "b.json", about(10.0, setup="side 384"), config={**CONFIG, "side": 384})
    with pytest.raises(BenchError, match=r"no measured row in common \(other side\); measure both with the same"):
        compare_files(one, other)
    with pytest.raises(BenchError, match="in common; measure both"):
        compare_files(*[write(tmp_path / "empty.json")] * 2)


# ------------------------------------------------------------------------------------------------- around them


def test_another_machine_and_other_settings_are_said(tmp_path):
    other = dataclasses.replace(
        MACHINE,
        processor="Other Processor",
        cores=4,
        features=("avx2", "avx512"),
        gpus=(Gpu(name="H100", memory=1, capability="9.0"),),
        versions={"torch": "2.14.0", "dali": "2.4.0", "numba": "0.68.1"},
        memory_free=1,
    )
    config = {**CONFIG, "network": {"name": "resunet", "width": 64, "encoder": ""}, "side": 384, "torch_threads": 1}
    config |= {"coco": "elsewhere/coco", "rounds": 3, "augment": "light", "batch_size": None}
    comparison = compare_files(
        write(tmp_path / "a.json", about(1.0)), write(tmp_path / "b.json", about(1.0), environment=other, config=config)
    )
    found = {difference.what: (difference.before, difference.after) for difference in comparison.differences}
    assert found == {
        "processor": ("Some Processor", "Other Processor"),
        "cores": (2, 4),
        "processor features": (("avx2",), ("avx2", "avx512")),
        "GPU": (None, ("H100",)),
        "torch": ("2.13.0", "2.14.0"),
        "dali": (None, "2.4.0"),
        "network width": (32, 64),
        "side": (256, 384),
        "batch_size": (4, None),
        "torch_threads": (2, 1),
    }
    said = notes(comparison)
    assert said[0] == "processor: before Some Processor; after Other Processor"
    assert "processor features: before avx2; after avx2, avx512" in said
    assert "GPU: before none; after H100" in said
    assert "torch threads: before 2; after 1" in said
    head = printed(comparison).partition("📊")[0]
    assert all(line in head for line in said)


def test_the_same_machine_and_settings_need_no_note(compared):
    assert notes(compared([about(1.0)], [about(2.0)])) == []


# ------------------------------------------------------------------------------------------------- what is said


def test_the_last_lines_count_and_name_the_worst(compared):
    before = [about(100.0, name=f"rate {number}") for number in range(8)]
    before += [row(0.0, name="differing", unit="pixels"), about(100.0, name="memory", unit="MB")]
    after = [about(100.0 - 10 * number, name=f"rate {number}") for number in range(8)]
    after += [row(2.0, name="differing", unit="pixels"), about(50.0, name="memory", unit="MB")]
    count = "➡️  Of 10 rows 7 got slower or worse, 1 faster or better; 2 stayed the same within the spread."
    assert conclusions(compared(before, after)) == [count]
    assert conclusions(compared(before, after, max_regression=15.0)) == [
        count,
        "❌ 7 rows got worse by more than 15 %: model, differing (0 to 2.00 pixels); model, rate 7 (70.0 %); "
        "model, rate 6 (60.0 %); model, rate 5 (50.0 %); model, rate 4 (40.0 %); and 2 more",
    ]
    assert conclusions(compared(before, before, max_regression=2.5))[1:] == [
        "✅ None got worse by more than 2.5 %, clear of the spread."
    ]
    text = printed(compared(before, after, max_regression=15.0))
    assert all(len(line) <= 100 for line in text.splitlines() if "📊" not in line)
    lines = {line.split("  ")[0].strip(): " ".join(line.split()) for line in text.splitlines()}
    assert lines["rate 0"] == "rate 0 100 100 images/s 1.00 (0.92–1.08) same"
    assert lines["rate 3"] == "rate 3 100 70.0 images/s 0.70 (0.65–0.76) worse ❌"
    assert lines["differing"] == "differing 0 2.00 pixels ∞ worse ❌"
    assert lines["memory"] == "memory 100 50.0 MB 0.50 (0.46–0.54) better"


def test_the_json_has_the_documented_fields(compared, tmp_path):
    found = compared([about(100.0), row(0.0, unit="MB")], [about(50.0), row(9.0, unit="MB")], max_regression=10.0)
    path = tmp_path / "new" / "comparison.json"
    write_json(path, found)
    document = json.loads(path.read_text())
    assert set(document) == {
        "before", "after", "max_regression", "margin", "margin_of", "differences", "pairs", "only_before", "only_after",
        "unknown_units",
    }  # fmt: skip
    assert document["before"].endswith("a.json")
    rate, memory = document["pairs"]
    assert {name: rate[name] for name in ("better", "before", "after", "ratio", "worse", "verdict", "regression")} == {
        "better": "higher", "before": 100, "after": 50, "ratio": 0.5, "worse": 50, "verdict": "slower",
        "regression": True,
    }  # fmt: skip
    assert set(rate) == {field.name for field in dataclasses.fields(Pair)}
    assert (memory["ratio"], memory["low"], memory["high"], memory["worse"]) == (None, None, None, None)
    assert memory["regression"] is True


# ------------------------------------------------------------------------------------------------- the command


def test_the_exit_code_is_that_of_the_limit(tmp_path):
    before, after = write(tmp_path / "a.json", about(100.0)), write(tmp_path / "b.json", about(70.0))
    assert "1 got slower" in run("--compare", before, after).stdout
    assert "None got worse by more than 40 %" in run("--compare", before, after, "--max-regression", 40).stdout
    file = tmp_path / "comparison.json"
    failed = run("--compare", before, after, "--max-regression", 20, "--json", file, code=1)
    assert "❌ 1 row got worse by more than 20 %: model, what (30.0 %)" in failed.stdout
    assert json.loads(file.read_text())["pairs"][0]["regression"] is True
    run("--compare", after, before, "--max-regression", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "loader"], "--compare measures nothing; leave out --suite"),
        (["--coco", "x"], "leave out --coco"),
        (["--cache", "x"], "leave out --cache"),
        (["--peers"], "leave out --peers"),
        (["--no-compile"], "leave out --compile"),
        (["--markdown", "x.md"], "leave out --markdown"),
        (["--threads", "0"], "leave out --threads"),
    ],
)
def test_what_measures_does_not_go_with_it(tmp_path, arguments, message):
    path = write(tmp_path / "a.json", about(100.0))
    assert message in run("--compare", path, path, *arguments, code=2).stderr


def test_a_limit_needs_something_to_compare(tmp_path):
    assert "--max-regression needs --compare BEFORE AFTER" in run("--max-regression", 5, code=2).stderr
    path = write(tmp_path / "a.json", about(100.0))
    for limit in ("-1", "nan", "inf"):
        wrong = run("--compare", path, path, "--max-regression", limit, code=1)
        assert "is not a percentage of 0 or more; try 10" in wrong.stderr


def test_a_file_that_is_no_report_is_one_line(tmp_path):
    good, broken = write(tmp_path / "a.json", about(100.0)), tmp_path / "broken.json"
    broken.write_text('{"rows": [')
    for path, problem in ((broken, "is not a benchmark report"), (tmp_path / "none.json", "is missing")):
        wrong = run("--compare", good, path, code=1)
        assert wrong.stderr.startswith(f"error: {path} {problem}")
        assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_report_that_comes_with_the_project_is_the_same_as_itself(path):
    result = run("--compare", path, path, "--max-regression", 0)
    assert "0 got slower or worse, 0 faster or better" in result.stdout
    assert "Note" not in result.stdout
    assert "ONLY IN" not in result.stdout
