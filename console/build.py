"""What `preprocess`, `diff` and `verify --repair` print."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from cache.choices import SPLITS
from cache.spec import CacheSpec
from console.language import PROGRAM, _, translated
from console.render import rendered
from console.text import by_reason, images, shards
from preprocess.build.build import BuildReport
from preprocess.build.changes import SplitChanges, stale_reasons
from preprocess.dataset import Dataset, Location

SHOWN_REJECTIONS = 10


def build_lines(report: BuildReport, out: PurePath) -> list[str]:
    """The summary of a build: what was written, how fast, what was rejected and why."""
    rejections = ((f"{each.split}/{each.file_name}", translated(each.reason)) for each in report.rejections)
    reasons, more = by_reason(rejections, SHOWN_REJECTIONS)
    values = {"report": report, "out": out, "reasons": reasons, "more": more}
    return rendered("build", **values, stale_reasons=stale_reasons)


def diff_lines(cache: PurePath, coco: Location, spec: CacheSpec, changes: list[SplitChanges]) -> list[str]:
    """What has changed in each split, and the command that brings the cache up to date."""
    named: dict[str, object] = {}
    for split, where in coco.splits.items() if isinstance(coco, Dataset) else ():
        named |= {f"{split}-json": where.annotations, f"{split}-images": where.photos}
    flags = [*named.items(), ("out", cache), *spec_flags(spec)]
    if PurePath(str(coco)) not in named.values():
        flags.insert(0, ("coco", coco))
    if len(changes) < len(SPLITS):
        flags += [("split", change.split) for change in changes]
    words = [word for name, value in flags for word in (f"--{name}", str(value))]
    command = shlex.join([PROGRAM, "preprocess", *words, *["--outside"] * spec.outside])
    values = {"cache": cache, "coco": coco, "changes": changes, "command": command}
    return rendered("diff", **values, stale_reasons=stale_reasons)


def spec_flags(spec: CacheSpec) -> list[tuple[str, object]]:
    """The flags of `preprocess` that give a spec, where it is not the default; the codec is taken from the cache."""
    usual, options = CacheSpec(), {"images": "select", "val_share": "val-share"}
    names = ("side", "fit", "store", "images", "crowd", "limit", "orientation", "val_share")
    changed = [name for name in names if getattr(spec, name) != getattr(usual, name)]
    flags = [(options.get(name, name), getattr(spec, name)) for name in changed]
    return flags + [("category", name) for name in spec.categories if spec.category != usual.category]


def repair_lines(report: BuildReport) -> list[str]:
    """What `verify --repair` did."""
    made = shards(sum(change.stale_shards for change in report.changes))
    return [_("🔧 Repaired: {shards} made again ({images})", shards=made, images=images(report.written))]
