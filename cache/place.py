"""Where a cache lies: a folder of this machine, or a place in object storage."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

LOCAL_PREFIXES = ("file://", "local://")


class StorageUrl(PurePosixPath):
    """A place in object storage, as `s3://bucket/cache`.

    It joins names as a path does, and has none of the methods by which a local file is opened: whoever means to read
    one goes through `cache.storage`.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":")
        return f"{scheme}://{rest.removeprefix('/')}"  # of two slashes, a path keeps one or none

    @property
    def scheme(self) -> str:
        """Its protocol: `s3`, `gs` and so on."""
        return self.parts[0].removesuffix(":")


def is_url(text: str | PurePath) -> bool:
    """Whether it names a place in object storage."""
    if isinstance(text, PurePath):
        return isinstance(text, StorageUrl)
    return "://" in text and not text.startswith(LOCAL_PREFIXES)


def place(text: str | PurePath) -> PurePath:
    """What a user named: a `StorageUrl` if it has a protocol that is not `file`, else a `Path`."""
    if isinstance(text, PurePath):
        return text
    if is_url(text):
        return StorageUrl(text)
    for prefix in LOCAL_PREFIXES:
        text = text.removeprefix(prefix)
    return Path(text)
