"""The last step of a build: write the sample tables, the rejections and, last of all, the index."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import PurePath

import msgspec
import numpy as np
import xxhash

from cache import files
from cache.errors import CacheCorruptError
from cache.index import (
    INDEX_NAME,
    REJECTED_NAME,
    SAMPLES_NAME,
    CacheIndex,
    SourceInfo,
    SplitInfo,
    check_rejected,
    encode_index,
    encode_json,
    encode_table,
    load_table,
    manifest_path,
)
from cache.spec import CacheSpec
from preprocess.build.plan import SplitPlan
from preprocess.errors import DatasetError

TOOLS = ("numpy", "opencv-python-headless", "simplejpeg", "lmdb", "zarr")
"""Packages whose versions may change the records; the index names them."""


def commit(out: PurePath, spec: CacheSpec, plans: list[SplitPlan], before: CacheIndex | None) -> CacheIndex:
    """Write the sample tables, the rejections and, last, the index; then remove what no longer belongs to the cache.

    The shards of all `plans` are finished. Splits without a plan stay as they are in `before`, the index that is there.
    Raises `DatasetError`: a split has no sample. `StorageError`: object storage cannot be written.
    """
    if not (before or any(manifest.shard.rows for plan in plans for manifest in plan.manifests)):
        for plan in plans:  # shards without a record would be in the way of the build that mends what was wrong
            files.remove(out / plan.split.name)
    infos = dict(before.splits) if before else {}
    written: dict[str, dict[str, bytes]] = {}
    for plan in plans:
        infos[plan.split.name], written[plan.split.name] = _split_info(plan)
    sources = json.dumps({name: dataclasses.asdict(infos[name].source) for name in sorted(infos)})
    tools = {name: version(name) for name in TOOLS}
    index = CacheIndex(spec=spec, fingerprint=spec.fingerprint(sources), tools=tools, splits=infos)
    # An index must never name other tables than those that are there. Killed from here on, the next run finds every
    # shard finished and ends here again.
    files.remove(out / INDEX_NAME)
    for plan in plans:
        for name, data in written[plan.split.name].items():
            files.write(out / plan.split.name / name, data)
    files.write(out / INDEX_NAME, encode_index(index))
    for plan in plans:
        directory = out / plan.split.name
        shards = {shard.name for shard in infos[plan.split.name].shards}
        kept = {SAMPLES_NAME, REJECTED_NAME} | shards | {manifest_path(out, name).name for name in shards}
        for name in set(files.names(directory)) - kept:
            files.remove(directory / name)
    return index


def _split_info(plan: SplitPlan) -> tuple[SplitInfo, dict[str, bytes]]:
    """The index entry of a split, and its sample table and rejections as the bytes of files, by their names."""
    assert not plan.jobs
    manifests, split = plan.manifests, plan.split
    table = np.concatenate([manifest.table(shard) for shard, manifest in enumerate(manifests)])
    rejections = [rejection for manifest in manifests for rejection in manifest.rejections]
    if not len(table):
        first, count = rejections[0], len(split.rows)
        values = {"count": count, "split": split.name, "folder": split.folder, "file_name": first.file_name}
        raise DatasetError(
            "every one of the {count} images of {folder} for {split} was rejected; the first, {file_name}: {reason}",
            reason=first.reason,
            **values,
        )
    digest = xxhash.xxh3_128()
    for manifest in manifests:
        digest.update(msgspec.json.encode(manifest.sources))
    data, table_checksum = encode_table(table)
    lines = b"".join(encode_json(rejection) + b"\n" for rejection in plan.rejections)
    info = SplitInfo(
        samples=len(table),
        rejected=len(rejections),
        table_checksum=table_checksum,
        shards=tuple(manifest.shard for manifest in manifests),
        source=SourceInfo(annotations=split.annotations.name, images=digest.hexdigest()),
        rejected_checksum=xxhash.xxh3_128_hexdigest(lines),
    )
    return info, {SAMPLES_NAME: data, REJECTED_NAME: lines}


def tables_sound(out: PurePath, index: CacheIndex) -> bool:
    """Whether the sample tables and the rejections are what the index says."""
    try:
        for name, info in index.splits.items():
            load_table(out, name, info, index.spec.side)
            check_rejected(out, name, info)
    except CacheCorruptError:
        return False
    return True
