"""What `preprocess`, `diff` and `synth` say."""

from __future__ import annotations

import shlex
from pathlib import Path

from cache.spec import CacheSpec
from console.text import count, duration, size
from preprocess.build import BuildReport
from preprocess.changes import SplitChanges, stale_reasons
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
        for change in report.changes:
            lines += change_lines(change)
        rate = report.written / seconds if seconds else 0
        resumed = f" ({report.resumed:,} images were already done)" if report.resumed else ""
        lines.append(f"{report.written:,} images in {duration(seconds)}, {rate:,.0f} images/s{resumed}")
    for name, split in index.splits.items():
        total = sum(shard.bytes for shard in split.shards)
        lines.append(
            f"  {name}: {split.samples:,} samples, {split.rejected:,} rejected, "
            f"{count(len(split.shards), 'shard')}, {size(total)}; {spec.category} of {split.source.annotations}"
        )
    quality = f" quality {spec.jpeg_quality}" if spec.codec == "jpeg" else ""
    lines.append(f"  side {spec.side}, {spec.fit}, {spec.codec}{quality} in {spec.store}, crowds: {spec.crowd}")
    lines += [
        f"  rejected {each.split}/{each.file_name}: {each.reason}" for each in report.rejections[:SHOWN_REJECTIONS]
    ]
    if len(report.rejections) > SHOWN_REJECTIONS:
        rest = len(report.rejections) - SHOWN_REJECTIONS
        lines.append(f"  and {rest:,} more: see rejected.jsonl in {out}/train and {out}/val")
    return lines


def change_lines(change: SplitChanges) -> list[str]:
    """How a split has changed since its cache was made, and what of the cache that concerns."""
    if change.none:
        return [f"{change.split}: nothing has changed"]
    lines = stale_reasons(change)
    if change.damaged:
        lines.append(f"{change.split}: {count(change.damaged, 'shard')} missing or damaged")
    made = f"{change.stale_shards:,} of {count(change.shards, 'shard')} ({count(change.stale_images, 'image')})"
    return [*lines, f"{change.split}: {made} to be made, {change.shards - change.stale_shards:,} kept"]


def diff_lines(cache: Path, coco: Path, spec: CacheSpec, changes: list[SplitChanges]) -> list[str]:
    """What `diff` says."""
    lines = [line for change in changes for line in change_lines(change)]
    if all(change.none for change in changes):
        return [*lines, f"✅ {cache} is what {coco} gives"]
    command = " ".join(["cli.py preprocess", f"--coco {coco}", f"--out {cache}", *spec_flags(spec)])
    return [*lines, f"❌ {cache} is stale; this brings it up to date:", f"   {command}"]


def spec_flags(spec: CacheSpec) -> list[str]:
    """The flags of `preprocess` that give a spec, where it is not the default; the codec is taken from the cache."""
    usual, names = CacheSpec(), ("side", "fit", "store", "images", "crowd", "category", "limit")
    changed = {name: getattr(spec, name) for name in names if getattr(spec, name) != getattr(usual, name)}
    return [f"--{name} {shlex.quote(str(value))}" for name, value in changed.items()]


def repair_lines(report: BuildReport) -> list[str]:
    """What `verify --repair` did."""
    shards = sum(change.stale_shards for change in report.changes)
    return [f"🔧 Repaired: {count(shards, 'shard')} made again ({count(report.written, 'image')})"]


def synth_lines(report: SynthReport) -> list[str]:
    """The summary of a synthetic dataset."""
    images = report.train_images + report.val_images
    return [
        f"{report.root}: {images:,} images in {duration(report.seconds)}, {size(report.bytes_written)}",
        f"  train2017: {report.train_images:,}, val2017: {report.val_images:,}; "
        f"without a person: {report.empty_images:,}",
        f"  {report.persons:,} persons on {report.person_fraction:.1%} of the pixels, {report.crowds:,} crowd regions",
    ]
