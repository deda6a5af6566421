"""What `quick`, `verify` and `analyze` print, most of it by `templates/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cache.spec import things
from console.language import _, plain, translated
from console.render import rendered
from console.text import by_reason, standard_output

if TYPE_CHECKING:
    from bench.hardware import Machine
    from preprocess.check.statistics import CacheStatistics, Statistics
    from preprocess.check.structure import Check
    from preprocess.check.verify import CacheReport, DatasetReport, Finding

SHOWN_FINDINGS = 20
"""How many findings are printed; the others are counted, and `--json` gives them all."""

_STYLES = {"===": "bold", "❌": "red", "✅": "green"}
_LITTLE_SPACE = 20_000_000_000  # bytes; the guide's advice for COCO


def show_structure(checks: Sequence[Check]) -> None:
    """Print what `quick` found, of a dataset or of a cache."""
    _show(rendered("structure", checks=checks))


def show_machine(machine: Machine) -> None:
    """Print what `verify` says of the machine."""
    _show(rendered("machine", machine=machine, little_space=_LITTLE_SPACE))


def show_dataset(report: DatasetReport) -> None:
    """Print what `verify` found in a dataset."""
    unusable = Counter(finding.split for finding in report.findings if finding.kind == "annotation")
    found = by_reason(((_where(each), translated(each.reason)) for each in report.findings), SHOWN_FINDINGS)
    _show(rendered("dataset", report=report, unusable=unusable, found=found))


def _where(finding: Finding) -> str:
    where = f"{finding.split}/{finding.file}" if finding.split else finding.file
    if finding.image_id is not None:
        where = _("{where}, image {image_id}", where=where, image_id=finding.image_id)
    if finding.annotation_id is not None:
        where = _("{where}, annotation {annotation_id}", where=where, annotation_id=finding.annotation_id)
    return where


def show_cache(report: CacheReport) -> None:
    """Print what `verify` found in a cache."""
    damaged = {s.split: sum(each.where.startswith(s.split) for each in report.damages) for s in report.splits}
    found = by_reason(((translated(each.where), translated(each.what)) for each in report.damages), SHOWN_FINDINGS)
    _show(rendered("cache", report=report, damaged=damaged, found=found))


def show_statistics(statistics: Statistics, split: str, category: str | Sequence[str]) -> None:
    """Print what `analyze` counted of a category, or of several, in a split of a dataset."""
    _show(rendered("statistics", s=statistics, split=split, masked=things(category)))


def show_cache_statistics(statistics: CacheStatistics) -> None:
    """Print what `analyze` counted in a split of a cache."""
    _show(rendered("cache_statistics", s=statistics, masked=things(statistics.spec.category)))


def _show(lines: Iterable[str]) -> None:
    """Print lines as they are, never wrapped; on a terminal a line is coloured by the mark that it begins with."""
    out = standard_output()
    for line in lines:
        bare = line.lstrip()
        style = next((style for mark, style in _STYLES.items() if bare.startswith((mark, plain(mark)))), None)
        out.print(line, style=style, soft_wrap=True)
