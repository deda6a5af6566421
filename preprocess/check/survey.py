"""Quality scores of the photos of a split of a dataset or a cache, with their annotated persons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cache.arrays import F64, Flags
from cache.choices import Orientation
from cache.index import Rejection
from cache.messages import message
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.annotations.select import sum_per_image
from preprocess.build.plan import annotation_problems
from preprocess.build.record import decode_annotated, native_planes
from preprocess.check.quality import NAMES, QualityScores, QualityThresholds, quality_scores
from preprocess.check.verify import Progress, map_photos
from preprocess.dataset import SplitContent, missing_folder
from preprocess.errors import DatasetError, ImageError, QualityError
from preprocess.image import FitBox, decode_rgb, read_file
from preprocess.photos import photo_path

QUANTILES = (10, 50, 90)
"""Percentiles of each score."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurveyConfig:
    """Which photos are scored, and how."""

    thresholds: QualityThresholds = dataclasses.field(default_factory=QualityThresholds)
    side: int = 384  # side of the square that a network is to see, pixels; a cache has its own
    limit: int = 2000  # photos of each split, evenly over it; 0 takes all
    orientation: Orientation = "auto"  # see `CacheSpec`; for a dataset only

    def __post_init__(self) -> None:
        if self.side < 1:
            raise QualityError(
                "side={side} is not a number of pixels; use that of your cache, such as 384", side=self.side
            )
        if self.limit < 0:
            raise QualityError("limit={limit} is negative; 0 stands for all there are", limit=self.limit)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QualitySurvey:
    """The scores of a split's photos."""

    split: str
    side: int  # side of the square that the network sees, pixels
    thresholds: QualityThresholds
    photos: int  # photos with a person that is not a crowd; of these, `limit` were taken
    names: tuple[str, ...]  # N file names of photos, or in a cache `image <id>`
    scores: F64  # `(N, 4)` in the order of `NAMES`, 0 to 100
    rejections: tuple[Rejection, ...]  # photos that cannot be scored, and why

    def __len__(self) -> int:
        return len(self.names)

    @property
    def reached(self) -> Flags:
        """`(N, 4)` whether each score reaches its threshold."""
        return self.scores >= self._threshold_4

    def worst(self, number: int) -> list[tuple[str, QualityScores]]:
        """The worst photos that miss a threshold, ordered by the sum of the missing shares of each threshold."""
        threshold_4 = self._threshold_4
        missing_N = ((threshold_4 - self.scores).clip(0) / np.maximum(threshold_4, 1)).sum(1)
        furthest = [at for at in np.argsort(-missing_N, kind="stable").tolist() if missing_N[at] > 0]
        return [(self.names[at], QualityScores(**self._named(at))) for at in furthest[:number]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: the summary, and the scores of each photo."""
        reached_N4, quantiles = self.reached, np.zeros((len(NAMES), len(QUANTILES)))
        if len(self):
            quantiles = np.percentile(self.scores, QUANTILES, axis=0).T
        share = 100 / max(1, len(self))
        return {
            "side": self.side,
            "photos": self.photos,
            "scored": len(self),
            "scores": {
                name: {
                    **{f"p{percent}": float(value) for percent, value in zip(QUANTILES, row, strict=True)},
                    "threshold": getattr(self.thresholds, name),
                    "reached_percent": share * int(reached_N4[:, at].sum()),
                }
                for at, (name, row) in enumerate(zip(NAMES, quantiles, strict=True))
            },
            "all_reached_percent": share * int(reached_N4.all(1).sum()),
            "images": [{"name": name, **self._named(at)} for at, name in enumerate(self.names)],
            "rejected": [dataclasses.asdict(rejection) for rejection in self.rejections],
        }

    @property
    def _threshold_4(self) -> F64:
        return np.array([getattr(self.thresholds, name) for name in NAMES], np.float64)

    def _named(self, at: int) -> dict[str, float]:
        return dict(zip(NAMES, self.scores[at].tolist(), strict=True))


def survey_dataset(content: SplitContent, config: SurveyConfig, progress: Progress | None = None) -> QualitySurvey:
    """Score the photos of a split with the union of their annotated persons. Crowd regions count nowhere.

    `progress` is called from the calling thread after each photo. Raises `DatasetError`: the split's folder is missing.
    """
    table = content.table
    if content.missing:
        raise DatasetError(missing_folder(content.files))
    problems = annotation_problems(table) | content.nameless
    spec = CacheSpec(side=384)  # only its rule for crowds matters

    def score(row: int) -> QualityScores:
        if row in problems:
            raise ImageError(problems[row])
        data = read_file(photo_path(content.photos.folder, table.file_name[row]))
        image = decode_annotated(table, row, data, config.orientation)
        return quality_scores(image, *native_planes(table, row, spec, image.shape[:2]), side=config.side)

    with_persons = np.flatnonzero(sum_per_image(table, (table.iscrowd == 0).astype(np.int64)))
    images = [(row, int(table.image_id[row]), table.file_name[row]) for row in with_persons.tolist()]
    return _survey(content.name, images, score, config, progress)


def survey_cache(reader: CacheReader, config: SurveyConfig, progress: Progress | None = None) -> QualitySurvey:
    """Score the samples of a split of a cache, at its side and without the padding.

    Raises `CacheError`: a shard is missing or damaged.
    """
    side, layout = reader.layout.side, reader.layout

    def score(sample: int) -> QualityScores:
        fields, entry = reader.fields(sample), reader.samples[sample]
        rows, columns = FitBox(*(int(entry[name]) for name in ("box_x", "box_y", "box_width", "box_height"))).slices
        raw = layout.codec == "raw"
        image = fields.image.reshape(side, side, 3) if raw else decode_rgb(fields.image.tobytes())
        person, ignore = (layout.unpack_plane(plane)[rows, columns] for plane in (fields.person, fields.ignore))
        return quality_scores(image[rows, columns], person, ignore, side=side)

    samples = np.flatnonzero(reader.samples["persons"])
    ids = reader.samples["image_id"][samples]
    images = [
        (row, number, message("image {image_id}", image_id=number))
        for row, number in zip(samples.tolist(), ids.tolist(), strict=True)
    ]
    return _survey(reader.split, images, score, dataclasses.replace(config, side=side), progress)


def _survey(
    split: str,
    images: Sequence[tuple[int, int, str]],
    score: Callable[[int], QualityScores],
    config: SurveyConfig,
    progress: Progress | None,
) -> QualitySurvey:
    """Score images, of which row, id and name are given, in a thread pool: `config.limit` of them, evenly over all."""
    chosen = images
    if 0 < config.limit < len(images):
        chosen = [images[number * len(images) // config.limit] for number in range(config.limit)]
    names, scores, rejections = list[str](), list[list[float]](), list[Rejection]()
    results = map_photos(score, [row for row, _, _ in chosen])
    for done, ((_, image_id, name), (_, result)) in enumerate(zip(chosen, results, strict=True), 1):
        if progress:
            progress(done, len(chosen))
        if isinstance(result, ImageError):
            rejections.append(Rejection(split=split, image_id=image_id, file_name=name, reason=str(result)))
        else:
            names.append(name)
            scores.append(list(result.to_dict().values()))
    return QualitySurvey(
        split=split,
        side=config.side,
        thresholds=config.thresholds,
        photos=len(images),
        names=tuple(names),
        scores=np.array(scores, np.float64).reshape(-1, len(NAMES)),
        rejections=tuple(rejections),
    )
