"""`cli.py verify`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from commands.options import DEFAULT_COCO, FOLDER, IMAGES_HELP, RULES, coco_or_cache, photo_options
from commands.output import as_json_text, show_json


@click.command(short_help="Is it sound? Every image or record, and the machine.")
@coco_or_cache
@click.option("--images", "rule", type=RULES, default="person", show_default=True, help=IMAGES_HELP)
@click.option("--category", default="person", show_default=True, help="COCO category whose annotations are checked.")
@photo_options
@click.option("--repair", is_flag=True, help="Make the damaged shards of --cache again, from --coco.")
@click.option("--log", type=FOLDER, help="Write verification_<time>.log, as JSON, to this folder, too.")
def verify(
    coco: Path | None,
    cache: Path | None,
    as_json: bool,
    rule: Any,
    category: str,
    orientation: Any,
    outside: bool,
    repair: bool,
    log: Path | None,
) -> None:
    """Is it sound? Decodes every image, or reads every record; tells the environment.

    With both --coco and --cache it also tells whether the cache is still what the dataset gives. With --repair it only
    looks at the cache, and makes its damaged shards again.
    """
    from bench.hardware import describe_machine
    from console.build import repair_lines
    from console.inspect import show_cache, show_dataset, show_machine
    from console.language import _
    from console.progress import progress_bar
    from preprocess.cache_soundness import verify_cache
    from preprocess.repair import repair_cache
    from preprocess.soundness import verify_dataset

    if repair and not (coco and cache):
        raise click.UsageError(_("--repair needs --cache, and --coco to make the damaged shards from"))
    dataset = coco if coco or cache else DEFAULT_COCO
    found: dict[str, Any] = {"machine": describe_machine(cache or dataset)}
    if dataset and not repair:
        with progress_bar(_("Verifying")) as update:
            found["coco"] = verify_dataset(dataset, rule, category, update, orientation=orientation, outside=outside)
    if cache:
        with progress_bar(_("Verifying"), "samples") as update:
            found["cache"] = verify_cache(cache, update, coco=coco)
    if repair and cache and coco and found["cache"].damages:
        with progress_bar(_("Repairing")) as update:
            found["repaired"] = repair_cache(cache, coco, found["cache"].damages, update)
        with progress_bar(_("Verifying again"), "samples") as update:
            found["damaged"], found["cache"] = found["cache"], verify_cache(cache, update, coco=coco)
    ok = all(found[name].sound for name in ("coco", "cache") if name in found)
    if log:
        log.mkdir(parents=True, exist_ok=True)
        (log / f"verification_{time.strftime('%Y%m%d_%H%M%S')}.log").write_text(
            as_json_text({"ok": ok, **found}) + "\n"
        )
    if as_json:
        show_json({"ok": ok, **found})
    else:
        show_machine(found["machine"])
        if "coco" in found:
            show_dataset(found["coco"])
        if "repaired" in found:
            show_cache(found["damaged"])
            click.echo("\n".join(repair_lines(found["repaired"])) + "\n")
        if "cache" in found:
            show_cache(found["cache"])
    if not ok:
        sys.exit(1)
