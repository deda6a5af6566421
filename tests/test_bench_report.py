"""Rows, the JSON, the guide's table, and how it is all printed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json

import pytest

from bench.config import BenchConfig, Setup
from bench.estimate import GUIDE, guide_rows, machine_row, stored_rows
from bench.hardware import Machine
from bench.report import BenchError, BenchReport, Row, write_json
from bench.suites.epoch import BOTH, LOADER, MINUTES, STEP, WAIT
from bench.timing import Rates
from console.bench import TIERS_NOTE, BenchPrinter, conclusions, show_report

MACHINE = Machine(
    processor="Some Processor",
    cores=2,
    features=("avx2",),
    memory_total=8 << 30,
    memory_free=4 << 30,
    system="Linux",
    python="3.11.0",
    versions={"torch": "2.13.0"},
    gpus=(),
    driver=None,
    dali_devices=None,
    compiler=None,
    disk=None,
)
CONFIG = {
    "images": 45_174,
    "network": {"name": "resunet", "width": 32, "dropout": 0.0},
    "side": 256,
    "batch_size": 4,
    "notes": ["running without torch.compile"],
}


def row(name, rate, unit="images/s", **fields):
    return Row.measured(Rates((rate,)), suite="epoch", setup="resunet 32", name=name, unit=unit, **fields)


def epoch(loader, step, both):
    slower = {"limit": min(loader, step), "limit_name": "the slower"}
    minutes = 45_174 / 60
    return [
        row(LOADER, loader),
        row(STEP, step),
        row(BOTH, both, **slower),
        row(WAIT, 1.25, unit="%"),
        row(MINUTES, minutes / both, unit="min", limit=minutes / slower["limit"], limit_name="the slower"),
    ]


def report_of(rows):
    return BenchReport(environment=MACHINE, config=CONFIG, rows=tuple(rows))


def printed(report):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        show_report(report)
    return text.getvalue()


def test_the_ratio_is_the_value_over_the_limit():
    measured = Row.measured(
        Rates((10.0, 30.0, 20.0)), suite="s", name="n", setup="", unit="x", limit=Rates((1.0, 40.0)), limit_name="top"
    )
    assert (measured.value, measured.limit, measured.runs, measured.kind) == (20, 20.5, 3, "measured")
    assert measured.ratio == 20 / 20.5
    assert Row(suite="s", name="n", setup="", value=1.0, unit="x").ratio is None
    with pytest.raises(AssertionError, match="a limit and its name"):
        Row(suite="s", name="n", setup="", value=1.0, unit="x", limit=2.0)
    with pytest.raises(AssertionError, match="nan"):
        Row(suite="s", name="n", setup="", value=float("nan"), unit="x")


def test_json_has_the_documented_fields_and_comes_back(tmp_path):
    report = report_of([*epoch(100.0, 10.0, 9.0), *guide_rows()])
    path = tmp_path / "new" / "report.json"
    write_json(path, report)
    document = json.loads(path.read_text())
    assert set(document) == {"environment", "config", "rows"}
    fields = {"suite", "name", "setup", "value", "unit", "p10", "p90", "runs", "limit", "limit_name", "ratio", "kind"}
    for found in document["rows"]:
        assert set(found) == fields | {"ours", "note", "precision", "batch_size"}
        assert found["kind"] in ("measured", "guide", "estimated")
        assert found["ratio"] == (None if found["limit"] is None else found["value"] / found["limit"])
    assert document["environment"]["processor"] == "Some Processor"
    assert BenchReport.read(path) == report


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "is missing"), ("{", "is not a benchmark report"), ('{"rows": []}', "is not a benchmark report")],
)
def test_a_report_that_cannot_be_read_says_so(tmp_path, text, problem):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchError, match=problem):
        BenchReport.read(path)


def test_the_guides_table():
    assert [(found.name, found.value) for found in guide_rows()] == [
        ("rtx4090", 8),
        ("rtx3080", 12),
        ("gtx1080", 18),
        ("gtx1060", 35),
        ("cpu", 240),
    ]
    for (_, batch_size, side, _, _), found in zip(GUIDE, guide_rows(), strict=True):
        assert (found.unit, found.kind) == ("min", "guide")
        assert (found.limit, found.ratio, found.runs) == (None, None, 0)
        assert f"side {side}, batch {batch_size}" in found.setup


def test_this_machines_line_is_normalised_like_the_guides():
    setup = Setup.of(BenchConfig(profile="cpu", images=100))
    found = machine_row(setup, MACHINE, epoch(100.0, 10.0, 5.0))
    assert found.value == pytest.approx(45_174 / 5 / 60)
    assert found.ratio == pytest.approx(2)
    assert (found.name, found.kind, found.unit) == ("cpu", "measured", "min")
    assert "resunet 32, side 256, batch 4" in found.setup
    assert "Some Processor" in found.setup
    assert machine_row(setup, MACHINE, []) is None


def test_lines_of_other_machines_come_from_their_reports(tmp_path):
    assert stored_rows(tmp_path / "none") == []
    own = machine_row(Setup.of(BenchConfig(profile="cpu")), MACHINE, epoch(100.0, 10.0, 5.0))
    taken = dataclasses.replace(own, note="from elsewhere.json")
    write_json(tmp_path / "other.json", report_of([*guide_rows(), taken, own]))
    assert stored_rows(tmp_path) == [dataclasses.replace(own, name="cpu, other", note="from other.json")]


def test_what_is_printed_tells_measured_from_promised():
    setup = Setup.of(BenchConfig(profile="cpu"))
    rows = epoch(100.0, 10.0, 9.0)
    estimated = Row(suite="tiers", name="rtx4090, unet 64", setup="unet 64, side 512, batch 32, bf16", value=14.9,
                    unit="min", p10=13.3, p90=16.7, kind="estimated", note="too large: 33 of 24 GB")  # fmt: skip
    text = printed(report_of([*rows, *guide_rows(), machine_row(setup, MACHINE, rows), estimated]))
    tiers = text[text.index("TIERS") :]
    assert "measured, this machine" in tiers
    assert "~240" in tiers, "what the guide promises of this tier"
    (line,) = [line for line in tiers.splitlines() if "est. 14.9" in line]
    assert "13.3–16.7" in line
    assert "~8" in line
    assert TIERS_NOTE[:40] in tiers
    assert all(len(line) <= 100 for line in text.splitlines())
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert "9.00 images/s" in lines[BOTH]
    assert "10.0 the slower" in lines[BOTH]
    assert "90 %" in lines[BOTH]
    assert "1.11×" in lines[MINUTES]
    assert "running without torch.compile" in text
    assert "The network is the bottleneck: the loader alone could feed 10.0 of these." in text
    assert "about 1h 23m here" in text


def test_the_bottleneck_is_named():
    assert "The loader is the bottleneck" in conclusions(report_of(epoch(10.0, 40.0, 9.0)))[0]
    times = Row(suite="raster", name="planes: times pycocotools", setup="", value=92.0, unit="times")
    assert conclusions(report_of([times])) == ["Masks are drawn 92.0 times as fast as by pycocotools."]
    assert conclusions(report_of([])) == []


def test_without_a_terminal_the_tables_are_as_wide_as_needed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    setup = "unet 64, side 512, batch 32, bf16"
    row = Row(suite="tiers", name="rtx4090", setup=setup, value=9, unit="min", kind="estimated")
    show_report(report_of([row]))
    assert setup in capsys.readouterr().out


def test_progress_goes_to_standard_error(capsys):
    printer = BenchPrinter()
    printer("loader", 2, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/5 LOADER" in err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"suites": ("loader", "lodaer")}, "'lodaer' is not known; use some of machine, raster, annotations, "),
        ({"suites": ()}, "suites is empty"),
        ({"images": 0}, "images=0 is below 1"),
        ({"threads": -1}, "threads=-1 is below 0"),
        ({"seconds": 0.0}, "seconds=0.0 is not a positive number"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields, message):
    with pytest.raises(BenchError, match=message.replace("(", r"\(")):
        BenchConfig(**fields)


def test_reports_that_come_with_the_project_can_be_read():
    assert all(row.kind == "measured" and row.suite == "tiers" for row in stored_rows())
