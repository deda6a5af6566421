REBUILD = "mend it with `verify --repair`"
"""The remedy for what is damaged."""

GO_ON = "run the same `preprocess` again: it keeps the shards that are sound"
"""The remedy for a cache without a readable index."""


class CacheError(ValueError):
    """Something about a cache that its user can mend; the message names the value, the limit and the remedy."""


class CacheMissingError(CacheError):
    """There is no finished cache at the path: its index, the commit mark, is not there."""


class CacheVersionError(CacheError):
    """The cache has a format version that this release does not know."""


class CacheStaleError(CacheError):
    """The cache was made from other sources, or with another specification, than those asked for."""


class CacheCorruptError(CacheError):
    """Bytes on disk are not those that were written."""


class CacheWriteError(CacheError):
    """A shard could not be written: a full disk, missing permission, or a store that gave up."""


class StorageError(CacheError):
    """Object storage cannot be read or written; the message names the URL, the attempts and the remedy."""
