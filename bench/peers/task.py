"""What a contestant is told. Runs in any environment: standard library and NumPy only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One contestant's part in a run.

    Attributes:
        module: in `bench.peers.contestants`.
        data: folder of everything that is read: `samples/`, our caches, one folder for each dataset.
        dataset: name of the contestant's own folder in `data`; empty where it reads what is there already.
        side, batch_size: of a batch.
        samples: records in each dataset.
        threads: or worker processes.
        writers: processes that write a dataset.
        codec: `raw` or `jpeg`.
        check: what a batch must be: `same` bytes as the sample, `close` (JPEG, or resized by other code), or `shape`
            only (augmented, or random).
        options: what else the module wants to know.
    """

    module: str
    data: str
    dataset: str
    side: int
    batch_size: int
    samples: int
    threads: int
    writers: int
    codec: str
    check: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Everything that is read."""
        return Path(self.data)

    @property
    def path(self) -> Path:
        """The contestant's own dataset."""
        assert self.dataset, self.module
        return self.folder / self.dataset

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo `to_json`."""
        return cls(**json.loads(text))
