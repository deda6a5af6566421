"""What a cache raises, and the remedies that its errors name."""

from __future__ import annotations

from pathlib import Path

from cache.messages import UserError, message

REBUILD = message("mend it with `verify --repair`")
"""The remedy for damaged data."""

RESUME = message("run the same `preprocess` again: it keeps the shards that are sound")
"""The remedy for a cache without a readable index."""


class CacheError(UserError):
    """An error of a cache that its user can correct; the message names the value, the limit and the remedy."""


class CacheMissingError(CacheError):
    """There is no finished cache at the path: it has no index."""


class CacheVersionError(CacheError):
    """The cache has a format version that this release does not know."""


class CacheStaleError(CacheError):
    """The cache was made from other sources, or with another specification, than those asked for."""


class CacheCorruptError(CacheError):
    """Bytes on disk differ from those that were written."""


class CacheWriteError(CacheError):
    """A shard could not be written: a full disk, missing permission, or a failure of the store."""


class StorageError(CacheError):
    """Object storage cannot be read or written; the message names the URL, the attempts and the remedy."""


def write_error(shard: Path, error: Exception) -> CacheWriteError:
    """A store failed to write a shard."""
    return CacheWriteError("cannot write {path}: {error}; free some space and run it again", path=shard, error=error)


def open_error(shard: Path, error: Exception) -> CacheCorruptError:
    """A store failed to open a finished shard."""
    return CacheCorruptError(
        "cannot open the shard {path}: {error}; {rebuild}", path=shard, error=error, rebuild=REBUILD
    )


def missing_row(shard: Path, row: int) -> CacheCorruptError:
    """A shard has no record of this row."""
    return CacheCorruptError("row {row} is missing in {path}; {rebuild}", row=row, path=shard, rebuild=REBUILD)
