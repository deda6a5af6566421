"""What is measured: limits, our loaders and other libraries, in groups that are measured in the same rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.peers.task import OWN, Entry
from cache.choices import Backend, Codec, Level
from cache.messages import Message, message
from loader.augment import LEVELS

WORDS: dict[Codec, str] = {"raw": "raw", "jpeg": "JPEG"}

STREAMED = {
    "WebDataset": ("streams:open_webdataset", "common:write_tars", "tars", "webdataset"),
    "LitData": ("streams:open_litdata", "streams:write_litdata", "litdata", "litdata"),
    "MosaicML Streaming": ("streams:open_mosaic", "streams:write_mosaic", "mds", "mosaicml-streaming"),
}
"""Libraries that read files through worker processes: opener, writer, name of the dataset less its codec, package."""

ARRAY: dict[str, Any] = {"writer": "arrays:write_records", "dataset": "records"}
MONAI: dict[str, Any] = {"environment": "monai", "threads": 1}
GRAIN: dict[str, Any] = {"writer": "arrays:write_array_record", "dataset": "array-record", "environment": "grain"}

PACKAGES = {OWN: (), "free-threaded": ("numpy",)}
"""Packages whose versions are told of the entries of an environment; of others, the one that it is named after."""


def entry_groups(threads: int) -> dict[str, list[Entry]]:
    """All groups by name, each with its limits and with ours, and each so small that what it reads fits in memory.

    Entries run with one thread, and with so many threads or worker processes, but as each library's guide advises.
    """
    each = sorted({1, threads})
    half = message("FFCV JPEG with half the colours")
    raw = partial(_other, codec="raw", threads=threads)
    return {
        message("raw, threads"): [
            *(limit("raw", number) for number in each),
            *(ours("native", "raw", number) for number in each),
            ours("resident", "raw", threads),
            ours("dali", "raw", threads),
            *(_ffcv("FFCV raw", "raw", number) for number in each),
            *(_other(message("NumPy alone"), "arrays:open_numpy", "raw", number, **ARRAY) for number in each),
            raw(message("NumPy, free-threaded Python"), "arrays:open_numpy", environment="free-threaded", **ARRAY),
            raw("SPDL raw", "augmentation:open_spdl", environment="spdl", **ARRAY),
        ],
        message("raw, one by one"): [
            *(limit("raw", number) for number in each),
            *(ours("native", "raw", number) for number in each),
            raw("DataLoader", "augmentation:open_loader", per="worker", **ARRAY),
            *(raw(f"MONAI {by}Dataset", "streams:open_monai", options={"by": by}, **MONAI) for by in ("Cache", "LMDB")),
        ],
        message("raw, streamed"): [
            *_streamed("raw", threads),
            raw("Grain raw", "arrays:open_grain", per="worker", options={"by": "worker"}, **GRAIN),
            raw("Grain raw", "arrays:open_grain", options={"by": "thread"}, **GRAIN),
        ],
        message("raw, augmented"): list(_augmented(threads)),
        message("JPEG, threads"): [
            *(limit("jpeg", number) for number in each),
            limit("raw", threads),  # of what is resident
            *(ours("native", "jpeg", number) for number in each),
            ours("native", "jpeg", threads, "light"),
            ours("resident", "jpeg", threads),
            ours("resident", "jpeg", threads, "light"),
            ours("dali", "jpeg", threads),
            *(_ffcv("FFCV JPEG", "jpeg", number, chroma="full") for number in each),
            *(_ffcv(half, "jpeg", number, chroma="half", limit="") for number in each),  # these are not the same JPEGs
            _other("SPDL JPEG", "augmentation:open_spdl", "jpeg", threads, environment="spdl", check="close"),
        ],
        message("JPEG, streamed"): list(_streamed("jpeg", threads)),
    }


def limit(codec: Codec, threads: int) -> Entry:
    """What bounds loaders of this codec without augmentation."""
    name = message("copying the same bytes") if codec == "raw" else message("decoding the same JPEGs")
    return Entry(name=_titled(name, threads), opener="own:open_limit", threads=threads, codec=codec, check="shape")


def ours(backend: Backend, codec: Codec, threads: int, level: Level = "none") -> Entry:
    """One of our loaders."""
    name = f"{backend} {WORDS[codec]}" if level == "none" else f"{backend} {WORDS[codec]} {level}"
    exact = (backend, codec) != ("dali", "jpeg")  # DALI has a JPEG decoder of its own
    return Entry(
        name=_titled(name, threads),
        opener="own:open_ours",
        threads=threads,
        codec=codec,
        check="shape" if level != "none" else "same" if exact else "close",
        ours=True,
        limit=limit("raw" if backend == "resident" else codec, threads).name,  # the resident one has decoded all before
        options={"backend": backend, "level": level, "cache": f"cache-{codec}"},
    )


def _ffcv(name: str, codec: Codec, threads: int, *, chroma: str = "", **fields: Any) -> Entry:
    """FFCV; of a JPEG's colours see `bench.peers.libraries.ffcv_beton`."""
    fields |= {"environment": "ffcv", "writer": "ffcv_beton:write_file", "options": {"chroma": chroma}}
    fields["dataset"] = f"ffcv-{codec}-{chroma}" if chroma else f"ffcv-{codec}"
    if codec == "jpeg":
        fields |= {"check": "close", "note": message("FFCV decodes with the fast, less exact DCT")}
    return _other(name, "ffcv_beton:open_file", codec, threads, **fields)


