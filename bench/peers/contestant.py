"""A loader, or a limit, in one configuration; and those that are measured in the same rounds."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from bench.peers.environment import OWN
from cache.spec import Codec

Check = Literal["same", "close", "shape"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """One that takes part.

    Attributes:
        name: as rows give it.
        module, dataset, threads, codec, check, options: see `bench.peers.task.Task`.
        environment: whose Python; see `bench.peers.environment`.
        limit: which of its group it cannot beat; empty where that is not measured.
        rival: whose of ours, in its group, it is; empty likewise.
        note: what else to know.
    """

    name: str
    module: str
    threads: int
    codec: Codec = "raw"
    environment: str = OWN
    dataset: str = ""
    check: Check = "same"
    limit: str = ""
    rival: str = ""
    note: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is a loader of this project."""
        return self.module == "ours"


@dataclasses.dataclass(frozen=True)
class Group:
    """Those that are measured in turn, and so can be compared run by run; names are distinct."""

    name: str
    contestants: tuple[Contestant, ...]

    def __post_init__(self) -> None:
        names = [contestant.name for contestant in self.contestants]
        assert len(set(names)) == len(names), names
        for contestant in self.contestants:
            assert not contestant.limit or contestant.limit in names, contestant
            assert not contestant.rival or contestant.rival in names, contestant
