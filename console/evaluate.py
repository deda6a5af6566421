"""What `eval` and `export` print."""

from __future__ import annotations

import time

from cache.choices import ExportFormat
from cache.messages import listed, message
from console.language import _
from console.text import at_most, bulleted, columns, count, duration, images, size, tell, underlined
from export.check import CHECKPOINT, ExportReport
from export.config import FILES
from export.run import Step
from train.evaluation.result import EvalReport, SizeReport
from train.result import TARGETS

SHOWN_REJECTIONS = 10

WORTH_SAYING = 0.005
"""IoU that another threshold must bring."""

_MARKS = (message("❌"), message("✅"))
"""Whether a score is what it should be."""

_ROWS = (
    ("iou", "IoU"),
    ("dice", "Dice"),
    ("accuracy", message("Accuracy")),
    ("precision", message("Precision")),
    ("recall", message("Recall")),
)
_PICTURE = message("   🖼️  Picture: {path}")
_FILES = {"metrics.json": message("   📝 Report: {path}"), "per_image.csv": message("   📝 Table: {path}")}


def eval_lines(report: EvalReport) -> list[str]:
    """What was evaluated, the scores beside their targets, what was left out, and the files."""
    sizes = report.sizes
    sources = [_("cache {cache}", cache=report.cache)] if report.cache else []
    sources += [_("photos of {coco}", coco=report.coco)] if report.coco else []
    shown = {**vars(report), "sources": listed(sources, "and")}
    network = {**report.network, "parameters": report.parameters / 1e6, "side": report.trained_side}
    return [
        *underlined(_("🔍 EVALUATION OF {checkpoint}", checkpoint=report.checkpoint)),
        _("📊 Configuration:"),
        _("   - Network: {name}, width {width}, {parameters:.1f} M parameters, trained at side {side}", **network),
        _("   - Images: {split}, {sources}; the network sees side {side}, {fit}, threshold {threshold:g}", **shown),
        _("   - Device: {device}, {precision}, batch size {batch_size}", **vars(report)),
        _("   - Memory: {plan}", plan=report.memory),
        *bulleted(report.notes),
        "",
        _("📈 Scores, pooled over all pixels that count:"),
        *_table(report),
        *_comparison(report),
        "",
        *(_images_line(report, size) for size in sizes),
        *(_threshold_line(report, size) for size in sizes if size.best_threshold.iou - size.scores.iou >= WORTH_SAYING),
        *(line for size in sizes for line in _rejection_lines(size)),
        *(_(_FILES.get(path.name, _PICTURE), path=path) for path in report.files),
    ]


def _table(report: EvalReport) -> list[str]:
    """A row for each score, a column for each size."""
    sizes = report.sizes
    target = _("target")
    blank = " " * max(columns(f" {_(mark)}") for mark in _MARKS)
    rows = [(_(label), [getattr(size.scores, field) for size in sizes], TARGETS.get(field)) for field, label in _ROWS]
    rows.append((_("Boundary F"), [size.boundary.f for size in sizes], None))
    if any(size.loss is not None for size in sizes):
        rows.append((_("Loss"), [size.loss for size in sizes], None))
    lines = [f"   {'':<11}" + "".join(f"{_name(report, size):>15}{blank}" for size in sizes) + f"  {target}"]
    for label, values, wanted in rows:
        cells = "".join(_cell(value, blank, wanted) for value in values)
        lines.append(f"   {label:<11}{cells}" + (f"  ≥ {wanted:.2f}" if wanted else ""))
    return [line.rstrip() for line in lines]


def _comparison(report: EvalReport) -> list[str]:
    """A row for each network on the photos, if there are others."""
    if not report.baselines:
        return []
    heads = "IoU", _("per photo"), _("Boundary F"), _("per photo"), _("best IoU"), _("threshold"), _("ms")
    rows = [(report.checkpoint.name, report.foremost), *((each.file.name, each.photos) for each in report.baselines)]
    wide = max(len(name) for name, _photos in rows)
    lines = ["", _("🥊 Beside other networks, on the photos at their own size (ms: of the network, per photo):")]
    lines.append(f"   {'':<{wide}}" + "".join(f"{head:>12}" for head in heads))
    for name, photos in rows:
        shown, best = photos.to_dict(), photos.best_threshold
        means = [shown[key] and shown[key]["mean"] for key in ("image_iou", "image_boundary_f")]
        figures = photos.scores.iou, means[0], photos.boundary.f, means[1], best.iou, best.threshold
        cells = [f"{'-' if value is None else f'{value:.4f}':>12}" for value in figures]
        lines.append(f"   {name:<{wide}}{''.join(cells)}{photos.milliseconds or 0:>12.1f}")
    said = message("   - {file}: {input}, pixels {scale}, {fit}, answers with {answers}")
    return lines + [_(said, file=each.file, **each.traits) for each in report.baselines]


