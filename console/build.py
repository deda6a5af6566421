"""What `preprocess`, `diff` and `synth` say."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

from cache.spec import CacheSpec
from console.language import _, ngettext, translated
from console.text import by_reason, count, duration, rejected, size
from preprocess.build.build import BuildReport
from preprocess.build.changes import SplitChanges, stale_reasons

if TYPE_CHECKING:
    from preprocess.synth.dataset import SynthReport

SHOWN_REJECTIONS = 10


def build_lines(report: BuildReport, out: PurePath, seconds: float) -> list[str]:
    """The summary of a build: what was written, how fast, what was rejected and why."""
    index = report.index
    spec = index.spec
    lines = []
    if report.fresh:
        said = _("{cache} is already complete and its sources have not changed: nothing to do.")
        lines.append(said.format(cache=out))
    else:
        for change in report.changes:
            lines += change_lines(change)
        rate = report.written / seconds if seconds else 0
        said = _("{images} in {time}, {rate:,.0f} images/s")
        resumed = _(" ({count:,} images were already done)", count=report.resumed) if report.resumed else ""
        lines.append(
            said.format(
                images=count(report.written, "{count:,} image", "{count:,} images"), time=duration(seconds), rate=rate
            )
            + resumed
        )
    for name, split in index.splits.items():
        said = _("  {split}: {samples}, {rejected}, {shards}, {size}; {category} of {file}")
        lines.append(
            said.format(
                split=name,
                samples=count(split.samples, "{count:,} sample", "{count:,} samples"),
                rejected=rejected(split.rejected),
                shards=count(len(split.shards), "{count:,} shard", "{count:,} shards"),
                size=size(sum(shard.bytes for shard in split.shards)),
                category=spec.category,
                file=split.source.annotations,
            )
        )
    codec: str = spec.codec
    if codec == "jpeg":
        codec = _("{codec} quality {quality}", codec=codec, quality=spec.jpeg_quality)
    said = _("  side {side}, {fit}, {codec} in {store}, crowds: {crowd}")
    lines.append(said.format(side=spec.side, fit=spec.fit, codec=codec, store=spec.store, crowd=spec.crowd))
    rejections = ((f"{each.split}/{each.file_name}", translated(each.reason)) for each in report.rejections)
    reasons, rest = by_reason(rejections, SHOWN_REJECTIONS)
    lines += [_("  rejected {images}", images=line) for line in reasons]
    if rest:
        said = _("  and {count:,} more: see rejected.jsonl in {cache}/train and {cache}/val")
        lines.append(said.format(count=rest, cache=out))
    if report.leaks:
        said = ngettext(
            "⚠️ {count:,} photo of val is in train, too ({file}): validation is not independent",
            "⚠️ {count:,} photos of val are in train, too ({file}, ...): validation is not independent",
            len(report.leaks),
        )
        lines.append(said.format(count=len(report.leaks), file=report.leaks[0]))
    return lines


def change_lines(change: SplitChanges) -> list[str]:
    """How a split has changed since its cache was made, and what of the cache that concerns."""
    if change.none:
        return [_("{split}: nothing has changed", split=change.split)]
    lines = [translated(reason) for reason in stale_reasons(change)]
    if change.damaged:
        said = _("{split}: {shards} missing or damaged")
        lines.append(
            said.format(split=change.split, shards=count(change.damaged, "{count:,} shard", "{count:,} shards"))
        )
    said = _("{split}: {stale:,} of {shards} ({images}) to be made, {kept:,} kept")
    return [
        *lines,
        said.format(
            split=change.split,
            stale=change.stale_shards,
            shards=count(change.shards, "{count:,} shard", "{count:,} shards"),
            images=count(change.stale_images, "{count:,} image", "{count:,} images"),
            kept=change.shards - change.stale_shards,
        ),
    ]


def diff_lines(cache: PurePath, coco: PurePath, spec: CacheSpec, changes: list[SplitChanges]) -> list[str]:
    """What `diff` says."""
    lines = [line for change in changes for line in change_lines(change)]
    if all(change.none for change in changes):
        return [*lines, _("✅ {cache} is what {coco} gives", cache=cache, coco=coco)]
    command = " ".join(["cli.py preprocess", f"--coco {coco}", f"--out {cache}", *spec_flags(spec)])
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
    shards = sum(change.stale_shards for change in report.changes)
    said = _("🔧 Repaired: {shards} made again ({images})")
    return [
        said.format(
            shards=count(shards, "{count:,} shard", "{count:,} shards"),
            images=count(report.written, "{count:,} image", "{count:,} images"),
        )
    ]


def synth_lines(report: SynthReport) -> list[str]:
    """The summary of a synthetic dataset."""
    images = count(report.train_images + report.val_images, "{count:,} image", "{count:,} images")
    made = _("{folder}: {images} in {time}, {size}")
    persons = _("  {persons} on {share:.1%} of the pixels, {crowds}")
    return [
        made.format(folder=report.root, images=images, time=duration(report.seconds), size=size(report.bytes_written)),
        _(
            "  train2017: {train:,}, val2017: {val:,}; without a person: {empty:,}",
            train=report.train_images,
            val=report.val_images,
            empty=report.empty_images,
        ),
        persons.format(
            persons=count(report.persons, "{count:,} person", "{count:,} persons"),
            share=report.person_fraction,
            crowds=count(report.crowds, "{count:,} crowd region", "{count:,} crowd regions"),
        ),
    ]
