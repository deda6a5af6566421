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
    """What has changed in each split, and the command that brings the cache up to date; its codec is kept."""
    location, flags = coco, dict[str, object]()
    if isinstance(coco, Dataset):  # its files were named; its location is a folder, or the first of these files
        location = coco.location
        for split, where in coco.splits.items():
            flags |= {f"{split}-json": where.annotations, f"{split}-images": where.photos}
    if location not in flags.values():
        flags = {"coco": location, **flags}
    usual, fields = CacheSpec(), ("side", "fit", "store", "images", "crowd", "limit", "orientation", "val_share")
    changed = {name: getattr(spec, name) for name in fields if getattr(spec, name) != getattr(usual, name)}
    names = {"images": "select", "val_share": "val-share"}
    flags |= {"out": cache, **{names.get(name, name): value for name, value in changed.items()}}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += [f"--category={name}" for name in spec.categories if spec.category != usual.category]
    words += [f"--split={change.split}" for change in changes if len(changes) < len(SPLITS)]
    command = shlex.join([PROGRAM, "preprocess", *words, *["--outside"] * spec.outside])
    values = {"cache": cache, "coco": coco, "changes": changes, "command": command}
    return rendered("diff", **values, stale_reasons=stale_reasons)


def repair_lines(report: BuildReport) -> list[str]:
    """What `verify --repair` did."""
    made = shards(sum(change.stale_shards for change in report.changes))
    return [_("🔧 Repaired: {shards} made again ({images})", shards=made, images=images(report.written))]
