"""The versions that must be the same on the client and on every worker, so that all shards of a cache are alike."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from cache.messages import joined, message
from cache.spec import FORMAT_VERSION
from preprocess.commit import TOOLS
from preprocess.errors import ClusterError


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """The versions of the calling process, by what they are of."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        message("the cache format"): str(FORMAT_VERSION),
        "Python": python,
        **{name: _version(name) for name in ("maskcache", *TOOLS)},
    }


def check_environment(here: dict[str, str], worker: str, there: dict[str, str]) -> None:
    """Compare the client's versions with a worker's.

    Raises:
        ClusterError: they differ; the message names all that do.
    """
    names = sorted({*here, *there}, key=str.lower)
    wrong = [
        message(
            "{name} is {there}, here {here}",
            name=name,
            there=there.get(name, "missing"),
            here=here.get(name, "missing"),
        )
        for name in names
        if here.get(name) != there.get(name)
    ]
    if wrong:
        raise ClusterError(
            "worker {worker} runs other versions: {wrong}; install the same maskcache there, with the same "
            "constraints.txt, and start the worker again",
            worker=worker,
            wrong=joined("; ", wrong),
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return message("not installed")
