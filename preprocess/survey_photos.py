"""Scoring of the photos of a dataset or a cache in a thread pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cache.manifest import Rejection
from cache.messages import message
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.coco import PersonTable
from preprocess.errors import DatasetError, ImageError
from preprocess.geometry import FitBox
from preprocess.image import decode_rgb, read_file
from preprocess.photos import PhotoFolder, photo_path
from preprocess.quality import NAMES, QualityScores, quality_scores
from preprocess.sample import decode_annotated, native_planes
from preprocess.select import sum_per_image
from preprocess.soundness import Progress, map_photos
from preprocess.sources import SPLIT_FOLDERS, annotation_problems, locate_photos
from preprocess.survey import QualitySurvey, SurveyConfig


def survey_dataset(
    coco: Path, split: str, table: PersonTable, config: SurveyConfig, progress: Progress | None = None
) -> QualitySurvey:
    """Score the photos of a split with the union of their annotated persons. Crowd regions count nowhere.

    Args:
        coco: the folder that holds the split's folder.
        split: `train` or `val`.
        table: its annotations.
        config: what to score.
        progress: called from the calling thread after each photo.

    Raises:
        DatasetError: the split's folder is missing.
    """
    photos = PhotoFolder(coco, coco / SPLIT_FOLDERS[split], outside=config.outside)
    if not photos.exists():
        raise DatasetError(
            "{folder} is missing; unpack {name}.zip in {coco}", folder=photos.folder, name=photos.folder.name, coco=coco
        )
    table, nameless = locate_photos(table, photos)
    problems = annotation_problems(table) | nameless
    spec = CacheSpec(side=384)  # only its rule for crowds matters

    def score(row: int) -> QualityScores:
        if row in problems:
            raise ImageError(problems[row])
        data = read_file(photo_path(photos.folder, table.file_name[row]))
        image = decode_annotated(table, row, data, config.orientation)
        return quality_scores(image, *native_planes(table, row, spec, image.shape[:2]), side=config.side)

    rows = np.flatnonzero(sum_per_image(table, (table.iscrowd == 0).astype(np.int64))).tolist()
    chosen = _evenly(rows, config.limit)
    images = [(int(table.image_id[row]), table.file_name[row]) for row in chosen]
    return _survey(split, images, chosen, score, config, photos=len(rows), progress=progress)


def survey_cache(reader: CacheReader, config: SurveyConfig, progress: Progress | None = None) -> QualitySurvey:
    """Score the samples of a split of a cache, at its side and without the padding.

    Raises:
        CacheError: a shard is missing or damaged.
    """
    side, layout = reader.layout.side, reader.layout

    def score(sample: int) -> QualityScores:
        fields, entry = reader.fields(sample), reader.samples[sample]
        rows, columns = FitBox(*(int(entry[name]) for name in ("box_x", "box_y", "box_width", "box_height"))).slices
        raw = layout.codec == "raw"
        image = fields.image.reshape(side, side, 3) if raw else decode_rgb(fields.image.tobytes())
        person, ignore = (layout.unpack_plane(plane)[rows, columns] for plane in (fields.person, fields.ignore))
        return quality_scores(image[rows, columns], person, ignore, side=side)

    samples = np.flatnonzero(reader.samples["persons"]).tolist()
    chosen = _evenly(samples, config.limit)
    images = [
        (image_id, message("image {image_id}", image_id=image_id))
        for image_id in reader.samples["image_id"][chosen].tolist()
    ]
    config = dataclasses.replace(config, side=side)
    return _survey(reader.split, images, chosen, score, config, photos=len(samples), progress=progress)


def _evenly(rows: list[int], limit: int) -> list[int]:
    """Take `limit` rows, evenly over all; all if it is 0."""
    if not 0 < limit < len(rows):
        return rows
    return [rows[at * len(rows) // limit] for at in range(limit)]


def _survey(
    split: str,
    images: Sequence[tuple[int, str]],
    rows: Sequence[int],
    score: Callable[[int], QualityScores],
    config: SurveyConfig,
    *,
    photos: int,
    progress: Progress | None,
) -> QualitySurvey:
    """Score rows in a thread pool; `images` are their ids and names."""

    def advance(done: int) -> None:
        if progress:
            progress(done, len(rows))

    names, scores, rejections = list[str](), list[list[float]](), list[Rejection]()
    for (image_id, name), (_, result) in zip(images, map_photos(score, rows, config.workers, advance), strict=True):
        if isinstance(result, ImageError):
            rejections.append(Rejection(split=split, image_id=image_id, file_name=name, reason=str(result)))
        else:
            names.append(name)
            scores.append(list(result.to_dict().values()))
    return QualitySurvey(
        split=split,
        side=config.side,
        thresholds=config.thresholds,
        photos=photos,
        names=tuple(names),
        scores=np.array(scores, np.float64).reshape(-1, len(NAMES)),
        rejections=tuple(rejections),
    )
