"""What `preprocess` and `synth` say."""

from __future__ import annotations

from pathlib import Path

from console.text import duration, size
from preprocess.build import BuildReport
from preprocess.synth import SynthReport

SHOWN_REJECTIONS = 10


def build_lines(report: BuildReport, out: Path, seconds: float) -> list[str]:
    """The summary of a build: what was written, how fast, what was rejected and why."""
    index = report.index
    spec = index.spec
    lines = []
    if report.fresh:
        lines.append(f"{out} is already complete and its sources have not changed: nothing to do.")
    else:
        rate = report.written / seconds if seconds else 0
        resumed = f" ({report.resumed:,} images were already done)" if report.resumed else ""
        lines.append(f"{report.written:,} images in {duration(seconds)}, {rate:,.0f} images/s{resumed}")
    for name, split in index.splits.items():
        shards = f"{len(split.shards)} shard{'s' if len(split.shards) != 1 else ''}"
        total = sum(shard.bytes for shard in split.shards)
        lines.append(f"  {name}: {split.samples:,} samples, {split.rejected:,} rejected, {shards}, {size(total)}")
    quality = f" quality {spec.jpeg_quality}" if spec.codec == "jpeg" else ""
    lines.append(f"  side {spec.side}, {spec.fit}, {spec.codec}{quality} in {spec.store}, crowds: {spec.crowd}")
    lines += [
        f"  rejected {each.split}/{each.file_name}: {each.reason}" for each in report.rejections[:SHOWN_REJECTIONS]
    ]
    if len(report.rejections) > SHOWN_REJECTIONS:
        rest = len(report.rejections) - SHOWN_REJECTIONS
        lines.append(f"  and {rest:,} more: see rejected.jsonl in {out}/train and {out}/val")
    return lines


def synth_lines(report: SynthReport) -> list[str]:
    """The summary of a synthetic dataset."""
    images = report.train_images + report.val_images
    return [
        f"{report.root}: {images:,} images in {duration(report.seconds)}, {size(report.bytes_written)}",
        f"  train2017: {report.train_images:,}, val2017: {report.val_images:,}; "
        f"without a person: {report.empty_images:,}",
        f"  {report.persons:,} persons on {report.person_fraction:.1%} of the pixels, {report.crowds:,} crowd regions",
    ]
