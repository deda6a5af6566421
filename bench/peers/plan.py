"""How much is measured."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        side, batch_size: of a batch.
        samples: records of each dataset.
        window: seconds of a run.
        rounds: runs of each contestant.
        threads: that write datasets.
    """

    side: int
    batch_size: int
    samples: int
    window: float
    rounds: int
    threads: int
