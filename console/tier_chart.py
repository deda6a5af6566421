"""Minutes per epoch by hardware, as a picture: a file of its own, or a part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import BenchError, Row
from console.language import ENGLISH, _, speaking
from console.tier_figure import tier_figure
from train.figure import BLUE, GRID, INK, ORANGE, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_THEME = {BLUE: "var(--measured)", ORANGE: "var(--guide)", INK: "currentColor", GRID: "var(--line)"}
"""Colours of the picture, and what a page calls them."""

_FONT = re.compile(r"(font: [^;\"]*px) [^;\"]*")
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def by_profile(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of the suite `tiers` by profile, each beginning with what is promised for it."""
    order = ("guide", "measured", "estimated")
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row.suite == "tiers"), key=lambda row: order.index(row.kind)):
        found.setdefault(row.name.partition(",")[0], []).append(row)
    return found


def check_picture(path: Path) -> None:
    """See whether `draw_tiers` can write such a file.

    Raises:
        BenchError: it cannot.
    """
    if path.suffix.lower() not in SUFFIXES:
        said = _("{path} is no picture that can be drawn; use a name that ends with {suffixes}")
        raise BenchError(said.format(path=path, suffixes=f" {_('or')} ".join(SUFFIXES)))


def draw_tiers(rows: Sequence[Row], path: Path) -> Path:
    """Draw the rows of the suite `tiers` as PNG or SVG, by the suffix, and give its path; folders are made.

    Raises:
        BenchError: there is no such row, or the suffix is another.
    """
    check_picture(path)
    figure = _figure(rows, narrow=False)
    if path.suffix.lower() == ".png":
        return save_figure(figure, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_svg(figure, transparent=False), encoding="utf-8")
    return path


def tier_svg(rows: Sequence[Row], *, narrow: bool) -> str:
    """Draw the same as the `<svg>` of a page, in the page's colours and font; `narrow`: for a phone.

    Raises:
        BenchError: there is no such row.
    """
    name = "narrow" if narrow else "wide"
    text = _svg(_figure(rows, narrow=narrow), transparent=True)
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = _NAME.sub(rf"\g<1>{name}-", text)  # no name may come twice in a page, which holds both
    text = _FONT.sub(r"\1 system-ui, sans-serif", text)
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg class="{name}" role="img" aria-label="Minutes per epoch by hardware" ', 1)


def _figure(rows: Sequence[Row], *, narrow: bool) -> Figure:
    groups = by_profile(rows)
    if not groups:
        raise BenchError(_("this report has no minutes per epoch to draw; measure the suite epoch, too: --suite epoch"))
    with speaking(ENGLISH):  # as all pictures
        return tier_figure(groups, narrow=narrow)


def _svg(figure: Figure, *, transparent: bool) -> str:
    import matplotlib

    text = io.StringIO()
    # Text stays text, which can be searched and read aloud; the same rows give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tiers"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=transparent)
    return text.getvalue()
