"""`cli.py quick`, `verify` and `diff`: whether a dataset and a cache are complete, sound and up to date."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.messages import message
from commands import options
from commands.options import option
from console.language import _

if TYPE_CHECKING:
    from preprocess.dataset import Location


@click.command(
    short_help=message("Check that all files are there, in a second."),
    help=message(
        "Check that all files of a dataset or a cache are there. This takes a second: it reads names and sizes only."
    ),
)
@options.coco_or_cache
@options.val_share
def quick(coco: Location | None, cache: Path | None, as_json: bool, val_share: float) -> None:
    from console.inspect import show
    from preprocess.check.structure import check_cache, check_structure

    found = {}
    if coco or not cache:
        found["coco"] = check_structure(coco or options.DEFAULT_COCO, val_share)
    if cache:
        found["cache"] = check_cache(cache)
    ok = all(check.ok for checks in found.values() for check in checks)
    if as_json:
        click.echo(options.as_json_text({"ok": ok, **found}))
    else:
        for checks in found.values():
            show("structure", checks=checks)
    if not ok:
        sys.exit(1)


@click.command(
    short_help=message("Check every photo, annotation and record, and describe the machine."),
    help=message(
        "Decode every photo of a dataset or read every record of a cache, and describe the machine.\n\n"
        "With both --coco and --cache, check also that the cache is still what the dataset gives. With "
        "--repair, check the cache alone, and rebuild its damaged shards."
    ),
)
@options.coco_or_cache
@options.selection
@option("--repair", "Rebuild the damaged shards of --cache from --coco.", is_flag=True)
@option("--log", "Write verification_<time>.log, which is JSON, to this folder, too.", type=options.FOLDER)
def verify(
    coco: Location | None, cache: Path | None, as_json: bool, repair: bool, log: Path | None, **selection: Any
) -> None:
    from bench.hardware import describe_machine
    from cache.spec import CacheSpec
    from console.build import repair_lines
    from console.inspect import show, show_cache, show_dataset
    from console.progress import progress_bar
    from preprocess.build.build import repair_cache
    from preprocess.check.verify import verify_cache, verify_dataset

    if repair and not (coco and cache):
        raise click.UsageError(_("--repair needs --cache, and --coco to make the damaged shards from"))
    dataset = coco if coco or cache else options.DEFAULT_COCO
    found: dict[str, Any] = {"machine": describe_machine(cache or Path(str(dataset)))}
    if dataset and not repair:
        with progress_bar(_("Verifying")) as update:
            found["coco"] = verify_dataset(dataset, CacheSpec(images=selection.pop("rule"), **selection), update)
    if cache:
        with progress_bar(_("Verifying"), "samples") as update:
            found["cache"] = verify_cache(cache, update, coco=coco)
    if repair and cache and coco and found["cache"].damages:
        with progress_bar(_("Repairing")) as update:
            found["repaired"] = repair_cache(cache, coco, found["cache"].damages, update)
        with progress_bar(_("Verifying again"), "samples") as update:
            found["damaged"], found["cache"] = found["cache"], verify_cache(cache, update, coco=coco)
    click.get_current_context().meta["verified"] = found  # for the automatic mode
    ok = all(found[name].sound for name in ("coco", "cache") if name in found)
    if log:
        log.mkdir(parents=True, exist_ok=True)
        path = log / f"verification_{time.strftime('%Y%m%d_%H%M%S')}.log"
        path.write_text(options.as_json_text({"ok": ok, **found}) + "\n")
    if as_json:
        click.echo(options.as_json_text({"ok": ok, **found}))
    else:
        show("machine", machine=found["machine"])
        if "coco" in found:
            show_dataset(found["coco"])
        if "repaired" in found:
            show_cache(found["damaged"])
            click.echo("\n".join(repair_lines(found["repaired"])) + "\n")
        if "cache" in found:
            show_cache(found["cache"])
    if not ok:
        sys.exit(1)


@click.command(
    short_help=message("List what has changed in the dataset since a cache was built."),
    help=message(
        "List what has changed in a dataset since CACHE was built from it, and which shards `preprocess` "
        "would rebuild.\n\n"
        "Nothing is written. The exit code is 1 if the cache is stale."
    ),
)
@click.argument("cache", type=options.FOLDER)
@options.dataset(
    "Options",
    option("--coco", "Compare with this dataset.  [default: COCO]", type=options.DATASET),
    options.DEFAULT_COCO,
)
@options.content
@options.as_json
def diff(cache: Path, coco: Location, content: bool, as_json: bool) -> None:
    from cache.index import CacheIndex
    from console.build import diff_lines
    from preprocess.build.changes import find_changes

    changes = find_changes(cache, coco, content=content)
    options.show(changes, lambda found: diff_lines(cache, coco, CacheIndex.load(cache).spec, found), as_json=as_json)
    if not all(change.none for change in changes):
        sys.exit(1)
