"""What contestants showed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bench.peers.contestant import Contestant, Group
from bench.peers.player import Answer, Introduction
from bench.timing import Rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """What a contestant showed: what it said when it was ready, and a window a round."""

    contestant: Contestant
    introduction: Introduction
    answers: tuple[Answer, ...]

    @property
    def rates(self) -> Rates:
        """Samples a second."""
        return Rates(tuple(answer.samples / answer.seconds for answer in self.answers))

    @property
    def cpu(self) -> Rates:
        """CPU-seconds a thousand samples."""
        return Rates(tuple(1000 * answer.cpu / answer.samples for answer in self.answers))

    @property
    def memory(self) -> int:
        """The most bytes that were seen; 0 where a system does not tell."""
        return max(answer.memory for answer in self.answers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A group's scores by name, in the group's order; and why the others have none."""

    group: Group
    scores: Mapping[str, Score]
    absent: Mapping[str, str]
