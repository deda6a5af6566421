"""What `quick`, `verify` and `analyze` print, most of it by `templates/`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from console.language import _, plain, translated
from console.render import rendered
from console.text import by_reason, standard_output

if TYPE_CHECKING:
    from preprocess.check.verify import CacheReport, DatasetReport, Finding

SHOWN_FINDINGS = 20
"""How many findings are printed; the others are counted, and `--json` gives them all."""

_STYLES = {"===": "bold", "❌": "red", "✅": "green"}


def show_dataset(report: DatasetReport) -> None:
    """Print what `verify` found in a dataset."""
    unusable = Counter(finding.split for finding in report.findings if finding.kind == "annotation")
    found = by_reason(((_where(each), translated(each.reason)) for each in report.findings), SHOWN_FINDINGS)
    show("dataset", report=report, unusable=unusable, found=found)


def _where(finding: Finding) -> str:
    where = f"{finding.split}/{translated(finding.file)}" if finding.split else finding.file
    if finding.image_id is not None:
        where = _("{where}, image {image_id}", where=where, image_id=finding.image_id)
    if finding.annotation_id is not None:
        where = _("{where}, annotation {annotation_id}", where=where, annotation_id=finding.annotation_id)
    return where


def show_cache(report: CacheReport) -> None:
    """Print what `verify` found in a cache."""
    damaged = {s.split: sum(each.where.startswith(s.split) for each in report.damages) for s in report.splits}
    found = by_reason(((translated(each.where), translated(each.what)) for each in report.damages), SHOWN_FINDINGS)
    show("cache", report=report, damaged=damaged, found=found)


def show(name: str, **values: Any) -> None:
    """Print `templates/NAME.txt.j2`, never wrapped; on a terminal a line has the colour of the mark it begins with."""
    out = standard_output()
    for line in rendered(name, **values):
        bare = line.lstrip()
        style = next((style for mark, style in _STYLES.items() if bare.startswith((mark, plain(mark)))), None)
        out.print(line, style=style, soft_wrap=True)
