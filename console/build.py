"""What `preprocess`, `diff` and `verify --repair` print."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from cache.spec import CacheSpec
from console.language import PROGRAM, _, translated
from console.render import rendered
from console.text import by_reason, images, shards
from preprocess.build.build import BuildReport
from preprocess.build.changes import SplitChanges, stale_reasons
from preprocess.dataset import Location

SHOWN_REJECTIONS = 10


def build_lines(report: BuildReport, out: PurePath) -> list[str]:
    """The summary of a build: what was written, how fast, what was rejected and why."""
    rejections = ((f"{each.split}/{each.file_name}", translated(each.reason)) for each in report.rejections)
    reasons, more = by_reason(rejections, SHOWN_REJECTIONS)
    values = {"report": report, "out": out, "reasons": reasons, "more": more}
    return rendered("build", **values, stale_reasons=stale_reasons)


def diff_lines(cache: PurePath, coco: Location, spec: CacheSpec, changes: list[SplitChanges]) -> list[str]:
    """What has changed in each split, and the command that brings the cache up to date."""
    command = " ".join([PROGRAM, "preprocess", f"--coco {coco}", f"--out {cache}", *spec_flags(spec)])
    values = {"cache": cache, "coco": coco, "changes": changes, "command": command}
    return rendered("diff", **values, stale_reasons=stale_reasons)


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
