"""The cache format on disk. Knows numpy, lmdb and zarr; neither torch nor COCO."""

from cache.errors import CacheError
from cache.index import CacheIndex
from cache.reader import CacheReader
from cache.spec import CacheSpec

__all__ = ["CacheError", "CacheIndex", "CacheReader", "CacheSpec"]
