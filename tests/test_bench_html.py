"""A report as a page and as a picture: well-formed, escaped, nothing from elsewhere, nothing left out."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bench.estimate import GUIDE, guide_rows
from bench.hardware import Gpu, Machine
from bench.report import BenchReport, Row
from cli import main
from console.bench import conclusions, value_text
from console.bench_chart import by_profile, tier_svg
from console.html import html_page, percent, share_of_limit
from console.text import figure

RESULTS = sorted((Path(__file__).resolve().parents[1] / "bench" / "results").glob("*.json"))
VOID = {"meta", "br", "hr", "img", "link", "input", "col", "base"}
NASTY = """<script>alert('x')</script> & "quotes" $\\frac{1}{0}$"""

MACHINE = Machine(
    processor="Some <Processor>",
    cores=2,
    features=("avx2",),
    memory_total=8 << 30,
    memory_free=4 << 30,
    system="Linux",
    python="3.11.0",
    versions={"torch": "2.13.0"},
    gpus=(Gpu(name="Some & GPU", memory=24 << 30, capability="8.9"),),
    driver="1.2",
    dali_devices=None,
    compiler=None,
    disk=None,
)


class Page(HTMLParser):
    """Checks the nesting, and keeps tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.bars, self.text, self.style = [], [], [], [], "", ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("tr", "li"):
            (self.rows if tag == "tr" else self.bars).append((dict(attributes).get("class", ""), []))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        self.text += data
        for tag, kept in (("tr", self.rows), ("li", self.bars)):
            if tag in self.open and data.strip():
                kept[-1][1].append(data)


def estimated(profile, minutes=6.5, network="unet 64", **fields):
    setup = {"setup": f"{network}, side 512, batch 32, bf16"}
    fields = {"p10": 0.8 * minutes, "p90": 1.5 * minutes, "note": "by its roofline"} | setup | fields
    return Row(suite="tiers", name=f"{profile}, {network}", value=minutes, unit="min", kind="estimated", **fields)


def measured(value, unit="images/s", suite="raster", **fields):
    return Row(**{"suite": suite, "name": "what", "setup": "how", "value": value, "unit": unit, "runs": 3} | fields)


def made():
    top = {"limit": 400.0, "limit_name": "top < all"}
    return (
        measured(100.0, p10=90.0, p90=110.0, name="far from it", **top),
        measured(1000.0, name="beyond it", **top),
        measured(800.0, "MB", name="memory", **top),
        measured(300.0, name="a guess", kind="estimated", **top),
        measured(250.0, name="a promise", kind="guide", **top),
        measured(7.0, name=NASTY, setup=NASTY, limit=8.0, limit_name=NASTY, note=NASTY),
        measured(1.5, "times", suite="of its own", name="no limit, no spread", runs=0),
        *guide_rows(),
        measured(51.0, "min", suite="tiers", name="cpu", p10=49.0, p90=54.0, limit=50.0, limit_name="the step"),
        estimated("rtx4090"),
        estimated("h100", minutes=2.4, setup=NASTY),
    )


def report_of(rows):
    config = {"images": 45_174, "network": {"name": "unet", "width": 64}, "side": 256, "notes": [NASTY]}
    return BenchReport(environment=MACHINE, config=config, rows=tuple(rows))


def check(report):
    """What is true of the page of any report."""
    text = html_page(report)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    names = [tag for tag, _ in page.tags]
    assert {"html", "head", "title", "header", "main", "footer", "h1"} <= set(names)
    assert names.count("style") == 1
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(names)
    assert not re.search(r"@import|@font-face|url\(", page.style)
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "data", "srcset"):
                assert value.startswith("#")
            assert "url(http" not in (value or "")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = [value[1:] for tag, attributes in page.tags for name, value in attributes.items() if "href" in name]
    assert set(linked) <= set(ids)
    for line in conclusions(report):
        assert line in page.text

    lines = [(kind, " ".join(cells)) for kind, cells in page.rows if kind in ("measured", "estimated", "guide")]
    assert len(lines) == len(report.rows)
    for row in report.rows:
        label = row.setup if row.suite == "tiers" else row.name
        assert any(
            kind == row.kind and all(said in line for said in (label, value_text(row), row.note))
            for kind, line in lines
        ), row
    bars = [(kind, " ".join(cells)) for kind, cells in page.bars if kind]
    limited = [row for row in report.rows if row.limit is not None]
    assert len(bars) == len(limited)
    for row in limited:
        said = (row.name, value_text(row), percent(share_of_limit(row)), f"limit {figure(row.limit)}: {row.limit_name}")
        assert any(kind == row.kind and all(part in bar for part in said) for kind, bar in bars), row
    return page


def test_a_page_of_all_kinds_of_rows():
    page = check(report_of(made()))
    assert "Some <Processor>, 2 cores" in page.text
    assert "Some & GPU, 25.8 GB, compute capability 8.9; driver 1.2" in page.text
    assert page.text.count("<script>") >= 4  # as text


def test_what_was_not_measured_looks_otherwise():
    page = check(report_of(made()))
    for kind, mark in (("estimated", "est."), ("guide", "promised, not measured")):
        found = [line for lines in (page.rows, page.bars) for line in lines if line[0] == kind]
        assert all(mark in " ".join(cells) for _, cells in found)
        assert len(found) == {"estimated": 4, "guide": 2 + len(GUIDE)}[kind]
        assert [tag for tag, attributes in page.tags if attributes.get("class") == f"{kind}-bar"]
    for kind in ("estimated", "guide"):
        (rule,) = re.findall(rf"\.{kind}-bar {{([^}}]*)}}", page.style)
        assert "stroke: var(" in rule
        assert "fill: none" in rule or "fill: var(--page)" in rule
    assert "prefers-color-scheme: dark" in page.style


