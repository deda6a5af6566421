"""The kinds of contestants: limits, loaders of ours, other libraries."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.peers.contestant import Contestant
from cache.spec import Codec

OURS: dict[str, tuple[Codec, dict[str, str]]] = {
    "native raw": ("raw", {"backend": "native"}),
    "native raw light": ("raw", {"backend": "native", "level": "light"}),
    "resident raw": ("raw", {"backend": "resident"}),
    "dali raw": ("raw", {"backend": "dali"}),
    "native JPEG": ("jpeg", {"backend": "native"}),
    "native JPEG light": ("jpeg", {"backend": "native", "level": "light"}),
    "resident JPEG": ("jpeg", {"backend": "resident"}),
    "resident JPEG light": ("jpeg", {"backend": "resident", "level": "light"}),
    "dali JPEG": ("jpeg", {"backend": "dali"}),
}
"""Our loaders by name: the codec of the cache, and the options of `bench.peers.contestants.ours`."""

LIMITS = {"raw": "copying the same bytes", "jpeg": "decoding the same JPEGs"}
"""What a loader without augmentation cannot beat, by codec."""

WORDS = {"raw": "raw", "jpeg": "JPEG"}


class Streamed(NamedTuple):
    """A library that reads files through worker processes."""

    name: str
    module: str
    dataset: str


STREAMED = (
    Streamed("WebDataset", "webdataset_shards", "tars"),
    Streamed("LitData", "litdata_chunks", "litdata"),
    Streamed("MosaicML Streaming", "mosaic_shards", "mds"),
)

DCT = "FFCV decodes with the fast, less exact DCT"
PACKED = {"planes": "packed"}


def count(number: int, unit: str = "thread") -> str:
    """`1 thread`, `2 workers`, ..."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def titled(name: str, threads: int) -> str:
    """A name with its threads."""
    return f"{name}, {count(threads)}"


def limit(codec: Codec, threads: int) -> Contestant:
    """What a loader of this codec cannot beat."""
    return Contestant(name=titled(LIMITS[codec], threads), module="limits", threads=threads, codec=codec, check="shape")


def ours(name: str, threads: int) -> Contestant:
    """One of `OURS`."""
    codec, options = OURS[name]
    exact = codec == "raw" or options["backend"] != "dali"  # DALI has a JPEG decoder of its own
    decoded = codec == "raw" or options["backend"] == "resident"  # before the first epoch
    return Contestant(
        name=titled(name, threads),
        module="ours",
        threads=threads,
        codec=codec,
        check="shape" if "level" in options else "same" if exact else "close",
        limit=limit("raw" if decoded else codec, threads).name,
        options={**options, "cache": f"cache-{codec}"},
    )


def rival(codec: Codec, threads: int) -> dict[str, Any]:
    """What a contestant of this codec is compared with."""
    mine = ours(f"native {WORDS[codec]}", threads)
    return {"codec": codec, "threads": threads, "rival": mine.name, "limit": mine.limit}


def ffcv(codec: Codec, threads: int, form: str, options: dict[str, str]) -> Contestant:
    """FFCV; `form` says in its name what `options` say to its module."""
    compared = rival(codec, threads)
    if options.get("chroma") == "half":  # these are not the same JPEGs
        compared["limit"] = ""
    return Contestant(
        name=titled(f"FFCV {WORDS[codec]}{form}", threads),
        module="ffcv_beton",
        environment="ffcv",
        dataset="-".join(["ffcv", codec, *options.values()]),
        check="same" if codec == "raw" else "close",
        note=DCT if codec == "jpeg" else "",
        options=options,
        **compared,
    )


def streamed(library: Streamed, codec: Codec, threads: int) -> Contestant:
    """One of `STREAMED`."""
    return Contestant(
        name=f"{library.name} {WORDS[codec]}, {count(threads, 'worker')}",
        module=library.module,
        environment="streams",
        dataset=f"{library.dataset}-{codec}",
        **rival(codec, threads),
    )


def dali_alone(codec: Codec, threads: int) -> Contestant:
    """DALI without us."""
    return Contestant(
        name=titled(f"DALI alone {WORDS[codec]}", threads),
        module="dali_tars",
        dataset=f"tars-{codec}",
        check="same" if codec == "raw" else "close",
        note="DALI alone reads WebDataset's tar files, on the CPU",
        **rival(codec, threads),
    )
