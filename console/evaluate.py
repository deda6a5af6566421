"""What `eval` says."""

from __future__ import annotations

from console.text import count, duration
from train.evaluation.result import EvalReport, SizeReport
from train.evaluation.targets import TARGETS

SHOWN_REJECTIONS = 10

_ROWS = (
    ("iou", "IoU"),
    ("dice", "Dice"),
    ("accuracy", "Accuracy"),
    ("precision", "Precision"),
    ("recall", "Recall"),
)
_FILES = {"metrics.json": "📝 Report", "per_image.csv": "📝 Table"}


def eval_lines(report: EvalReport) -> list[str]:
    """What was evaluated, the scores beside their targets, what was left out, and the files."""
    network, sizes = report.network, report.sizes
    sources = [f"cache {report.cache}"] if report.cache else []
    sources += [f"photos of {report.coco}"] if report.coco else []
    lines = [
        f"🔍 EVALUATION OF {report.checkpoint}",
        "=" * (17 + len(str(report.checkpoint))),
        "",
        "📊 Configuration:",
        f"   - Network: {network['name']}, width {network['width']}, {report.parameters / 1e6:.1f} M parameters, "
        f"trained at side {report.trained_side}",
        f"   - Images: {report.split}, {' and '.join(sources)}; the network sees side {report.side}, {report.fit}",
        f"   - Device: {report.device}, {report.precision}, batch size {report.batch_size}",
        *(f"   - Note: {note}" for note in report.notes),
        "",
        "📈 Scores, pooled over all pixels that count:",
        *_table(report),
        "",
        *(_images_line(report, size) for size in sizes),
    ]
    for size in sizes:
        lines += _rejection_lines(size)
    return [*lines, *(f"   {_FILES.get(path.name, '🖼️  Picture')}: {path}" for path in report.files)]


def _table(report: EvalReport) -> list[str]:
    """A row for each score, a column for each size."""
    sizes = report.sizes
    lines = [f"   {'':<11}" + "".join(f"{_name(report, size):>15}   " for size in sizes) + "  target"]
    for field, label in _ROWS:
        target = TARGETS.get(field)
        cells = "".join(_cell(getattr(size.scores, field), target) for size in sizes)
        lines.append(f"   {label:<11}{cells}" + (f"  ≥ {target:.2f}" if target else ""))
    lines.append(f"   {'Boundary F':<11}" + "".join(_cell(size.boundary.f) for size in sizes))
    if any(size.loss is not None for size in sizes):
        lines.append(f"   {'Loss':<11}" + "".join(_cell(size.loss) for size in sizes))
    return [line.rstrip() for line in lines]


def _name(report: EvalReport, size: SizeReport) -> str:
    return f"side {report.side}" if size.size == "cache" else "own size"


def _cell(value: float | None, target: float | None = None) -> str:
    """A number of 15 columns, and 3 for whether it is what it should be: such a sign is two columns wide."""
    number = "-" if value is None else f"{value:.4f}"
    mark = "   " if value is None or target is None else f" {'✅' if value >= target else '❌'}"
    return f"{number:>15}{mark}"


def _images_line(report: EvalReport, size: SizeReport) -> str:
    rate = len(size.images) / size.seconds if size.seconds else 0
    line = f"   - {_name(report, size)}: {count(len(size.images), 'image')} in {duration(size.seconds)} ({rate:,.0f}/s)"
    iou = size.to_dict()["image_iou"]
    if iou is None:
        return f"{line}, none of them with a person"
    worst = min(size.with_persons, key=lambda image: image.scores.iou)
    return (
        f"{line}; IoU of single images: mean {iou['mean']:.4f}, median {iou['median']:.4f}, "
        f"worst {iou['worst']:.4f} (image {worst.image_id})"
    )


def _rejection_lines(size: SizeReport) -> list[str]:
    if not size.rejections:
        return []
    shown = size.rejections[:SHOWN_REJECTIONS]
    lines = [f"   ⚠️  {count(len(size.rejections), 'image')} left out:"]
    lines += [f"      {each.split}/{each.file_name} (image {each.image_id}): {each.reason}" for each in shown]
    if len(size.rejections) > len(shown):
        lines.append(f"      and {len(size.rejections) - len(shown):,} more: see metrics.json")
    return lines
