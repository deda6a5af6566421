"""What is measured: limits, our loaders and other libraries, in groups that are measured in the same rounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.peers.task import Entry
from cache.choices import Backend, Codec, Level
from cache.messages import Message, message
from preprocess.dataset import Location

WORDS: dict[Codec, str] = {"raw": "raw", "jpeg": "JPEG"}

STREAMED = {
    "WebDataset": ("streams:open_webdataset", "common:write_tars", "tars"),
    "LitData": ("streams:open_litdata", "streams:write_litdata", "litdata"),
    "MosaicML Streaming": ("streams:open_mosaic", "streams:write_mosaic", "mds"),
}
"""Libraries that read files through worker processes: opener, writer, and name of the dataset without its codec."""


def entry_groups(threads: int, coco: Location, photos: int) -> dict[str, list[Entry]]:
    """All groups by name, each with its limits and with ours, and each so small that what it reads fits in memory.

    Entries run with one thread, and with so many threads or worker processes. Those that read photos take so many of
    the dataset `coco`.
    """
    each = sorted({1, threads})
    half = message("FFCV JPEG with half the colours")
    return {
        message("raw, threads"): [
            *(limit("raw", number) for number in each),
            *(ours("native", "raw", number) for number in each),
            ours("resident", "raw", threads),
            ours("dali", "raw", threads),
            *(_ffcv("FFCV raw", "raw", number) for number in each),
        ],
        message("raw, one by one"): [
            limit("raw", threads),
            ours("native", "raw", threads),
            ours("native", "raw", threads, "light"),
            *_data_loaders(threads, coco, photos),
        ],
        message("raw, streamed"): [limit("raw", threads), ours("native", "raw", threads), *_streamed("raw", threads)],
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
        ],
        message("JPEG, streamed"): [
            limit("jpeg", threads),
            ours("native", "jpeg", threads),
            *_streamed("jpeg", threads),
        ],
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
    return _other(name, "ffcv_beton:open_file", codec, threads, "thread", **fields)


def _streamed(codec: Codec, threads: int) -> list[Entry]:
    """All that read files from end to end."""
    found = []
    for name, (opener, writer, dataset) in STREAMED.items():
        files = {"environment": "streams", "writer": writer, "dataset": f"{dataset}-{codec}"}
        found.append(_other(f"{name} {WORDS[codec]}", opener, codec, threads, **files))
    alone = message("DALI alone {codec}", codec=WORDS[codec])
    files = {"writer": "common:write_tars", "dataset": f"tars-{codec}"}
    check = "same" if codec == "raw" else "close"
    note = message("DALI alone reads WebDataset's tar files, on the CPU")
    return [*found, _other(alone, "own:open_dali", codec, threads, "thread", check=check, note=note, **files)]


def _data_loaders(threads: int, coco: Location, photos: int) -> list[Entry]:
    """Torch's DataLoader over our records, without and with augmentation, and over the photos themselves."""
    over_lmdb = _other(message("DataLoader over our LMDB"), "own:open_lmdb", "raw", threads)
    in_process = dataclasses.replace(over_lmdb, name=message("DataLoader over our LMDB, in process"), threads=0)
    augmented = _other(
        message("cv2.warpAffine + cv2.transform in DataLoader"),
        "own:open_lmdb",
        "raw",
        threads,
        check="shape",
        compare_to=ours("native", "raw", threads, "light").name,
        options={"level": "light"},
    )
    on_the_fly = _other(
        message("DataLoader on the fly"),
        "own:open_photos",
        "raw",
        threads,
        check="close",
        limit="",
        note=message("decodes, draws with pycocotools and resizes each sample anew"),
        options={"coco": str(coco), "photos": photos},
    )
    return [over_lmdb, in_process, augmented, on_the_fly]


def _other(name: str, opener: str, codec: Codec, threads: int, unit: str = "worker", **fields: Any) -> Entry:
    """Another library, with the limit of our native loader of the same codec and compared with that."""
    mine = ours("native", codec, threads)
    fields = {"limit": mine.limit, "compare_to": mine.name, **fields}
    return Entry(name=_titled(name, threads, unit), opener=opener, codec=codec, threads=threads, **fields)


def _titled(name: str, threads: int, unit: str = "thread") -> str:
    """A name with its threads or workers: `native raw, 2 threads`."""
    templates = {
        ("thread", True): message("{name}, {threads} thread"),
        ("thread", False): message("{name}, {threads} threads"),
        ("worker", True): message("{name}, {threads} worker"),
        ("worker", False): message("{name}, {threads} workers"),
    }
    return Message(templates[unit, threads == 1], name=name, threads=threads)