def _streamed(codec: Codec, threads: int) -> Iterator[Entry]:
    """All that read files from end to end, after ours."""
    yield from (limit(codec, threads), ours("native", codec, threads))
    for name, (opener, writer, dataset, package) in STREAMED.items():
        files = {"environment": "streams", "writer": writer, "dataset": f"{dataset}-{codec}", "packages": (package,)}
        yield _other(f"{name} {WORDS[codec]}", opener, codec, threads, "worker", **files)


def _augmented(threads: int) -> Iterator[Entry]:
    """Augmentation `light` of raw records, by us and by other libraries."""
    loader, mine = "augmentation:open_loader", ours("native", "raw", threads, "light")
    yield from (limit("raw", threads), mine)
    for name, opener, environment, by, unit in (
        (message("cv2.warpAffine + cv2.transform in DataLoader"), loader, OWN, "opencv", "worker"),
        (message("cv2.warpAffine + cv2.transform in SPDL"), "augmentation:open_spdl", "spdl", "opencv", "thread"),
        ("torchvision v2", "own:open_torchvision", OWN, "torchvision", "worker"),
        ("AlbumentationsX", loader, "albumentationsx", "albumentations", "worker"),
        ("Kornia", "augmentation:open_kornia", "kornia", "", "thread"),
    ):
        options = {"by": by, "augment": dataclasses.asdict(LEVELS["light"])}
        fields = {"environment": environment, "check": "shape", "options": options, **ARRAY}
        if by == "torchvision":
            fields["packages"] = (by,)
        yield _other(name, opener, "raw", threads, unit, compare_to=mine.name, **fields)


def _other(name: str, opener: str, codec: Codec, threads: int, per: str = "thread", **fields: Any) -> Entry:
    """Another library, with the limit of our native loader of the same codec and compared with that."""
    mine, environment = ours("native", codec, threads), fields.get("environment", OWN)
    packages = PACKAGES.get(environment, (environment,))
    fields = {"limit": mine.limit, "compare_to": mine.name, "packages": packages, **fields}
    return Entry(name=_titled(name, threads, per), opener=opener, codec=codec, threads=threads, **fields)


def _titled(name: str, threads: int, per: str = "thread") -> str:
    """A name with its threads or workers: `native raw, 2 threads`."""
    templates = {
        ("thread", True): message("{name}, {threads} thread"),
        ("thread", False): message("{name}, {threads} threads"),
        ("worker", True): message("{name}, {threads} worker"),
        ("worker", False): message("{name}, {threads} workers"),
    }
    return Message(templates[per, threads == 1], name=name, threads=threads)
