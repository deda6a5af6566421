"""Surveys of a dataset and of a cache: every photo's scores, summed up, whatever is wrong with some photos."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.record import native_planes
from preprocess.check.quality import QualityThresholds, quality_scores
from preprocess.check.survey import SurveyConfig, survey_cache, survey_dataset
from preprocess.dataset import read_content
from preprocess.errors import DatasetError, QualityError
from preprocess.image import read_rgb
from preprocess.synth.dataset import SynthConfig, make_dataset

SIDE = 256
"""Of the square that contrast and edge are measured in."""


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("quality") / "coco"
    make_dataset(root, SynthConfig(images=16, long_side=(96, 200)))
    return root


def content_of(coco, split="train"):
    return read_content(coco, split, CacheSpec())


def test_a_survey_has_the_scores_of_each_photo_and_sums_them_up(coco):
    content, calls = content_of(coco), []
    table = content.table
    found = survey_dataset(content, SurveyConfig(side=128), lambda *done: calls.append(done))
    expected = {
        table.file_name[row]: quality_scores(
            read_rgb(coco / "train2017" / table.file_name[row]),
            *native_planes(table, row, CacheSpec(side=64)),
            side=128,
        )
        for row in range(len(table))
        if (table.iscrowd[table.first[row] : table.first[row + 1]] == 0).any()
    }
    assert dict(zip(found.names, map(tuple, found.scores.tolist()), strict=True)) == {
        name: dataclasses.astuple(scores) for name, scores in expected.items()
    }
    assert calls == [(n, len(expected)) for n in range(1, len(expected) + 1)]
    assert found.photos == len(expected)
    told = found.to_dict()
    coverage = sorted(scores.coverage for scores in expected.values())
    assert told["scores"]["coverage"]["p50"] == pytest.approx(np.median(coverage))
    reached = [not QualityThresholds().missed_by(scores.to_dict()) for scores in expected.values()]
    assert told["all_reached_percent"] == pytest.approx(100 * np.mean(reached))
    worst, scores = found.worst(1)[0]
    assert expected[worst] == scores
    missing = {
        name: sum(max(0, 1 - value / getattr(QualityThresholds(), score)) for score, value in each.to_dict().items())
        for name, each in expected.items()
    }
    assert missing[worst] == max(missing.values())


def test_a_limit_takes_photos_evenly_and_crowds_alone_do_not_count(coco_mini):
    content = content_of(coco_mini)
    table = content.table
    everyone = survey_dataset(content, SurveyConfig())
    some = survey_dataset(content, SurveyConfig(limit=7))
    assert len(some) == 7
    assert some.photos == everyone.photos == len(everyone)
    assert list(some.names) == [everyone.names[at * len(everyone) // 7] for at in range(7)]
    alone = [
        row
        for row in range(len(table))
        if (crowd := table.iscrowd[table.first[row] : table.first[row + 1]]).size and crowd.all()
    ]
    assert not {table.file_name[row] for row in alone} & set(everyone.names)


def test_thresholds_decide_what_is_worst(coco):
    nothing = QualityThresholds(coverage=0, contrast=0, edge=0, resolution=0)
    easy = survey_dataset(content_of(coco, "val"), SurveyConfig(thresholds=nothing))
    assert easy.worst(5) == []
    assert easy.to_dict()["all_reached_percent"] == 100
    hard = dataclasses.replace(easy, thresholds=dataclasses.replace(nothing, edge=100.0))
    assert [name for name, _ in hard.worst(len(hard))] == [
        easy.names[at] for at in np.argsort(easy.scores[:, 2], kind="stable")
    ]


def test_what_cannot_be_read_is_told_and_left_out(write_coco, tmp_path):
    coco = write_coco(tmp_path / "coco")
    (coco / "train2017" / "000000000000.jpg").unlink()
    cv2.imwrite(str(coco / "train2017" / "000000000001.jpg"), np.zeros((9, 9, 3), np.uint8))
    (coco / "train2017" / "000000000002.jpg").write_bytes(b"\xff\xd8\xff no more")
    found = survey_dataset(content_of(coco), SurveyConfig())
    assert [each.file_name for each in found.rejections] == [f"{n:012d}.jpg" for n in range(3)]
    assert "missing" in found.rejections[0].reason
    assert "9 x 9" in found.rejections[1].reason
    assert len(found) == found.photos - 3 > 0
    shutil.rmtree(coco / "val2017")
    with pytest.raises(DatasetError, match=r"val2017 is missing; unpack"):
        survey_dataset(content_of(coco, "val"), SurveyConfig())


def test_nothing_to_score(write_coco, tmp_path):
    coco = write_coco(tmp_path / "coco")
    for path in (coco / "val2017").iterdir():
        path.unlink()
    found = survey_dataset(content_of(coco, "val"), SurveyConfig())
    assert len(found) == 0
    assert found.worst(3) == []
    assert found.to_dict()["scores"]["edge"] == {"p10": 0, "p50": 0, "p90": 0, "threshold": 50.0, "reached_percent": 0}


@pytest.mark.parametrize(("codec", "store"), [("raw", "lmdb"), ("raw", "zarr"), ("jpeg", "lmdb")])
def test_a_cache_has_the_scores_of_its_photos(codec, store, coco_mini, tmp_path):
    """A cache of the side at which contrast and edge are measured has the very pixels that they are measured on."""
    spec = CacheSpec(side=SIDE, codec=codec, store=store, limit=40)
    build_cache(BuildConfig(coco=coco_mini, out=tmp_path / "cache", spec=spec, splits=("train",)))
    content = content_of(coco_mini)
    table = content.table
    photos = survey_dataset(content, SurveyConfig(side=SIDE, limit=0))
    names = dict(zip(table.image_id.tolist(), table.file_name, strict=True))
    with CacheReader(tmp_path / "cache", "train") as reader:
        found = survey_cache(reader, SurveyConfig(side=1, limit=0))
    assert found.side == SIDE
    assert 10 < len(found) <= 40
    of_photos = dict(zip(photos.names, photos.scores, strict=True))
    pairs = [
        (row, of_photos[names[int(name.removeprefix("image "))]])
        for name, row in zip(found.names, found.scores, strict=True)
    ]
    cached, native = np.array(pairs).transpose(1, 2, 0)
    crowded = set(table.image_id[table.annotation_image[table.iscrowd > 0]].tolist())
    alone = np.array([int(name.removeprefix("image ")) not in crowded for name in found.names])
    assert 2 < alone.sum() < len(found)
    for at in (1, 2):
        # Beside a crowd the planes of a cache may leave a pixel between the two.
        assert cached[at] == pytest.approx(native[at], abs=4.0)
        assert cached[at][alone] == pytest.approx(native[at][alone], abs=1e-9 if codec == "raw" else 2.0)
    assert cached[0] == pytest.approx(native[0], abs=1.0)
    assert np.all(cached[3] <= native[3] + 1e-9), "a person is never wider in a cache that shrinks its photos"


@pytest.mark.parametrize(
    ("values", "said"),
    [({"limit": -1}, "limit=-1 is negative; 0 stands for all"), ({"side": 0}, "side=0 is not a number of pixels")],
)
def test_errors_name_value_and_remedy(values, said):
    with pytest.raises(QualityError, match=said):
        SurveyConfig(**values)
