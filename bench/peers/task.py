"""Entries, and the tasks of their processes. Runs in any environment: standard library only."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

OWN = "own"
"""Name of the environment that this project runs in."""


class PeerError(Exception):
    """A library cannot be measured, or no longer; the text gives the reason in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A loader, or a limit, in one configuration.

    Attributes:
        name: as rows give it.
        module: in `bench.peers.contestants`.
        threads: or worker processes.
        codec: of the stored pixels.
        environment: whose Python runs it: `OWN`, or one of `bench.peers.datasets`.
        dataset: folder that the module writes for itself; empty where it reads what is there already.
        check: what a batch must be: `same` bytes as the sample, `close` (JPEG, or resized by other code), or `shape`
            only (augmented, or random).
        limit: name of the entry in its group that bounds its rate; empty where that is not measured.
        compare_to: name of our loader in its group that it is compared with; empty for none.
        note: what else to know.
        options: further settings of the module.
    """

    name: str
    module: str
    threads: int
    codec: Literal["raw", "jpeg"] = "raw"
    environment: str = OWN
    dataset: str = ""
    check: Literal["same", "close", "shape"] = "same"
    limit: str = ""
    compare_to: str = ""
    note: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Entry):
    """An entry with what all entries of a run have in common.

    Attributes:
        data: folder of everything that is read: `samples/`, our caches, one folder for each dataset.
        side, batch_size: of a batch.
        samples: records in each dataset.
        writers: processes that write a dataset.
    """

    data: str
    side: int
    batch_size: int
    samples: int
    writers: int

    @property
    def folder(self) -> Path:
        """Everything that is read."""
        return Path(self.data)

    @property
    def path(self) -> Path:
        """The entry's own dataset."""
        assert self.dataset, self.module
        return self.folder / self.dataset
