"""The four scores of a mask, each beside what it has to reach, and what helps where it does not."""

from __future__ import annotations

import html

import streamlit as st

from console.quality import LABELS
from preprocess.quality import NAMES, QualityScores, QualityThresholds
from webpage.language import _

_THRESHOLDS = QualityThresholds()


def show_scores(scores: QualityScores) -> None:
    """Show them as bars with a mark at each threshold."""
    below = _THRESHOLDS.missed_by(scores.to_dict())
    st.html(f'<div class="scores">{"".join(_tile(name, scores, low=name in below) for name in NAMES)}</div>')


def _tile(name: str, scores: QualityScores, *, low: bool) -> str:
    title, hint = _(LABELS[name]).capitalize(), _hints()[name]
    value, threshold = getattr(scores, name), getattr(_THRESHOLDS, name)
    goal = _("at least {threshold:.0f}", threshold=threshold)
    return (
        f'<div class="score{" low" if low else ""}"><span class="title">{html.escape(title)}</span>'
        f'<span class="value">{value:.0f}</span> <span class="goal">{html.escape(goal)}</span>'
        f'<span class="bar"><i style="width: {value:.1f}%"></i><b style="left: {threshold:.1f}%"></b></span>'
        + (f'<span class="hint">{html.escape(hint)}</span>' if low else "")
        + "</div>"
    )


def _hints() -> dict[str, str]:
    """What helps where a score is low."""
    return {
        "coverage": _("The person takes up little of the photo: go closer, or crop it."),
        "contrast": _("Person and background have much the same colours: a plainer background or more light helps."),
        "edge": _("The outline does not follow the edges of the photo: look at it closely, and try More."),
        "resolution": _("The person is few pixels wide: a larger photo gives a finer outline."),
    }
