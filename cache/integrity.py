"""Whether the shards of a split are as the index says: by checksum, and where that differs, record by record."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from cache.errors import CacheError
from cache.index import COLUMNS, ShardInfo, ShardManifest, check_samples, manifest_path
from cache.machine import processors
from cache.messages import message
from cache.process import end_with_parent
from cache.reader import CacheReader
from cache.record import checksum
from cache.shards import describe, open_reader

MOST_THREADS = 8
"""Shards read at a time if nobody says otherwise: one thread hashes some 10 GB/s, so more would wait for the disk."""

CHILD_SILENCE = 60.0
"""Seconds without a word after which a process that reads a damaged shard counts as lost."""

MOST_CRASHES = 3
"""Processes lost to one shard before the rest of it is not tried."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """What is wrong at `where`: at `train/00003.lmdb`, or at `train/00003.lmdb row 7, image 785`."""

    where: str
    what: str
    split: str = ""  # of the shard to be rebuilt; empty if that is no remedy
    shard: str = ""


def check_split(
    reader: CacheReader, progress: Callable[[int], None] | None = None, *, threads: int = 0
) -> Iterator[Damage]:
    """Compare every shard of a split, and what is known of it, with the index; yield what differs, in their order.

    A shard whose checksum agrees has the bytes with which it was finished, all of them: only number and sizes of its
    records are checked. Where it differs, each record is compared with its own checksum: so the bad ones are named.

    `progress` is called with the number of samples just checked. `threads` shards are read at a time; 0 takes one per
    processor, but no more than `MOST_THREADS`.
    """
    shards = reader.info.shards

    def check(number: int) -> Damage | None:
        info = shards[number]
        if damage := check_shard(reader, info):
            return damage  # to open it could crash
        try:
            path = reader.directory / info.name
            with closing(open_reader(reader.index.spec.store, path, reader.layout, info.rows)) as opened:
                for row in range(info.rows):
                    opened.fields(row)
        except CacheError as error:
            return Damage(where=f"{reader.split}/{info.name}", what=str(error), split=reader.split, shard=info.name)
        return None

    pool = ThreadPoolExecutor(threads or min(processors(), MOST_THREADS), thread_name_prefix="integrity")
    try:
        for number, damage in enumerate(pool.map(check, range(len(shards)))):
            samples = (reader.samples["shard"] == number).nonzero()[0].tolist()
            if damage:
                yield damage
                if (reader.directory / damage.shard).exists():
                    yield from _check_records_apart(reader, samples)
            if damage := check_manifest(reader, number):
                yield damage
            if progress:
                progress(shards[number].rows)
    finally:
        pool.shutdown(cancel_futures=True)


def check_shard(reader: CacheReader, info: ShardInfo) -> Damage | None:
    """Compare all bytes of a shard with the index, without opening it."""
    path = reader.directory / info.name
    damage = partial(Damage, where=f"{reader.split}/{info.name}", split=reader.split, shard=info.name)
    if not path.exists():
        return damage(what=message("the shard is missing"))
    try:
        found = describe(path, info.rows)
    except OSError as error:
        return damage(what=message("it cannot be read: {error}", error=error))
    if found.bytes != info.bytes:
        return damage(what=message("it has {found:,} bytes, not {bytes:,}", found=found.bytes, bytes=info.bytes))
    if found.checksum != info.checksum:
        values = {"found": found.checksum, "checksum": info.checksum}
        return damage(what=message("its checksum is {found}, not {checksum}", **values))
    return None


def check_manifest(reader: CacheReader, number: int) -> Damage | None:
    """Compare the manifest of a shard, by its number, with its own checksum, the index and the sample table."""
    info = reader.info.shards[number]
    path = manifest_path(reader.directory, info.name)
    damage = partial(Damage, where=f"{reader.split}/{path.name}", split=reader.split, shard=info.name)
    try:
        manifest = ShardManifest.load(path)
        if manifest.shard != info:
            return damage(what=message("it is not the manifest of the {name} in the index", name=info.name))
        table = manifest.table(0)
        check_samples(table, [info.rows], reader.layout.side, path)
    except (CacheError, OSError) as error:
        return damage(what=str(error))
    rows = reader.samples[reader.samples["shard"] == number]
    if len(rows) and not np.array_equal(rows[list(COLUMNS)], table[list(COLUMNS)]):
        return damage(what=message("its samples are not those of the sample table"))
    return None


def check_record(reader: CacheReader, sample: int) -> Damage | None:
    """Compare a record with its checksum in the sample table."""
    try:
        record = reader.record(sample)
        reader.layout.split(record)
    except CacheError as error:
        return _record_damage(reader, sample, str(error))
    if checksum(record) != int(reader.samples["checksum"][sample]):
        return _record_damage(reader, sample, message("the record's checksum differs"))
    return None


def _check_records_apart(reader: CacheReader, samples: list[int]) -> Iterator[Damage]:
    """`check_record` in a process of its own: LMDB trusts its pages, and damaged ones can crash a reader."""
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
            yield _record_damage(reader, lost, message("the store's own structure is damaged: it cannot be read"))
        finally:
            child.kill()
            child.join()
            ours.close()
    for rest in waiting:
        yield _record_damage(reader, rest, message("not tried: too much of the shard's structure is damaged"))


def _report_records(reader: CacheReader, samples: list[int], to: Connection) -> None:
    end_with_parent()
    for sample in samples:
        to.send(check_record(reader, sample))


def _record_damage(reader: CacheReader, sample: int, what: str) -> Damage:
    entry = reader.samples[sample]
    shard = reader.info.shards[entry["shard"]].name
    values = {"split": reader.split, "shard": shard, "row": entry["row"], "image": entry["image_id"]}
    where = message("{split}/{shard} row {row}, image {image}", **values)
    return Damage(where=where, what=what, split=reader.split, shard=shard)
