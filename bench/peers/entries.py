"""What is measured: limits, our loaders and other libraries', in groups that can be compared run by run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bench.peers.task import Entry
from cache.choices import Codec
from cache.messages import message

OURS: dict[str, tuple[Codec, dict[str, str]]] = {
    message("native raw"): ("raw", {"backend": "native"}),
    message("native raw light"): ("raw", {"backend": "native", "level": "light"}),
    message("resident raw"): ("raw", {"backend": "resident"}),
    message("dali raw"): ("raw", {"backend": "dali"}),
    message("native JPEG"): ("jpeg", {"backend": "native"}),
    message("native JPEG light"): ("jpeg", {"backend": "native", "level": "light"}),
    message("resident JPEG"): ("jpeg", {"backend": "resident"}),
    message("resident JPEG light"): ("jpeg", {"backend": "resident", "level": "light"}),
    message("dali JPEG"): ("jpeg", {"backend": "dali"}),
}
"""Our loaders by name: the codec of the cache, and the options of `bench.peers.contestants.ours`."""

LIMITS = {"raw": message("copying the same bytes"), "jpeg": message("decoding the same JPEGs")}
"""What bounds a loader without augmentation, by codec."""

WORDS = {"raw": "raw", "jpeg": "JPEG"}

STREAMED = {
    "WebDataset": ("webdataset_shards", "tars"),
    "LitData": ("litdata_chunks", "litdata"),
    "MosaicML Streaming": ("mosaic_shards", "mds"),
}
"""Libraries that read files through worker processes: their modules, and their datasets but for the codec."""

AUGMENTED = {"NumPy": "numpy", "cv2.transform": "opencv"}
"""How OpenCV's augmentation changes colours: the name in rows, and the option of `bench.peers.contestants.records`."""


def _titled(name: str, threads: int, unit: str = "thread") -> str:
    """A name with its threads: `native raw, 2 threads`."""
    return f"{name}, {threads} {unit}{'' if threads == 1 else 's'}"


def limit(codec: Codec, threads: int) -> Entry:
    """What bounds loaders of this codec."""
    return Entry(name=_titled(LIMITS[codec], threads), module="limits", threads=threads, codec=codec, check="shape")


def ours(name: str, threads: int) -> Entry:
    """One of `OURS`."""
    codec, options = OURS[name]
    exact = codec == "raw" or options["backend"] != "dali"  # DALI has a JPEG decoder of its own
    decoded = codec == "raw" or options["backend"] == "resident"  # before the first epoch
    return Entry(
        name=_titled(name, threads),
        module="ours",
        threads=threads,
        codec=codec,
        check="shape" if "level" in options else "same" if exact else "close",
        limit=limit("raw" if decoded else codec, threads).name,
        options={**options, "cache": f"cache-{codec}"},
    )


def _other(name: str, module: str, codec: Codec, threads: int, unit: str = "worker", **fields: Any) -> Entry:
    """Another library, with the limit of our native loader of the same codec and compared with that."""
    mine = ours(message("native {words}", words=WORDS[codec]), threads)
    compared = {"limit": mine.limit, "compare_to": mine.name, **fields}
    return Entry(name=_titled(name, threads, unit), module=module, codec=codec, threads=threads, **compared)


def _ffcv(codec: Codec, threads: int, form: str = "", **options: str) -> Entry:
    """FFCV; `form` says in its name what `options` say to its module."""
    options = {"planes": "packed", **options}
    fields: dict[str, Any] = {"check": "same"} if codec == "raw" else {"check": "close"}
    if codec == "jpeg":
        fields["note"] = message("FFCV decodes with the fast, less exact DCT")
    if options.get("chroma") == "half":  # these are not the same JPEGs
        fields["limit"] = ""
    return _other(
        f"FFCV {WORDS[codec]}{form}",
        "ffcv_beton",
        codec,
        threads,
        "thread",
        environment="ffcv",
        dataset="-".join(["ffcv", codec, *options.values()]),
        options=options,
        **fields,
    )


def _streamed(codec: Codec, threads: int) -> list[Entry]:
    """All that read files from end to end."""
    libraries = [
        _other(f"{name} {WORDS[codec]}", module, codec, threads, environment="streams", dataset=f"{dataset}-{codec}")
        for name, (module, dataset) in STREAMED.items()
    ]
    dali = _other(
        message("DALI alone {words}", words=WORDS[codec]),
        "dali_tars",
        codec,
        threads,
        "thread",
        dataset=f"tars-{codec}",
        check="same" if codec == "raw" else "close",
        note=message("DALI alone reads WebDataset's tar files, on the CPU"),
    )
    return [*libraries, dali]


def _data_loaders(threads: int, coco: Path, photos: int) -> list[Entry]:
    """Torch's DataLoader over our records, without and with augmentation, and over the photos themselves."""
    over_lmdb = _other(message("DataLoader over our LMDB"), "records", "raw", threads)
    augmented = [
        _other(
            message("cv2.warpAffine + {name} in DataLoader", name=name),
            "records",
            "raw",
            threads,
            check="shape",
            compare_to=ours(message("native raw light"), threads).name,
            options={"level": "light", "colours": colours},
        )
        for name, colours in AUGMENTED.items()
    ]
    on_the_fly = _other(
        message("DataLoader on the fly"),
        "on_the_fly",
        "raw",
        threads,
        check="close",
        limit="",
        note=message("decodes, draws with pycocotools and resizes each sample anew"),
        options={"coco": str(coco), "photos": photos},
    )
    in_process = dataclasses.replace(over_lmdb, name=message("DataLoader over our LMDB, in process"), threads=0)
    return [over_lmdb, in_process, *augmented, on_the_fly]


def entry_groups(threads: int, coco: Path, photos: int) -> dict[str, list[Entry]]:
    """All groups by name, each with its limits and with ours, and each so small that what it reads fits in memory.

    Args:
        threads: of those that are not measured with one thread; as many worker processes.
        coco: the dataset, for entries that read photos.
        photos: how many of it.
    """
    each = sorted({1, threads})
    return {
        message("raw, threads"): [
            *(limit("raw", number) for number in each),
            *(ours(message("native raw"), number) for number in each),
            ours(message("resident raw"), threads),
            ours(message("dali raw"), threads),
            *(_ffcv("raw", number) for number in each),
            _ffcv("raw", threads, message(" with its own planes"), planes="own"),
        ],
        message("raw, one by one"): [
            limit("raw", threads),
            ours(message("native raw"), threads),
            ours(message("native raw light"), threads),
            *_data_loaders(threads, coco, photos),
        ],
        message("raw, streamed"): [
            limit("raw", threads),
            ours(message("native raw"), threads),
            _other(message("DataLoader over our Zarr"), "zarr_arrays", "raw", threads),
            *_streamed("raw", threads),
        ],
        message("JPEG, threads"): [
            *(limit("jpeg", number) for number in each),
            limit("raw", threads),  # of what is resident
            *(ours(message("native JPEG"), number) for number in each),
            ours(message("native JPEG light"), threads),
            ours(message("resident JPEG"), threads),
            ours(message("resident JPEG light"), threads),
            ours(message("dali JPEG"), threads),
            *(_ffcv("jpeg", number, chroma="full") for number in each),
            *(_ffcv("jpeg", number, message(" with half the colours"), chroma="half") for number in each),
        ],
        message("JPEG, streamed"): [
            limit("jpeg", threads),
            ours(message("native JPEG"), threads),
            *_streamed("jpeg", threads),
        ],
    }
