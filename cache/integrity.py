from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from cache.errors import CacheError
from cache.index import ShardInfo
from cache.reader import CacheReader
from cache.record import checksum
from cache.shards import describe

CHILD_SILENCE = 60.0
"""Seconds without a word after which a process that reads a damaged shard counts as lost."""

MOST_CRASHES = 3
"""Processes lost to one shard before the rest of it is given up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong: where (`train/00003.lmdb`, or `train/00003.lmdb row 7, image 785`) and what."""

    where: str
    what: str


def check_split(reader: CacheReader, progress: Callable[[int], None] | None = None) -> Iterator[Damage]:
    """Compare every shard and every record of a split with the index; yield what differs.

    Args:
        reader: the split. Its index and sample table were checked on loading.
        progress: called with the number of samples just checked.
    """
    for number, info in enumerate(reader.info.shards):
        damage = check_shard(reader, info)
        samples = (reader.samples["shard"] == number).nonzero()[0].tolist()
        if damage is None:
            yield from (found for sample in samples if (found := check_record(reader, sample)))
        else:
            yield damage
            if (reader.root / reader.split / info.name).exists():
                yield from _check_records_apart(reader, samples)
        if progress:
            progress(len(samples))


def check_shard(reader: CacheReader, info: ShardInfo) -> Damage | None:
    """Compare all bytes of a shard with the index, without opening it."""
    path = reader.root / reader.split / info.name
    where = f"{reader.split}/{info.name}"
    if not path.exists():
        return Damage(where=where, what="the shard is missing")
    found = describe(path, info.rows)
    if found == info:
        return None
    if found.bytes != info.bytes:
        return Damage(where=where, what=f"it has {found.bytes:,} bytes, not {info.bytes:,}")
    return Damage(where=where, what=f"its checksum is {found.checksum}, not {info.checksum}")


def check_record(reader: CacheReader, sample: int) -> Damage | None:
    """Compare a record with its checksum in the sample table."""
    try:
        record = reader.record(sample)
        reader.layout.split(record)
    except CacheError as error:
        return Damage(where=_place(reader, sample), what=str(error))
    if checksum(record) != int(reader.samples["checksum"][sample]):
        return Damage(where=_place(reader, sample), what="the record's checksum differs")
    return None


def _check_records_apart(reader: CacheReader, samples: list[int]) -> Iterator[Damage]:
    """`check_record` in a process of its own: LMDB trusts its pages, and damaged ones can crash whoever reads them."""
    context = multiprocessing.get_context("spawn")
    waiting, crashes = list(samples), 0
    while waiting and crashes < MOST_CRASHES:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_report_records, args=(reader, waiting, theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            while waiting:
                if not ours.poll(CHILD_SILENCE):
                    raise EOFError
                found = ours.recv()
                waiting.pop(0)
                if found:
                    yield found
        except EOFError:
            crashes += 1
            lost = waiting.pop(0)
            yield Damage(where=_place(reader, lost), what="the store's own structure is damaged: it cannot be read")
        finally:
            child.kill()
            child.join()
            ours.close()
    for rest in waiting:
        yield Damage(where=_place(reader, rest), what="not tried: too much of the shard's structure is damaged")


def _report_records(reader: CacheReader, samples: list[int], to: Connection) -> None:
    for sample in samples:
        to.send(check_record(reader, sample))


def _place(reader: CacheReader, sample: int) -> str:
    entry = reader.samples[sample]
    return f"{reader.split}/{reader.info.shards[entry['shard']].name} row {entry['row']}, image {entry['image_id']}"
