"""What `predict` says."""

from __future__ import annotations

from console.text import count, duration, figure
from predict.config import Kind
from predict.result import PredictReport

SHOWN = 10
"""Photos that are named, of each kind that wants naming."""

_NOUNS: dict[Kind, str] = {"cutout": "cutouts", "mask": "masks", "composite": "composites"}


def predict_lines(report: PredictReport) -> list[str]:
    """What was left out and why, and in one line what was done."""
    lines = [f"   - Note: {note}" for note in report.notes]
    rejected = [f"{photo.input}: {photo.reason}" for photo in report.photos if photo.status == "rejected"]
    skipped = [str(photo.output) for photo in report.photos if photo.status == "skipped"]
    lines += _named(f"⚠️  {count(len(rejected), 'photo')} left out:", rejected)
    lines += _named(f"   - {count(len(skipped), 'result')} there already, --overwrite makes them anew:", skipped)
    where = "standard output" if report.to_standard_output else str(report.out)
    done = report.count("done")
    parts = [f"{done:,} done", f"{len(rejected):,} rejected"] + ([f"{len(skipped):,} skipped"] if skipped else [])
    rate = f" in {duration(report.seconds)}, {figure(report.images_per_s)} images/s" if done else ""
    how = f"{report.device}, {report.precision}, side {report.side}"
    sign = "❌" if rejected else "✅"
    return [*lines, f"{sign} {', '.join(parts)}{rate} ({how}): {_NOUNS[report.kind]} in {where}"]


def _named(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    lines = [title, *(f"      {name}" for name in names[:SHOWN])]
    if len(names) > SHOWN:
        lines.append(f"      and {len(names) - SHOWN:,} more: --json names them all")
    return lines
