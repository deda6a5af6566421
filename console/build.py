"""What `preprocess`, `diff` and `verify --repair` print."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from cache.spec import CacheSpec
from console.language import PROGRAM, _, ngettext, translated
from console.text import by_reason, count, duration, images, rejected, shards, size
from preprocess.build.build import BuildReport
from preprocess.build.changes import SplitChanges, stale_reasons
from preprocess.dataset import Location

SHOWN_REJECTIONS = 10


def build_lines(report: BuildReport, out: PurePath) -> list[str]:
    """The summary of a build: what was written, how fast, what was rejected and why."""
    spec = report.index.spec
    if report.fresh:
        lines = [_("{cache} is already complete and its sources have not changed: nothing to do.", cache=out)]
    else:
        lines = [_("layout of the dataset: {layout}", layout=report.layout)]
        lines += [line for change in report.changes for line in change_lines(change)]
        rate = report.written / report.seconds if report.seconds else 0
        written, time = images(report.written), duration(report.seconds)
        line = _("{images} in {time}, {rate:,.0f} images/s", images=written, time=time, rate=rate)
        if report.resumed:
            line += _(" ({count:,} images were already done)", count=report.resumed)
        lines.append(line)
    for name, split in report.index.splits.items():
        values = {"split": name, "category": spec.category, "file": split.source.annotations}
        values["samples"] = count(split.samples, "{count:,} sample", "{count:,} samples")
        values |= {"rejected": rejected(split.rejected), "shards": shards(len(split.shards))}
        values["size"] = size(sum(shard.bytes for shard in split.shards))
        lines.append(_("  {split}: {samples}, {rejected}, {shards}, {size}; {category} of {file}", **values))
    quality = _("{codec} quality {quality}", codec=spec.codec, quality=spec.jpeg_quality)
    codec = quality if spec.codec == "jpeg" else spec.codec
    lines.append(_("  side {side}, {fit}, {codec} in {store}, crowds: {crowd}", **{**vars(spec), "codec": codec}))
    rejections = ((f"{each.split}/{each.file_name}", translated(each.reason)) for each in report.rejections)
    reasons, rest = by_reason(rejections, SHOWN_REJECTIONS)
    lines += [_("  rejected {images}", images=line) for line in reasons]
    if rest:
        line = _("  and {count:,} more: see rejected.jsonl in {cache}/train and {cache}/val", count=rest, cache=out)
        lines.append(line)
    lines += [_("⚠️ {doubt}", doubt=doubt) for doubt in report.doubts]
    if leaks := report.leaks:
        line = ngettext(
            "⚠️ {count:,} photo of val is in train, too ({file}): validation is not independent",
            "⚠️ {count:,} photos of val are in train, too ({file}, ...): validation is not independent",
            len(leaks),
            count=len(leaks),
            file=leaks[0],
        )
        lines.append(line)
    return lines


def change_lines(change: SplitChanges) -> list[str]:
    """How a split has changed since its cache was made, and what of the cache that concerns."""
    if change.none:
        return [_("{split}: nothing has changed", split=change.split)]
    lines = [translated(reason) for reason in stale_reasons(change)]
    if change.damaged:
        lines.append(_("{split}: {shards} missing or damaged", split=change.split, shards=shards(change.damaged)))
    values = {"split": change.split, "shards": shards(change.shards), "images": images(change.stale_images)}
    numbers = {"stale": change.stale_shards, "kept": change.shards - change.stale_shards}
    return [*lines, _("{split}: {stale:,} of {shards} ({images}) to be made, {kept:,} kept", **values, **numbers)]


def diff_lines(cache: PurePath, coco: Location, spec: CacheSpec, changes: list[SplitChanges]) -> list[str]:
    """What has changed in each split, and the command that brings the cache up to date."""
    lines = [line for change in changes for line in change_lines(change)]
    if all(change.none for change in changes):
        return [*lines, _("✅ {cache} is what {coco} gives", cache=cache, coco=coco)]
    command = " ".join([PROGRAM, "preprocess", f"--coco {coco}", f"--out {cache}", *spec_flags(spec)])
    return [*lines, _("❌ {cache} is stale; this brings it up to date:", cache=cache), f"   {command}"]


def spec_flags(spec: CacheSpec) -> list[str]:
    """The flags of `preprocess` that give a spec, where it is not the default; the codec is taken from the cache."""
    usual, names = CacheSpec(), ("side", "fit", "store", "images", "crowd", "category", "limit", "orientation")
    changed = {name: getattr(spec, name) for name in names if getattr(spec, name) != getattr(usual, name)}
    if "images" in changed:
        changed["select"] = changed.pop("images")
    flags = [f"--{name} {shlex.quote(str(value))}" for name, value in changed.items()]
    return [*flags, "--outside"] if spec.outside else flags


def repair_lines(report: BuildReport) -> list[str]:
    """What `verify --repair` did."""
    made = shards(sum(change.stale_shards for change in report.changes))
    return [_("🔧 Repaired: {shards} made again ({images})", shards=made, images=images(report.written))]
