"""What is in a dataset, and what is in a cache: numbers, and the values behind them for a picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from cache.reader import CacheReader
from cache.spec import CacheSpec, ImageRule
from preprocess.coco import PersonTable
from preprocess.select import rule_counts, sum_per_image

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

QUANTILES = (5, 25, 50, 75, 95)
"""Percent; of the person fraction in a cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Of some numbers, in their own unit."""

    minimum: float
    median: float
    mean: float
    maximum: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """What an annotation file holds.

    A *valid* person is one that is no crowd and has a labelled keypoint; where no annotation of the file has any, one
    that is no crowd.

    Attributes:
        images: in the file, whatever they show.
        annotations: of the category; those that cannot be drawn included.
        unreadable: annotations that cannot be drawn; they are in no other number.
        crowds: crowd regions.
        valid_persons: see above.
        by_keypoints: whether keypoints decided.
        images_with_valid_persons: images with at least one.
        persons_per_image_mean, persons_per_image_max: valid persons, over the images that have one.
        area: of the valid persons, pixels, as the JSON says; None where it says none.
        rules: images that each rule selects.
        width, height: of all images, pixels; None without images.
    """

    images: int
    annotations: int
    unreadable: int
    crowds: int
    valid_persons: int
    by_keypoints: bool
    images_with_valid_persons: int
    persons_per_image_mean: float
    persons_per_image_max: int
    area: Summary | None
    rules: dict[ImageRule, int]
    width: Summary | None
    height: Summary | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheStatistics:
    """What a split of a cache holds.

    Attributes:
        split: `train` or `val`.
        spec: how it was made.
        samples, rejected: images that became records, and that did not.
        without_person: samples without a person pixel.
        persons: annotated persons that are no crowd.
        persons_per_image_mean, persons_per_image_max: over all samples.
        person_fraction: of a photo's pixels in the square, 0 to 1.
        person_fraction_quantiles: percent -> fraction; see `QUANTILES`.
        width, height: native, pixels.
        bytes: of its shards on disk.
        bytes_per_sample: on disk, with what the store adds.
    """

    split: str
    spec: CacheSpec
    samples: int
    rejected: int
    without_person: int
    persons: int
    persons_per_image_mean: float
    persons_per_image_max: int
    person_fraction: Summary
    person_fraction_quantiles: dict[int, float]
    width: Summary
    height: Summary
    bytes: int
    bytes_per_sample: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Distributions:
    """The values behind the statistics, for a histogram.

    Attributes:
        name: of the split.
        persons: `(n,)` persons in each image that has one.
        share: `(m,)` percent of the image, more than 0: of each valid person, or of all persons of a sample together.
        each: `person` or `sample`: what a share is of.
    """

    name: str
    persons: I64
    share: F64
    each: str


def analyze(table: PersonTable) -> Statistics:
    """Count what an annotation file holds."""
    valid = valid_persons(table)
    per_image = sum_per_image(table, valid.astype(np.int64))
    per_image = per_image[per_image > 0]
    return Statistics(
        images=len(table),
        annotations=len(table.annotation_id) + len(table.problems),
        unreadable=len(table.problems),
        crowds=int(table.iscrowd.sum()),
        valid_persons=int(valid.sum()),
        by_keypoints=bool(table.keypoints.any()),
        images_with_valid_persons=len(per_image),
        persons_per_image_mean=float(per_image.mean()) if len(per_image) else 0.0,
        persons_per_image_max=int(per_image.max(initial=0)),
        area=_summarize_finite(table.area[valid]),
        rules=rule_counts(table),
        width=_summarize_finite(table.width),
        height=_summarize_finite(table.height),
    )


def distributions(table: PersonTable, name: str) -> Distributions:
    """The values behind `analyze`: valid persons of each image that has one, and the area of each in its image."""
    valid = valid_persons(table)
    per_image = sum_per_image(table, valid.astype(np.int64))
    image = table.annotation_image[valid]
    share = 100 * table.area[valid] / (table.height[image] * table.width[image])
    return Distributions(name=name, persons=per_image[per_image > 0], share=share[share > 0], each="person")


def valid_persons(table: PersonTable) -> Mask:
    """`(A,)` whether each annotation is a valid person. See `Statistics`."""
    single: Mask = table.iscrowd == 0
    return single & (table.keypoints > 0) if table.keypoints.any() else single


def analyze_cache(reader: CacheReader) -> CacheStatistics:
    """Count what a split of a cache holds; reads its sample table only. A finished split has at least one sample."""
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
    """The values behind `analyze_cache`: persons of each sample that has one, and the share of all its persons."""
    persons = reader.samples["persons"].astype(np.int64)
    share = 100 * reader.samples["person_fraction"].astype(np.float64)
    return Distributions(name=reader.split, persons=persons[persons > 0], share=share[share > 0], each="sample")


def _summarize_finite(values: npt.NDArray[np.floating | np.integer]) -> Summary | None:
    """Of the finite values; None if there are none."""
    finite = values[np.isfinite(values)]
    return _summarize(finite) if len(finite) else None


def _summarize(values: npt.NDArray[np.floating | np.integer]) -> Summary:
    return Summary(
        minimum=float(values.min()),
        median=float(np.median(values)),
        mean=float(values.mean(dtype=np.float64)),
        maximum=float(values.max()),
    )
