"""Numbers, units and lists for people, and the streams that they are printed on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.filesize import decimal

from console.language import _, ngettext, translated

if TYPE_CHECKING:
    from rich.console import Console

NAMED = 3
"""Locations that a line of `by_reason` names."""

WIDTH = 100
"""Columns of a table where standard output is no terminal."""


def size(count: int) -> str:
    """Bytes in decimal units: `1.4 GB`."""
    return decimal(count)


def duration(seconds: float) -> str:
    """Seconds as `12m 34s`, `4.2 s` or `3h 05m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def count(number: int, one: str, several: str) -> str:
    """A number of things: `count(1, "{count:,} shard", "{count:,} shards")`."""
    return ngettext(one, several, number, count=number)


def images(number: int) -> str:
    """`1 image`, `2 images`."""
    return count(number, "{count:,} image", "{count:,} images")


def photos(number: int) -> str:
    """`1 photo`, `2 photos`."""
    return count(number, "{count:,} photo", "{count:,} photos")


def files(number: int) -> str:
    """`1 file`, `2 files`."""
    return count(number, "{count:,} file", "{count:,} files")


def shards(number: int) -> str:
    """`1 shard`, `2 shards`."""
    return count(number, "{count:,} shard", "{count:,} shards")


def rejected(number: int) -> str:
    """How many photos, images or videos were rejected: the word follows the number in some languages."""
    return count(number, "{count:,} rejected", "{count:,} rejected")


def figure(value: float) -> str:
    """A number with three significant digits, or all before the point; below 0.1 with three decimals."""
    if value == 0 or value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def by_reason(found: Iterable[tuple[str, str]], most: int) -> tuple[list[str], int]:
    """Locations by what is wrong there: `most` lines, one for each reason, and how many locations the others have."""
    locations: dict[str, list[str]] = {}
    for location, reason in found:
        locations.setdefault(reason, []).append(location)
    lines = []
    for reason, where in locations.items():
        named, more = "; ".join(where[:NAMED]), len(where) - NAMED
        if more > 0:
            named = _("{places} and {count:,} more", places=named, count=more)
        lines.append(f"{named}: {reason}")
    return lines[:most], sum(map(len, [*locations.values()][most:]))


def at_most(most: int, lines: Sequence[str], more: str) -> list[str]:
    """The first lines and, if there are others, `more` as the last one, with their number as `{count}`."""
    rest = len(lines) - most
    return [*lines[:most], more.format(count=rest)] if rest > 0 else list(lines)


def bulleted(notes: Iterable[str]) -> list[str]:
    """Notes of a package below as lines of a list."""
    return [_("   - Note: {note}", note=translated(note)) for note in notes]


def underlined(title: str) -> list[str]:
    """A title, a line of `=` as long as it is on a terminal, and an empty line."""
    return [title, "=" * cell_len(title), ""]


def tell(line: str) -> None:
    """Print a line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


def standard_output() -> Console:
    """Standard output with styles on a terminal; text is printed as it is, also with brackets and colons."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False, emoji=False)
