"""A group in rounds: all are opened, then each measures a window in turn, so that a slow moment meets them all."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.peers.contestant import Contestant, Group
from bench.peers.datasets import Datasets
from bench.peers.environment import OWN, Environments, foreign_variables
from bench.peers.plan import Plan
from bench.peers.player import Answer, Introduction, PeerError, Player
from bench.peers.score import Result, Score
from bench.peers.task import Task

READY_SECONDS = 300.0
"""At most, for opening and one epoch."""

ANSWER_SECONDS = 120.0
"""At most, beyond a window."""

WRITE_SECONDS = 1200.0
"""At most, for writing a dataset."""

_LAUNCH = Path(__file__).with_name("launch.py")
_log = logging.getLogger(__name__)


class Contest:
    """Runs groups on the datasets of a folder.

    Args:
        plan: how much.
        datasets: what contestants read.
        environments: their Pythons.
    """

    def __init__(self, plan: Plan, datasets: Datasets, environments: Environments) -> None:
        self._plan, self._datasets, self._environments = plan, datasets, environments
        self._unwritten: dict[str, str] = {}

    def run(self, group: Group) -> Result:
        """Measure a group. Whoever fails is left out, with the reason."""
        absent: dict[str, str] = {}
        ready: dict[str, tuple[Player, Introduction]] = {}
        answers: dict[str, list[Answer]] = {}
        with ExitStack() as stack:
            for contestant in group.contestants:
                _log.info("%s: opening %s", group.name, contestant.name)
                try:
                    ready[contestant.name] = self._open(contestant, stack)
                    answers[contestant.name] = []
                except PeerError as error:
                    absent[contestant.name] = str(error)
            for number in range(self._plan.rounds):
                _log.info("%s: round %d of %d", group.name, number + 1, self._plan.rounds)
                for name in list(answers):
                    try:
                        answers[name].append(ready[name][0].measure(self._plan.window, ANSWER_SECONDS))
                    except PeerError as error:
                        absent[name] = str(error)
                        del answers[name]
        for name, reason in absent.items():
            _log.warning("%s is left out: %s", name, reason)
        scores = {
            contestant.name: Score(
                contestant=contestant,
                introduction=ready[contestant.name][1],
                answers=tuple(answers[contestant.name]),
            )
            for contestant in group.contestants
            if contestant.name in answers
        }
        return Result(group=group, scores=scores, absent=absent)

    def prepare(self, group: Group) -> None:
        """Set up environments and write datasets beforehand: what fails here is told by `run`."""
        for contestant in group.contestants:
            with suppress(PeerError):
                self._dataset(contestant)

    def _open(self, contestant: Contestant, stack: ExitStack) -> tuple[Player, Introduction]:
        self._dataset(contestant)
        player = stack.enter_context(self._player(contestant, "measure"))
        try:
            return player, player.wait_ready(READY_SECONDS)
        except PeerError:
            player.close()
            raise

    def _dataset(self, contestant: Contestant) -> None:
        """See that the contestant's Python and its own dataset are there; what failed once is not tried again."""
        name = contestant.dataset
        self._environments.python(contestant.environment)
        if not name:
            return
        if name in self._unwritten:
            raise PeerError(self._unwritten[name])

        def write(folder: Path) -> None:
            _log.info("writing the dataset %s", name)
            with self._player(contestant, "write", str(folder)) as player:
                player.wait_end(WRITE_SECONDS)

        try:
            self._datasets.make(name, write)
        except PeerError as error:
            self._unwritten[name] = f"its dataset could not be written: {error}"
            raise PeerError(self._unwritten[name]) from None

    def _player(self, contestant: Contestant, command: str, *arguments: str) -> Player:
        python = self._environments.python(contestant.environment)
        variables = foreign_variables()
        if contestant.environment == OWN:
            variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return Player([str(python), str(_LAUNCH), command, self._task(contestant).to_json(), *arguments], variables)

    def _task(self, contestant: Contestant) -> Task:
        return Task(
            module=contestant.module,
            data=str(self._datasets.folder.resolve()),
            dataset=contestant.dataset,
            side=self._plan.side,
            batch_size=self._plan.batch_size,
            samples=self._plan.samples,
            threads=contestant.threads,
            writers=self._plan.threads,
            codec=contestant.codec,
            check=contestant.check,
            options=contestant.options,
        )