def test_a_full_bar_is_at_the_limit():
    limits = {"limit": 50.0, "limit_name": "limit"}
    assert share_of_limit(measured(25.0, **limits)) == 0.5
    assert share_of_limit(measured(100.0, **limits)) == 2
    for unit in ("s", "min", "MB"):
        assert share_of_limit(measured(100.0, unit, **limits)) == 0.5
    assert share_of_limit(measured(0.0, "s", **limits)) == math.inf
    assert share_of_limit(measured(1.0)) is None
    shares = (0.0, 0.0046, 0.046, 0.4649, 1.0, 2.105, math.inf)
    assert [percent(share) for share in shares] == ["0 %", "0.46 %", "4.6 %", "46 %", "100 %", "210 %", "> 999 %"]
    page = check(report_of(made()))
    widths = [float(each["width"][:-1]) for tag, each in page.tags if tag == "rect" and "-bar" in each.get("class", "")]
    assert {25.0, 50.0, 75.0, 62.5, 87.5} <= set(widths)
    assert all(0 <= width <= 100 for width in widths)
    assert sum("beyond" in (each.get("class") or "") for _, each in page.tags) == 1


def test_a_page_of_next_to_nothing():
    page = check(report_of([]))
    assert "Speed of light" not in page.text
    assert "Hardware compared" not in page.text
    bare = dataclasses.replace(report_of([measured(1.0)]), config={})
    assert "Speed of light" not in check(bare).text


def test_the_page_begins_with_the_stages():
    limit = {"limit": 400.0, "limit_name": "top"}
    page = check(report_of([measured(1.0, suite=suite, **limit) for suite in ("machine", "stages", "epoch")])).text
    bars = page[page.index("A full bar is at the\nlimit") : page.index("All figures")]
    assert bars.index("STAGES") < bars.index("MACHINE") < bars.index("EPOCH")


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1), st.floats(1e-3, 1e6))
def test_any_text_stays_text(text, value):
    text = f"x{text}"
    rows = [measured(value, name=text, setup=text, limit=value, limit_name=text, note=text)]
    tags = [tag for tag, _ in Page(html_page(report_of(rows))).tags]
    plain = [tag for tag, _ in Page(html_page(report_of([measured(value, limit=value, limit_name="x")]))).tags]
    assert tags == plain


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_the_reports_that_come_with_the_project(path, tmp_path):
    report = BenchReport.read(path)
    page = check(report)
    tiers = [row for row in report.rows if row.suite == "tiers"]
    drawn = [tag for tag, attributes in page.tags if tag == "figure"]
    assert len(drawn) == bool(tiers)
    if tiers:
        check_svg(report.rows)


def check_svg(rows):
    root = ElementTree.fromstring(tier_svg(rows))
    names = [each.get("id", "") for each in root.iter()]
    said = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    for kind in ("measured", "estimated"):
        bars = [name for name in names if re.fullmatch(rf"bar-\d+-{kind}", name)]
        assert len(bars) == sum(row.kind == kind for row in rows if row.suite == "tiers")
    promised = {row.name for row in rows if row.suite == "tiers" and row.kind == "guide"}
    ticked = [row for row in rows if row.suite == "tiers" and row.name.partition(",")[0] in promised]
    assert len([*root.iterfind(".//*[@id='promised']//{http://www.w3.org/2000/svg}use")]) == len(ticked)
    for row in (row for row in rows if row.suite == "tiers"):
        assert value_text(row) in said
        assert row.name.partition(",")[0] in said
    return root


def test_the_chart():
    rows = made()
    root = check_svg(rows)
    styles = {each.get("id"): each[0].get("style", "") for each in root.iter() if "bar-" in each.get("id", "")}
    for name, style in styles.items():
        assert ("fill: none" in style) == name.endswith("estimated")
    assert any(NASTY.split()[0] in "".join(each.itertext()) for each in root.iter())
    text = tier_svg(rows)
    assert text == tier_svg(rows)
    Page(text)
    assert "var(--measured)" in text
    assert "#0072b2" not in text
    assert "<metadata" not in text


@pytest.mark.parametrize(("highest", "log"), [(29.0, False), (31.0, True)])
def test_more_than_a_decade_is_drawn_on_a_log_axis(highest, log):
    text = tier_svg([estimated("a", 3.0, p10=None), estimated("b", highest / 1.5)])
    assert ("log scale" in text) == log


def test_rows_of_a_profile_stand_together():
    groups = by_profile(made())
    assert list(groups) == [*(profile for profile, *_others in GUIDE), "h100"]
    assert [row.kind for row in groups["cpu"]] == ["guide", "measured"]
    assert [row.kind for row in groups["rtx4090"]] == ["guide", "estimated"]


def bench(monkeypatch, rows, *arguments, code=0):
    def run_suites(config, listener, keep):
        report = report_of(rows)
        keep(report)
        return report

    monkeypatch.setattr("bench.run.run_suites", run_suites)
    result = CliRunner(catch_exceptions=False).invoke(main, ["bench", "--profile", "cpu", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_command_writes_them(tmp_path, monkeypatch):
    page = tmp_path / "a" / "report.html"
    rows = [row for row in made() if row.name != NASTY]
    said = bench(monkeypatch, rows, "--html", page).stdout
    assert said.endswith(f"📝 Page: {page}\n")
    assert page.read_text(encoding="utf-8") == html_page(report_of(rows))
