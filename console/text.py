"""Numbers and units as people read them."""

from __future__ import annotations

from collections.abc import Iterable

from console.language import _, ngettext

NAMED = 3
"""Places that a line of `by_reason` names."""


def size(count: int) -> str:
    """Bytes in decimal units: `1.4 GB`."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as `12m 34s`, `4.2 s` or `3h 05m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def count(number: int, noun: str) -> str:
    """A number of things: `1 shard`, `1,200 shards`."""
    return ngettext(f"{{count:,}} {noun}", f"{{count:,}} {noun}s", number).format(count=number)


def rejected(number: int) -> str:
    """How many photos, images or videos were rejected: the word follows the number in some languages."""
    return ngettext("{count:,} rejected", "{count:,} rejected", number).format(count=number)


def figure(value: float) -> str:
    """Three digits, or all of those before the point; two below 0.1."""
    if value == 0 or value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def by_reason(found: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    """Places and what is wrong there, as a line for each reason, with the number of places that it concerns."""
    places: dict[str, list[str]] = {}
    for place, reason in found:
        places.setdefault(reason, []).append(place)
    lines = []
    for reason, where in places.items():
        named, more = "; ".join(where[:NAMED]), len(where) - NAMED
        if more > 0:
            named = _("{places} and {count:,} more").format(places=named, count=more)
        lines.append((f"{named}: {reason}", len(where)))
    return lines
