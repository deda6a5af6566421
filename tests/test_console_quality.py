"""`analyze --quality`: what it prints, draws and refuses."""

import json

import cv2
import pytest
from click.testing import CliRunner

from cache.spec import CacheSpec
from cli import main
from console.quality import survey_lines
from preprocess.check.survey import SurveyConfig, survey_dataset
from preprocess.dataset import read_content


def run(*arguments, code=0):
    result = CliRunner(catch_exceptions=False).invoke(main, ["analyze", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def coco(write_coco, tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("quality") / "coco", counts=(12, 8))


def survey(coco, split="train", **values):
    return survey_dataset(read_content(coco, split, CacheSpec()), SurveyConfig(**values))


def test_the_table_has_what_the_survey_found(coco):
    found = survey(coco)
    lines = survey_lines(found)
    assert lines[0] == "🎯 Quality of train: 9 of 9 photos with annotations, for a network of side 384"
    told = found.to_dict()["scores"]
    for name, line in zip(told, lines[2:6], strict=True):
        score = told[name]
        assert line.split() == [
            name,
            *(f"{score[key]:.1f}" for key in ("p50", "p10", "p90")),
            "≥",
            f"{score['threshold']:g}",
            f"{score['reached_percent']:.1f}",
            "%",
        ]
    assert {len(line) for line in lines[1:7]} == {len(lines[1])}, "the columns are straight"
    assert [line.split(":")[0].strip() for line in lines[8:13]] == [name for name, _ in found.worst(5)]


def test_what_could_not_be_scored_is_named(write_coco, tmp_path):
    coco = write_coco(tmp_path / "coco", counts=(12, 4))
    for path in (coco / "train2017").iterdir():
        path.unlink()
    lines = survey_lines(survey(coco))
    assert lines[0].startswith("🎯 Quality of train: 0 of 9 photos")
    assert lines[1] == "   ⚠️  9 photos cannot be scored:"
    assert "      000000000000.jpg: the image file is missing" in lines
    assert "      and 4 more: --json names them all" in lines


def test_analyze_tells_and_draws(coco, tmp_path):
    plain, scored = tmp_path / "plain.png", tmp_path / "scored.png"
    run("--coco", coco, "--picture", plain)
    said = run("--coco", coco, "--picture", scored, "--quality", "--min-edge", 12.5, "--limit", 5, "--side", 128)
    assert "📈 General statistics:" in said.stdout
    assert "Quality of train: 5 of 9 photos with annotations, for a network of side 128" in said.stdout
    assert "Quality of val: 5 of 6 photos with annotations" in said.stdout
    assert "≥ 12.5" in said.stdout
    assert "Scoring train: 5/5 images" in said.stderr
    heights = [cv2.imread(str(path)).shape[0] for path in (plain, scored)]
    assert heights[1] > 1.5 * heights[0], "four panels more"


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the picture out, which takes longest."""
    monkeypatch.setattr("console.pictures.draw_histograms", lambda *_arguments: None)


@pytest.mark.usefixtures("undrawn")
def test_json_has_each_photo(coco, tmp_path):
    values = ["--coco", coco, "--picture", tmp_path / "a.png", "--json"]
    assert "quality" not in json.loads(run(*values).stdout)
    quality = json.loads(run(*values, "--quality", "--min-coverage", 40).stdout)["quality"]
    expected = survey(coco)
    found = quality["coco"]["train"]
    assert (found["photos"], found["scored"]) == (9, 9)
    assert found["scores"]["coverage"]["threshold"] == 40
    assert {image["name"]: image["coverage"] for image in found["images"]} == dict(
        zip(expected.names, expected.scores[:, 0].tolist(), strict=True)
    )
    assert quality["coco"]["val"]["rejected"] == []


@pytest.mark.usefixtures("undrawn")
def test_a_cache_alone_and_beside_its_dataset(coco, tmp_path):
    from cache.spec import CacheSpec
    from preprocess.build.build import BuildConfig, build_cache

    build_cache(BuildConfig(coco=coco, out=tmp_path / "cache", spec=CacheSpec(side=64)))
    values = ["--cache", tmp_path / "cache", "--picture", tmp_path / "a.png", "--json", "--quality"]
    alone = json.loads(run(*values).stdout)["quality"]
    both = json.loads(run(*values, "--coco", coco).stdout)["quality"]
    assert list(alone) == ["cache"]
    assert alone["cache"] == both["cache"]
    assert alone["cache"]["train"]["side"] == 64
    assert both["coco"]["train"]["side"] == 384


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-edge", 20], "--min-edge needs --quality; give that, too"),
        (["--limit", 0], "--limit needs --quality"),
        (["--quality", "--min-edge", "much"], "'much' is not a valid float"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said, coco):
    assert said in run("--coco", coco, *arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-edge", "nan"], "error: the threshold edge=nan is not between 0 and 100; 50 is the usual one"),
        (["--min-coverage", 101], "error: the threshold coverage=101.0 is not between 0 and 100; 15 is the usual one"),
        (["--limit", -1], "error: limit=-1 is negative; 0 stands for all there are"),
        (["--side", 0], "error: side=0 is not a number of pixels"),
    ],
)
def test_what_cannot_be_is_an_error_in_one_line(arguments, said, coco):
    assert run("--coco", coco, "--quality", *arguments, code=1).stderr.startswith(said)
