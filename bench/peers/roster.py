"""Who takes part, and against whom."""

from __future__ import annotations

from pathlib import Path

from bench.peers.contestant import Contestant, Group
from bench.peers.entrants import PACKED, STREAMED, count, dali_alone, ffcv, limit, ours, rival, streamed, titled


def roster(threads: int, coco: Path, photos: int) -> tuple[Group, ...]:
    """All groups, each with its limits and with ours, and each so small that what it reads fits in memory.

    Args:
        threads: of those that are not measured with one thread; as many worker processes.
        coco: the dataset, for who reads photos.
        photos: how many of it.
    """
    each = sorted({1, threads})
    workers = rival("raw", threads)
    fly = {"coco": str(coco), "photos": photos}
    return (
        Group(
            "raw, threads",
            (
                *(limit("raw", number) for number in each),
                *(ours("native raw", number) for number in each),
                ours("resident raw", threads),
                ours("dali raw", threads),
                *(ffcv("raw", number, "", PACKED) for number in each),
                ffcv("raw", threads, " with its own planes", {"planes": "own"}),
            ),
        ),
        Group(
            "raw, one by one",
            (
                limit("raw", threads),
                ours("native raw", threads),
                ours("native raw light", threads),
                Contestant(name=f"DataLoader over our LMDB, {count(threads, 'worker')}", module="records", **workers),
                Contestant(name="DataLoader over our LMDB, in process", module="records", **workers | {"threads": 0}),
                *(
                    Contestant(
                        name=f"cv2.warpAffine + {name} in DataLoader, {count(threads, 'worker')}",
                        module="records",
                        check="shape",
                        options={"level": "light", "colours": colours},
                        **workers | {"rival": titled("native raw light", threads)},
                    )
                    for name, colours in (("NumPy", "numpy"), ("cv2.transform", "opencv"))
                ),
                Contestant(
                    name=f"DataLoader on the fly, {count(threads, 'worker')}",
                    module="on_the_fly",
                    check="close",
                    note="decodes, draws with pycocotools and resizes each sample anew",
                    options=fly,
                    **workers | {"limit": ""},
                ),
            ),
        ),
        Group(
            "raw, streamed",
            (
                limit("raw", threads),
                ours("native raw", threads),
                Contestant(
                    name=f"DataLoader over our Zarr, {count(threads, 'worker')}", module="zarr_arrays", **workers
                ),
                *(streamed(library, "raw", threads) for library in STREAMED),
                dali_alone("raw", threads),
            ),
        ),
        Group(
            "JPEG, threads",
            (
                *(limit("jpeg", number) for number in each),
                limit("raw", threads),  # of what is resident
                *(ours("native JPEG", number) for number in each),
                ours("native JPEG light", threads),
                ours("resident JPEG", threads),
                ours("resident JPEG light", threads),
                ours("dali JPEG", threads),
                *(ffcv("jpeg", number, "", {**PACKED, "chroma": "full"}) for number in each),
                *(ffcv("jpeg", number, " with half the colours", {**PACKED, "chroma": "half"}) for number in each),
            ),
        ),
        Group(
            "JPEG, streamed",
            (
                limit("jpeg", threads),
                ours("native JPEG", threads),
                *(streamed(library, "jpeg", threads) for library in STREAMED),
                dali_alone("jpeg", threads),
            ),
        ),
    )
