"""What `analyze --quality` and `predict` print of quality scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cache.messages import message
from console.language import _
from console.render import rendered
from console.text import photos

if TYPE_CHECKING:
    from preprocess.check.quality import QualityThresholds
    from preprocess.check.survey import QualitySurvey

SHOWN_WORST = 5
"""Photos that are named."""

SHOWN_REJECTIONS = 5

LABELS = {
    "coverage": message("coverage"),
    "contrast": message("contrast"),
    "edge": message("edge"),
    "resolution": message("resolution"),
}


def survey_lines(survey: QualitySurvey) -> list[str]:
    """A table of the scores, the photos that fall furthest short, and what could not be scored."""
    values = {"labels": LABELS, "worst": survey.worst(SHOWN_WORST), "shown": SHOWN_REJECTIONS}
    return rendered("quality", survey=survey, **values)


def summary_line(scored: Iterable[Mapping[str, float]], thresholds: QualityThresholds) -> str | None:
    """How many results are below a threshold, and of which score; None if no photo has scores.

    `scored` has the scores of each photo by name; a photo without scores is empty.
    """
    missed = [thresholds.missed_by(scores) for scores in scored if scores]
    if not missed:
        return None
    counts = {name: sum(name in names for names in missed) for name in LABELS}
    poor = sum(bool(names) for names in missed)
    if not poor:
        return _("   - Quality: {photos}, none below a threshold", photos=photos(len(missed)))
    scores = ", ".join(f"{_(LABELS[name])} {number:,}" for name, number in counts.items() if number)
    values = {"poor": poor, "photos": photos(len(missed)), "scores": scores}
    return _("   - Quality: {poor:,} of {photos} below a threshold ({scores}); --json has the scores", **values)
