"""Records of Zarr shards in object storage, read where they are.

A record is a chunk of each of the three arrays, and these chunks lie in order and without gaps (see
`cache.zarr_shards`): so a range of bytes each is all that is asked for. Zarr-python, which reads the same, asks for the
index of a shard and then for the chunk: twice the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache.errors import REBUILD, CacheCorruptError
from cache.index import ShardInfo
from cache.record import Fields, RecordLayout
from cache.storage import Storage
from cache.zarr_shards import chunk_ranges


def read_records(
    storage: Storage, shards: tuple[ShardInfo, ...], layout: RecordLayout, places: Sequence[tuple[int, int]]
) -> list[Fields]:
    """The parts of records, all of them asked for at the same time.

    Args:
        storage: the folder of the split.
        shards: of the split.
        layout: of their records.
        places: (shard, row) of each record.

    Raises:
        StorageError: they cannot be read.
        CacheCorruptError: a shard is missing or too short.
    """
    wanted = [
        (f"{shards[shard].name}/{name}", first, end)
        for shard, row in places
        for name, first, end in chunk_ranges(row, layout.side)
    ]
    try:
        found = storage.read_ranges(wanted)
    except FileNotFoundError as error:
        raise CacheCorruptError(
            "a shard is missing in {root}: {error}; {rebuild}", root=storage.root, error=error, rebuild=REBUILD
        ) from None
    for (name, first, end), data in zip(wanted, found, strict=True):
        if len(data) != end - first:
            raise CacheCorruptError("{root} ends within a record; {rebuild}", root=storage.root / name, rebuild=REBUILD)
    fields = [np.frombuffer(data, np.uint8) for data in found]
    return [Fields(*fields[at : at + 3]) for at in range(0, len(fields), 3)]
