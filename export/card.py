"""The model card, in the layout of the Hugging Face Hub: YAML for its machines, Markdown for people.

Its text is `templates/card.md.j2`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jinja2

from cache.choices import ExportFormat, Fit
from cache.messages import listed
from cache.spec import things
from export.check import CHECKPOINT, TOLERANCE, ExportReport
from export.config import FILES
from export.record import THRESHOLD, TrainingRecord
from train.plots import SCORES
from train.result import TARGETS

LICENCE = "apache-2.0"
"""The licence of maskcache itself; whoever trained a network may put another into its card."""

TAGS = ("background-removal", "u-net", "maskcache")

_SCORES = {**{name: label for name, label, _ in SCORES}, "boundary_f": "boundary F (within 0.8 % of the diagonal)"}


def write_card(report: ExportReport, record: TrainingRecord) -> str:
    """The text of the card."""
    # A tag for each category, of letters, digits and hyphens: `traffic-light-segmentation`.
    words = (re.findall(r"\w+", name.lower()) for name in record.saved.spec.categories)
    text = _template("card.md.j2").render(
        report=report,
        saved=record.saved,
        index=record.cache,
        scored=record.scored,
        photos=record.photos,
        notes=record.notes,
        tags=[*("-".join((*each, "segmentation")) for each in words), *TAGS],
        work=_duration(sum(result.seconds for result in record.saved.results)),
    )
    return f"{text}\n"


def usage(kind: ExportFormat, *, side: int, fit: Fit) -> str:
    """A program that cuts the foreground out of `photo.jpg` with a file of this format.

    The network sees a square of this side, pixels, into which photos are laid by `fit`.
    """
    return _template("usage.py.j2").render(kind=kind, side=side, fit=fit)


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"files": FILES, "checkpoint": CHECKPOINT, "licence": LICENCE, "scores": _SCORES}
    environment.globals |= {"targets": TARGETS, "threshold": THRESHOLD, "tolerance": TOLERANCE}
    environment.globals |= {"listed": listed, "things": things, "usage": usage, "number": _number}
    return environment.get_template(name)


def _duration(seconds: float) -> str:
    """A time in the largest unit that gives two digits or more."""
    units = {"hours": 3600, "minutes": 60}
    name, unit = next((each for each in units.items() if seconds >= 10 * each[1]), ("seconds", 1))
    return f"{seconds / unit:,.0f} {name}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").ljust(4, "0")
