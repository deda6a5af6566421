"""Statistics of a dataset and of a cache, and the values behind them for histograms."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from cache.arrays import F64, I64, Flags
from cache.choices import ImageRule, Orientation
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.annotations.doubtful import doubtful_masks
from preprocess.annotations.select import rule_counts, sum_per_image
from preprocess.annotations.table import PersonTable

QUANTILES = (5, 25, 50, 75, 95)
"""Percentiles of the person fraction in a cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of some numbers, in their own unit."""

    minimum: float
    median: float
    mean: float
    maximum: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of an annotation file.

    A *valid* person is not a crowd and has a labelled keypoint; where no annotation of the file has any, it is enough
    not to be a crowd.
    """

    images: int
    annotations: int  # annotations of the category; those that cannot be drawn included
    unreadable: int  # annotations that cannot be drawn; they are in no other number
    crowds: int
    valid_persons: int
    by_keypoints: bool  # whether any annotation has keypoints
    images_with_valid_persons: int
    # persons_per_image_mean, persons_per_image_max: valid persons, over the images that have one.
    persons_per_image_mean: float
    persons_per_image_max: int
    area: Summary | None  # area of the valid persons in the JSON, pixels; None where it gives none
    rules: dict[ImageRule, int]
    # width, height: of all images, pixels; None without images.
    width: Summary | None
    height: Summary | None
    doubts: tuple[str, ...]  # what is doubtful of the masks; see `DoubtfulMasks`


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheStatistics:
    """Statistics of a split of a cache."""

    split: str
    spec: CacheSpec
    samples: int
    rejected: int
    without_person: int  # samples without a person pixel
    persons: int  # annotated persons that are not crowds
    persons_per_image_mean: float
    persons_per_image_max: int
    person_fraction: Summary  # share of a photo's pixels in the square, 0 to 1
    person_fraction_quantiles: dict[int, float]  # fraction by percent, for each of `QUANTILES`
    # width, height: size of the photos, pixels.
    width: Summary
    height: Summary
    # bytes, bytes_per_sample: size of its shards on disk.
    bytes: int
    bytes_per_sample: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Distributions:
    """The values behind the statistics, for a histogram."""

    name: str
    persons: I64  # `(n,)` persons in each image that has one
    share: F64  # `(m,)` percent of the image, more than 0, that each valid person or all persons of a sample cover
    each: str  # `person` or `sample`: what a share belongs to


def analyze(table: PersonTable, orientation: Orientation = "auto") -> Statistics:
    """Compute the statistics of an annotation file."""
    valid, per_image = _valid_persons(table)
    masks = doubtful_masks(table, orientation)
    return Statistics(
        images=len(table),
        annotations=len(table.annotation_id) + table.left_out,
        unreadable=table.left_out,
        crowds=int(table.iscrowd.sum()),
        valid_persons=int(valid.sum()),
        by_keypoints=bool(table.keypoints.any()),
        images_with_valid_persons=len(per_image),
        persons_per_image_mean=float(per_image.mean()) if len(per_image) else 0.0,
        persons_per_image_max=int(per_image.max(initial=0)),
        area=_summarize_finite(table.area[valid]),
        rules=rule_counts(table),
        width=_summarize_finite(table.width[table.width > 0]),
        height=_summarize_finite(table.height[table.height > 0]),
        doubts=(*masks.lines, *([masks.error] if masks.error else [])),
    )


def distributions(table: PersonTable, name: str) -> Distributions:
    """Valid persons of each image that has one, and the area of each in its image."""
    valid, per_image = _valid_persons(table)
    image = table.annotation_image[valid]
    share = 100 * table.area[valid] / (table.height[image] * table.width[image])
    return Distributions(name=name, persons=per_image, share=share[share > 0], each="person")


def _valid_persons(table: PersonTable) -> tuple[Flags, I64]:
    """Whether each annotation is a valid person `(A,)`, and their number in each image that has one."""
    valid: Flags = table.iscrowd == 0
    if table.keypoints.any():
        valid = valid & (table.keypoints > 0)
    per_image = sum_per_image(table, valid.astype(np.int64))
    return valid, per_image[per_image > 0]


def analyze_cache(reader: CacheReader) -> CacheStatistics:
    """Compute the statistics of a split of a cache from its sample table, which is never empty."""
    samples = reader.samples
    fraction = samples["person_fraction"].astype(np.float64)
    size = sum(shard.bytes for shard in reader.info.shards)
    return CacheStatistics(
        split=reader.split,
        spec=reader.index.spec,
        samples=len(samples),
        rejected=reader.info.rejected,
        without_person=int((fraction == 0).sum()),
        persons=int(samples["persons"].sum()),
        persons_per_image_mean=float(samples["persons"].mean()),
        persons_per_image_max=int(samples["persons"].max()),
        person_fraction=_summarize(fraction),
        person_fraction_quantiles=dict(zip(QUANTILES, np.percentile(fraction, QUANTILES).tolist(), strict=True)),
        width=_summarize(samples["width"]),
        height=_summarize(samples["height"]),
        bytes=size,
        bytes_per_sample=size / len(samples),
    )


def cache_distributions(reader: CacheReader) -> Distributions:
    """Persons of each sample that has one, and the share of all its persons."""
    persons = reader.samples["persons"].astype(np.int64)
    share = 100 * reader.samples["person_fraction"].astype(np.float64)
    return Distributions(name=reader.split, persons=persons[persons > 0], share=share[share > 0], each="sample")


def _summarize_finite(values: npt.NDArray[np.floating | np.integer]) -> Summary | None:
    finite = values[np.isfinite(values)]
    return _summarize(finite) if len(finite) else None


def _summarize(values: npt.NDArray[np.floating | np.integer]) -> Summary:
    return Summary(
        minimum=float(values.min()),
        median=float(np.median(values)),
        mean=float(values.mean(dtype=np.float64)),
        maximum=float(values.max()),
    )
