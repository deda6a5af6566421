"""What `analyze --quality` and `predict` print of quality scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cache.messages import message
from console.language import _, translated
from console.text import at_most, photos

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
    values = {"split": survey.split, "scored": len(survey), "photos": photos(survey.photos), "side": survey.side}
    lines = [
        _("🎯 Quality of {split}: {scored:,} of {photos} with annotations, for a network of side {side}", **values)
    ]
    if len(survey):
        lines += [*_table(survey), *_worst_lines(survey)]
    if rejected := survey.rejections:
        lines.append(_("   ⚠️  {photos} cannot be scored:", photos=photos(len(rejected))))
        named = [f"      {each.file_name}: {translated(each.reason)}" for each in rejected]
        lines += at_most(SHOWN_REJECTIONS, named, _("      and {count:,} more: --json names them all"))
    return [*lines, ""]


def _table(survey: QualitySurvey) -> list[str]:
    found = survey.to_dict()
    heads = (_("median"), "10 %", "90 %", _("threshold"), _("reached by"))
    lines = [f"   {'':<12}" + "".join(f"{head:>14}" for head in heads)]
    for name, score in found["scores"].items():
        numbers = (f"{score[key]:.1f}" for key in ("p50", "p10", "p90"))
        cells = (*numbers, f"≥ {score['threshold']:g}", f"{score['reached_percent']:.1f} %")
        lines.append(f"   {_(LABELS[name]):<12}" + "".join(f"{cell:>14}" for cell in cells))
    every = f"{found['all_reached_percent']:.1f} %"
    label = _("all four")
    return [*lines, f"   {label:<12}{every:>70}"]


def _worst_lines(survey: QualitySurvey) -> list[str]:
    title, lines = _("   Furthest below (--json has the scores of each photo; docs/quality.md says what to do):"), []
    for name, scores in survey.worst(SHOWN_WORST):
        said = ", ".join(f"{_(LABELS[key])} {value:.1f}" for key, value in scores.to_dict().items())
        lines.append(f"      {name}: {said}")
    return [title, *lines] if lines else []


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
