"""The specification of a cache: what decides the bytes of its records, and their checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, get_args

from cache.choices import Codec, Crowd, Fit, ImageRule, Orientation, Store
from cache.errors import CacheError
from cache.messages import differences, message

FORMAT_VERSION = 2
"""Version of the layout on disk (index, sample table, record). Readers refuse any other."""

SIDE_MULTIPLE = 32
"""Every network downsamples by at most this much, and a row of a bit plane is then a whole number of words."""

MAX_SIDE = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Everything that decides the bytes of a record: two caches of equal spec and sources are equal."""

    side: int = 384  # side of the square image and of both planes, in pixels; a multiple of 32
    fit: Fit = "letterbox"  # `letterbox` keeps the aspect and centres, `stretch` fills the square
    codec: Codec = "raw"  # `raw` pixels (fixed size, read without a copy) or `jpeg`
    store: Store = "lmdb"
    images: ImageRule = "person"  # the rule by which images count
    crowd: Crowd = "ignore"  # what becomes of crowd regions: part of `ignore`, part of `person`, or dropped
    jpeg_quality: int = 95  # 1 to 100; only the `jpeg` codec reads it. Chroma is never subsampled.
    # Name of the category whose masks the plane `person` holds; a tuple of several names, in alphabetical order and
    # each once, stands for their union.
    category: str | tuple[str, ...] = "person"
    limit: int = 0  # only so many images of each split, evenly over it; 0 takes all
    shard_samples: int = 128  # source images in a shard, on average; also the unit of resuming and of rebuilding
    # Whether annotations are of the `stored` pixels of a photo, as COCO's are, or of the `upright` photo that its EXIF
    # orientation makes of them; `auto` decides photo by photo, see `preprocess.build.record`.
    orientation: Orientation = "auto"
    outside: bool = False  # whether photos may lie outside the dataset's folder
    # The share of photos, by a hash of their names, that are `val` in a dataset without such a split.
    val_share: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.category, str):
            names = tuple(sorted(set(self.category)))
            object.__setattr__(self, "category", names[0] if len(names) == 1 else names)
        check_side(self.side)
        choices = {"fit": Fit, "codec": Codec, "store": Store, "images": ImageRule, "crowd": Crowd}
        for name, kind in (choices | {"orientation": Orientation}).items():
            value, allowed = getattr(self, name), ", ".join(get_args(kind))
            if value not in get_args(kind):
                raise CacheError(
                    "{name}={value!r} is not known; use one of {allowed}", name=name, value=value, allowed=allowed
                )
        if self.store == "zarr" and self.codec != "raw":
            raise CacheError(
                "codec={codec!r} is not possible with store='zarr'; use codec='raw' or store='lmdb'", codec=self.codec
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise CacheError("jpeg_quality={value} is not in 1..100; 95 is the default", value=self.jpeg_quality)
        if self.limit < 0:
            raise CacheError("limit={limit} is negative; 0 takes all images", limit=self.limit)
        if not self.category:
            raise CacheError("category={category} names no category; 'person' is the default", category=self.category)
        if not 0 <= self.val_share <= 0.9:
            raise CacheError("val_share={value} is not within 0..0.9; 0.1 takes a tenth", value=self.val_share)
        if self.shard_samples < 1:
            raise CacheError("shard_samples={value} is below 1; 128 is the default", value=self.shard_samples)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names in `category`, one or more."""
        return (self.category,) if isinstance(self.category, str) else self.category

    def fingerprint(self, sources: str) -> str:
        """Hash (64 hex digits) of this spec, the format version and a digest of the sources."""
        text = json.dumps([FORMAT_VERSION, self._counted(), sources], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def record_fingerprint(self) -> str:
        """Hash of what decides the bytes of one record, whatever else the cache holds."""
        fields = self._counted()
        for name in ("images", "limit", "shard_samples", "outside", "val_share"):  # which images, in which shard
            fields.pop(name, None)
        return hashlib.sha256(json.dumps([FORMAT_VERSION, fields], sort_keys=True).encode()).hexdigest()

    def _counted(self) -> dict[str, Any]:
        """All fields; those that came later only where they are not the default, so that older caches stay valid."""
        fields = dataclasses.asdict(self)
        for name in ("orientation", "outside", "val_share"):
            if fields[name] == getattr(type(self), name):
                del fields[name]
        return fields

    def differences(self, other: CacheSpec) -> list[str]:
        """Fields in which `other` differs, see `cache.messages.differences`."""
        mine, theirs = (dataclasses.asdict(s) | {"category": ", ".join(s.categories)} for s in (self, other))
        return differences(mine, theirs)


def things(category: str | Sequence[str], number: int = 2) -> str:
    """What the masks of a category or of several show, as a message: `person` or `persons`; else their names."""
    names = (category,) if isinstance(category, str) else tuple(category)
    if names != ("person",):
        return ", ".join(names)
    return message("person") if number == 1 else message("persons")


def check_side(side: int) -> None:
    """Raise a `CacheError` for a side that is not a multiple of 32 within 32..4096; it names the nearest that are."""
    if not SIDE_MULTIPLE <= side <= MAX_SIDE:
        limits = {"least": SIDE_MULTIPLE, "most": MAX_SIDE}
        raise CacheError("side={side} is not within {least}..{most}; 256, 384 and 512 are usual", side=side, **limits)
    if side % SIDE_MULTIPLE:
        low = side // SIDE_MULTIPLE * SIDE_MULTIPLE
        near = {"unit": SIDE_MULTIPLE, "low": low, "high": low + SIDE_MULTIPLE}
        raise CacheError("side={side} is not a multiple of {unit}; use {low} or {high}", side=side, **near)
