"""`cli.py verify`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from cache.messages import message
from commands import options
from commands.options import option


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
@option("--repair", is_flag=True, help=message("Rebuild the damaged shards of --cache from --coco."))
@option(
    "--log", type=options.FOLDER, help=message("Write verification_<time>.log, which is JSON, to this folder, too.")
)
def verify(
    coco: Path | None, cache: Path | None, as_json: bool, repair: bool, log: Path | None, **selection: Any
) -> None:

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
    dataset = coco if coco or cache else options.DEFAULT_COCO
    found: dict[str, Any] = {"machine": describe_machine(cache or dataset)}
    if dataset and not repair:
        with progress_bar(_("Verifying")) as update:
            found["coco"] = verify_dataset(dataset, progress=update, **selection)
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
        path = log / f"verification_{time.strftime('%Y%m%d_%H%M%S')}.log"
        path.write_text(options.as_json_text({"ok": ok, **found}) + "\n")
    if as_json:
        click.echo(options.as_json_text({"ok": ok, **found}))
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