def _name(report: EvalReport, size: SizeReport) -> str:
    return _("side {side}", side=report.cache_side) if size.size == "cache" else _("own size")


def _cell(value: float | None, blank: str, target: float | None) -> str:
    """A number of 15 columns, and as many as `blank` has for whether it is what it should be."""
    number = "-" if value is None else f"{value:.4f}"
    mark = "" if value is None or target is None else f" {_(_MARKS[value >= target])}"
    return f"{number:>15}{mark}{blank[columns(mark) :]}"


def _images_line(report: EvalReport, size: SizeReport) -> str:
    rate = len(size.images) / size.seconds if size.seconds else 0
    values = {"size": _name(report, size), "images": images(len(size.images)), "time": duration(size.seconds)}
    line = _("   - {size}: {images} in {time} ({rate:,.0f}/s)", **values, rate=rate)
    found = size.to_dict()
    iou = found["image_iou"]
    if iou is None:
        return line + _(", none of them with annotated pixels")
    worst = min(size.with_persons, key=lambda image: image.scores.iou)
    return line + _(
        "; IoU of single images: mean {mean:.4f}, median {median:.4f}, worst {worst:.4f} (image {image_id}); "
        "boundary F: mean {edge:.4f}",
        **iou,
        image_id=worst.image_id,
        edge=found["image_boundary_f"]["mean"],
    )


def _threshold_line(report: EvalReport, size: SizeReport) -> str:
    return _(
        "   - {size}: above a probability of {threshold:.2f} instead of {used:.2f} the IoU of these images is "
        "{iou:.4f}",
        size=_name(report, size),
        used=report.threshold,
        **vars(size.best_threshold),
    )


def _rejection_lines(size: SizeReport) -> list[str]:
    if not size.rejections:
        return []
    title = _("   ⚠️  {images} left out:", images=images(len(size.rejections)))
    template = message("      {split}/{file} (image {image_id}): {reason}")
    lines = [_(template, **vars(each), file=each.file_name) for each in size.rejections]
    return [title, *at_most(SHOWN_REJECTIONS, lines, _("      and {count:,} more: see metrics.json"))]


_STEPS: dict[Step, str] = {
    "trace": message("Following the network through images of any size"),
    "write": message("Writing {file}"),
    "compare": message("Comparing {file} with the checkpoint"),
    "measure": message("Measuring how long an answer takes"),
}
_RUNTIMES: dict[str, str] = {
    CHECKPOINT: message("checkpoint, eager"),
    "onnx": message("ONNX, ONNX Runtime"),
    "program": message("torch.export program"),
}


class ExportPrinter:
    """Says on standard error which step begins: some take a while."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, step: Step, kind: ExportFormat | None) -> None:
        """Print a line; see `export.run.Tell`."""
        name = _(_STEPS[step], file=FILES[kind] if kind else "")
        tell(_("⏱️  {step} (after {time})", step=name, time=duration(time.monotonic() - self._start)))


def export_lines(report: ExportReport) -> list[str]:
    """What was exported, how near it is, how fast it is, and the files."""
    network = {"network": report.network, "parameters": report.parameters / 1e6, "side": report.trained_side}
    size_rule = {"stride": report.stride, "least": report.least}
    return [
        *underlined(_("📦 EXPORT OF {checkpoint}", checkpoint=report.model)),
        _("📊 Configuration:"),
        _("   - Network: {network}, {parameters:.1f} M parameters, trained at side {side}", **network),
        _("   - Images: any number, uint8 RGB; height and width multiples of {stride}, {least} or more", **size_rule),
        *bulleted(report.notes),
        "",
        _("🔍 Probabilities beside those of the checkpoint in fp32:"),
        *(
            _(
                "   - {file}: {largest:.1e} at most, {mean:.1e} on average; {decided:.4f} % of the pixels decided "
                "otherwise",
                **{**vars(file.difference), "file": file.path.name, "decided": 100 * file.difference.decisions},
            )
            for file in report.files
        ),
        "",
        *_latency_lines(report),
        *(_("   💾 Model: {path} ({size})", path=file.path, size=size(file.bytes)) for file in report.files),
        _("   📝 Card: {path}", path=report.card),
    ]


def _latency_lines(report: ExportReport) -> list[str]:
    if not report.latency:
        return []
    threads = count(report.threads, "{count:,} thread", "{count:,} threads")
    lines = [_("⏱️  One image of side {side}, {threads}, milliseconds (p10 to p90):", side=report.side, threads=threads)]
    for name, each in report.latency.items():
        lines.append(f"   - {_(_RUNTIMES[name])}: {each.median:.1f} ({each.p10:.1f}..{each.p90:.1f})")
    return [*lines, ""]
