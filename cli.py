"""maskcache on the command line: parse, build a configuration, call one function, print what it returns.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from cache.spec import CacheSpec
    from model.network import NetworkConfig

DEFAULT_COCO = Path("COCO")
DEFAULT_CACHE = Path("data/cache")
DEFAULT_RUN = Path("runs/latest")

_KEPT = {"preprocess": "Finished shards are", "download": "What is there is", "predict": "What is done is"}
"""What Ctrl-C leaves, by command."""

MOST_COLUMNS = 6
"""Samples in the gallery of `batch --gallery`."""

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


class FriendlyGroup(click.Group):
    """Turns the errors that a user can mend into one line; `MASKCACHE_TRACEBACK=1` shows where they come from."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """In the order of the road, not of the alphabet."""
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            kept = _KEPT.get(context.invoked_subcommand or "")
            click.echo("\nStopped." + (f" {kept} kept: the same command goes on." if kept else ""), err=True)
            sys.exit(130)
        except (ValueError, OSError) as error:
            if os.environ.get("MASKCACHE_TRACEBACK"):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(
    cls=FriendlyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="maskcache", prog_name="maskcache")
@click.option("--yes", is_flag=True, help="Without a command: do not ask.")
@click.pass_context
def main(context: click.Context, yes: bool) -> None:
    """Train a person-segmentation U-Net on COCO from a precompiled mask cache.

    \b
    Without a command: verify COCO/, make data/cache unless it is there, ask once, train runs/latest.

    \b
    The road:
      cli.py download --dir COCO                    once: 20 GB, unless COCO is there
      cli.py quick --coco COCO                      is everything there?
      cli.py preprocess --coco COCO --out CACHE     once: decode, rasterize, resize, pack
      cli.py train --cache CACHE --profile auto     as often as you like, at memory speed
    Without COCO:  cli.py synth DIR makes a small dataset to try all of it.
    """
    if context.invoked_subcommand is None:
        _automatic(context, yes)
    elif yes:
        raise click.UsageError("--yes is for maskcache without a command")


def _automatic(context: click.Context, yes: bool) -> None:
    """The whole road, with the defaults of its commands."""
    from train.folder import RunFolder
    from train.profiles import profile

    click.echo("Automatic mode, COCO/ to data/cache to runs/latest: `cli.py --help` shows the single commands.\n")
    cached, sound = (DEFAULT_CACHE / "index.json").exists(), True
    resume = RunFolder(DEFAULT_RUN).last_model.exists()
    if not cached:
        context.invoke(quick, coco=DEFAULT_COCO)
    try:
        what = {"cache": DEFAULT_CACHE} if cached else {"coco": DEFAULT_COCO}
        context.invoke(verify, log=DEFAULT_RUN / "logs", **what)
    except SystemExit:
        sound = False
    if cached and not sound:
        sys.exit(1)  # training would stop at the bad record; `verify` has said what to do
    chosen = profile("auto")
    plan = [] if cached else [f"preprocess {DEFAULT_COCO} at side {chosen.side} into {DEFAULT_CACHE}"]
    plan.append(f"{'go on with the run in' if resume else 'train'} {DEFAULT_RUN} (profile {chosen.name})")
    plan = plan if sound else ["leave out what is damaged", *plan]
    question = " and ".join(plan)
    question = f"{question[0].upper()}{question[1:]}?"
    if not yes and not click.confirm(f"\n{question}", default=sound):
        return
    if not cached:
        context.invoke(preprocess, coco=DEFAULT_COCO, out=DEFAULT_CACHE, side=chosen.side)
    context.invoke(train, resume=resume)


def _show_json(value: Any) -> None:
    click.echo(_json(value))


def _json(value: Any) -> str:
    import msgspec

    return json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=1)


# ---------------------------------------------------------------------------------------------------- make data


@main.command(short_help="Fetch COCO 2017, or what is missing of it.")
@click.option("--dir", "root", type=_FOLDER, default=DEFAULT_COCO, show_default=True, help="Where to put it.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(["train", "val"]),
    multiple=True,
    default=["train", "val"],
    help="Only this one; may be repeated.  [default: both]",
)
@click.option("--keep-archives", is_flag=True, help="Move the zip files there, too; else they go once unpacked.")
@click.option("--base-url", help="Of a mirror with the same files.  [default: http://images.cocodataset.org]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def download(root: Path, splits: tuple[str, ...], keep_archives: bool, base_url: str | None, as_json: bool) -> None:
    """Fetch COCO 2017, or what is missing of it: annotations, val2017 and train2017, 20 GB; 40 GB while unpacking.

    May be stopped at any time: the same command goes on with the next byte. Sizes, hashes and checksums are compared
    with COCO's. Images and annotations that are there are left alone; so is a zip file of COCO's beside them, which is
    unpacked instead of fetched.
    """
    from console.download import DownloadPrinter, download_lines
    from preprocess.download.archives import BASE_URL
    from preprocess.download.coco import download_coco
    from preprocess.download.config import DownloadConfig

    config = DownloadConfig(
        root=root, splits=splits, keep_archives=keep_archives, base_url=BASE_URL if base_url is None else base_url
    )
    report = download_coco(config, DownloadPrinter(config))
    if as_json:
        _show_json(report)
    else:
        click.echo("\n".join(download_lines(report)))


@main.command(short_help="Make a small dataset of drawn people, COCO layout.")
@click.argument("directory", type=_FOLDER)
@click.option("--images", default=400, show_default=True, help="How many, train and val together.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same pictures, bit for bit.")
def synth(directory: Path, images: int, seed: int) -> None:
    """Make a procedural dataset of people in the COCO layout."""
    from console.build import synth_lines
    from console.progress import progress_bar
    from preprocess.synth import SynthConfig, make_dataset

    config = SynthConfig(images=images, seed=seed)
    done = 0
    with progress_bar("Drawing") as update:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, images)

        report = make_dataset(directory, config, advance)
    click.echo("\n".join(synth_lines(report)))


_IMAGES_HELP = (
    "Which images count: with a person annotation, with a person that has keypoints, with at least ten labelled "
    "keypoints, or all."
)
_CONTENT_HELP = "Read the photos to find those that changed and kept their size."
_LOADERS = click.Choice(["auto", "native", "dali", "resident"])
_RULES = click.Choice(["person", "keypoints", "keypoints10", "all"])


@main.command(short_help="Build the cache from COCO, once.")
@click.option(
    "--coco",
    type=_FOLDER,
    default=DEFAULT_COCO,
    show_default=True,
    help="Folder with annotations/, train2017/, val2017/.",
)
@click.option("--out", type=_FOLDER, default=DEFAULT_CACHE, show_default=True, help="The cache's folder.")
@click.option("--side", default=384, show_default=True, help="Side of the square images, pixels; a multiple of 32.")
@click.option(
    "--fit",
    type=click.Choice(["letterbox", "stretch"]),
    default="letterbox",
    show_default=True,
    help="Keep the aspect and pad, or fill the square.",
)
@click.option(
    "--image-codec",
    type=click.Choice(["auto", "raw", "jpeg"]),
    default="auto",
    show_default=True,
    help="auto: raw if the cache then fits in half of memory, else JPEG.",
)
@click.option(
    "--store",
    type=click.Choice(["lmdb", "zarr"]),
    default="lmdb",
    show_default=True,
    help="Equally fast. lmdb: one file a shard, raw or JPEG; zarr: any Zarr v3 reader opens it, raw only.",
)
@click.option("--images", "rule", type=_RULES, default="person", show_default=True, help=_IMAGES_HELP)
@click.option(
    "--crowd",
    type=click.Choice(["ignore", "person", "drop"]),
    default="ignore",
    show_default=True,
    help="Crowd regions: left out of the loss, part of the persons, or background.",
)
@click.option("--splits", default="train,val", show_default=True, help="Which splits to build.")
@click.option("--category", default="person", show_default=True, help="COCO category to segment.")
@click.option(
    "--limit", default=0, show_default=True, help="Take only so many images of each split, evenly over it; 0 takes all."
)
@click.option("--workers", default=0, show_default=True, help="Threads; 0 takes one a processor.")
@click.option("--force", is_flag=True, help="Build anew: replace a cache that is damaged or made otherwise.")
@click.option("--content", is_flag=True, help=_CONTENT_HELP)
@click.option("--strict", is_flag=True, help="A rejected image is an error: the cache is not finished.")
def preprocess(
    coco: Path,
    out: Path,
    image_codec: str,
    splits: str,
    workers: int,
    force: bool,
    content: bool,
    strict: bool,
    **spec: Any,
) -> None:
    """Decode, rasterize, resize and pack COCO into a cache, once.

    An interrupted build goes on where it stopped. Of a finished cache only the shards are made again whose images or
    annotations have changed.
    """
    from console.build import build_lines
    from console.progress import progress_bar
    from preprocess.build import BuildConfig, build_cache

    config = BuildConfig(
        coco=coco,
        out=out,
        spec=_spec(image_codec, **spec),
        auto_codec=image_codec == "auto",
        splits=tuple(name.strip() for name in splits.split(",")),
        workers=workers,
        force=force,
        content=content,
        strict=strict,
    )
    start = time.perf_counter()
    with progress_bar("Preprocessing") as update:
        report = build_cache(config, update)
    click.echo("\n".join(build_lines(report, out, time.perf_counter() - start)))


def _spec(image_codec: str, *, rule: Any, **fields: Any) -> CacheSpec:
    from cache.spec import CacheSpec

    return CacheSpec(codec="jpeg" if image_codec == "jpeg" else "raw", images=rule, **fields)


@main.command(short_help="What has changed since a cache was made?")
@click.argument("cache", type=_FOLDER)
@click.option("--coco", type=_FOLDER, default=DEFAULT_COCO, show_default=True, help="What it was made from.")
@click.option("--content", is_flag=True, help=_CONTENT_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def diff(cache: Path, coco: Path, content: bool, as_json: bool) -> None:
    """What has changed in a dataset since CACHE was made from it, and which shards `preprocess` would make again.

    Writes nothing. Exits with 1 if the cache is stale.
    """
    from cache.index import CacheIndex
    from console.build import diff_lines
    from preprocess.changes import find_changes

    changes = find_changes(cache, coco, content=content)
    if as_json:
        _show_json(changes)
    else:
        click.echo("\n".join(diff_lines(cache, coco, CacheIndex.load(cache).spec, changes)))
    if not all(change.none for change in changes):
        sys.exit(1)


# ---------------------------------------------------------------------------------------------------- look at data


def _coco_or_cache(command: Any) -> Any:
    """The options `--coco`, `--cache` and `--json` of the commands that look."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text."),
        click.option("--cache", type=_FOLDER, help="Look at this cache."),
        click.option("--coco", type=_FOLDER, help=f"Look at this dataset.  [default: {DEFAULT_COCO} if no --cache]"),
    ):
        command = option(command)
    return command


@main.command(short_help="Is everything there? Names and sizes, in a second.")
@_coco_or_cache
def quick(coco: Path | None, cache: Path | None, as_json: bool) -> None:
    """Is everything there? Looks at names and sizes only; takes a second."""
    from console.inspect import show_structure
    from preprocess.structure import check_cache, check_structure

    found = {}
    if coco or not cache:
        found["coco"] = check_structure(coco or DEFAULT_COCO)
    if cache:
        found["cache"] = check_cache(cache)
    ok = all(check.ok for checks in found.values() for check in checks)
    if as_json:
        _show_json({"ok": ok, **found})
    else:
        for checks in found.values():
            show_structure(checks)
    if not ok:
        sys.exit(1)


@main.command(short_help="Is it sound? Every image or record, and the machine.")
@_coco_or_cache
@click.option("--images", "rule", type=_RULES, default="person", show_default=True, help=_IMAGES_HELP)
@click.option("--category", default="person", show_default=True, help="COCO category whose annotations are checked.")
@click.option("--repair", is_flag=True, help="Make the damaged shards of --cache again, from --coco.")
@click.option("--log", type=_FOLDER, help="Write verification_<time>.log, as JSON, to this folder, too.")
def verify(
    coco: Path | None, cache: Path | None, as_json: bool, rule: Any, category: str, repair: bool, log: Path | None
) -> None:
    """Is it sound? Decodes every image, or reads every record; tells the environment.

    With both --coco and --cache it also tells whether the cache is still what the dataset gives. With --repair it only
    looks at the cache, and makes its damaged shards again.
    """
    from bench.hardware import describe_machine
    from console.build import repair_lines
    from console.inspect import show_cache, show_dataset, show_machine
    from console.progress import progress_bar
    from preprocess.cache_soundness import verify_cache
    from preprocess.repair import repair_cache
    from preprocess.soundness import verify_dataset

    if repair and not (coco and cache):
        raise click.UsageError("--repair needs --cache, and --coco to make the damaged shards from")
    dataset = coco if coco or cache else DEFAULT_COCO
    found: dict[str, Any] = {"machine": describe_machine(cache or dataset)}
    if dataset and not repair:
        with progress_bar("Verifying") as update:
            found["coco"] = verify_dataset(dataset, rule, category, update)
    if cache:
        with progress_bar("Verifying", "samples") as update:
            found["cache"] = verify_cache(cache, update, coco=coco)
    if repair and cache and coco and found["cache"].damages:
        with progress_bar("Repairing") as update:
            found["repaired"] = repair_cache(cache, coco, found["cache"].damages, update)
        with progress_bar("Verifying again", "samples") as update:
            found["damaged"], found["cache"] = found["cache"], verify_cache(cache, update, coco=coco)
    ok = all(found[name].sound for name in ("coco", "cache") if name in found)
    if log:
        log.mkdir(parents=True, exist_ok=True)
        (log / f"verification_{time.strftime('%Y%m%d_%H%M%S')}.log").write_text(_json({"ok": ok, **found}) + "\n")
    if as_json:
        _show_json({"ok": ok, **found})
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


@main.command(short_help="What is in it? Statistics and a picture.")
@_coco_or_cache
@click.option("--category", default="person", show_default=True, help="COCO category to count.")
@click.option(
    "--picture", type=_FILE, default=Path("analysis.png"), show_default=True, help="Where to draw the histograms."
)
def analyze(coco: Path | None, cache: Path | None, as_json: bool, category: str, picture: Path) -> None:
    """What is in it? Images, persons, sizes, what each --images rule selects; and a picture of the distributions."""
    from cache.index import CacheIndex
    from cache.reader import CacheReader
    from console.histogram import draw_histograms
    from console.inspect import show_cache_statistics, show_statistics
    from preprocess.analyze import analyze as analyze_table
    from preprocess.analyze import analyze_cache, cache_distributions, distributions
    from preprocess.coco import annotation_file, load_persons
    from preprocess.sources import SPLIT_FOLDERS

    found: dict[str, dict[str, Any]] = {}
    drawn = []
    if coco or not cache:
        root, found["coco"] = coco or DEFAULT_COCO, {}
        for split, folder in SPLIT_FOLDERS.items():
            table = load_persons(annotation_file(root, folder), category)
            found["coco"][split] = analyze_table(table)
            drawn.append(distributions(table, split))
    if cache:
        found["cache"] = {}
        for split in CacheIndex.load(cache).splits:
            with CacheReader(cache, split) as reader:
                found["cache"][split] = analyze_cache(reader)
                if "coco" not in found:  # the picture is of one thing: the dataset if both are given
                    drawn.append(cache_distributions(reader))
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_histograms(drawn, picture, str(coco or cache or DEFAULT_COCO))
    if as_json:
        _show_json({**found, "picture": picture})
        return
    for split, statistics in found.get("coco", {}).items():
        show_statistics(statistics, split)
    for statistics in found.get("cache", {}).values():
        show_cache_statistics(statistics)
    click.echo(f"🖼️  Picture: {picture}")


@main.command(short_help="What does a batch look like? A contact sheet.")
@click.option("--cache", type=_FOLDER, default=DEFAULT_CACHE, show_default=True, help="The cache's folder.")
@click.option(
    "--coco",
    type=_FOLDER,
    help="Look at this dataset instead: a few of its images go through a small cache of their own.",
)
@click.option("--split", default="train", show_default=True, help="train or val.")
@click.option("--batch-size", default=16, show_default=True, help="Samples in the batch.")
@click.option(
    "--augment",
    type=click.Choice(["none", "light", "heavy"]),
    default="light",
    show_default=True,
    help="How strongly to augment.",
)
@click.option("--loader", type=_LOADERS, default="auto", show_default=True, help="Which loader.")
@click.option("--seed", default=0, show_default=True, help="Of order and augmentation.")
@click.option(
    "--picture", type=_FILE, default=Path("batch.png"), show_default=True, help="Where to draw the contact sheet."
)
@click.option(
    "--gallery", is_flag=True, help="Draw what each augmentation level makes of the first few samples of --cache."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def batch(cache: Path, coco: Path | None, picture: Path, gallery: bool, as_json: bool, **options: Any) -> None:
    """What does a batch look like? Draws one, augmented, with its masks over it."""
    from console.batch import batch_lines, draw_batch, draw_dataset_batch, draw_gallery

    if gallery:
        if coco:
            raise click.UsageError("--gallery needs a --cache, not --coco; make one with `preprocess`")
        del options["augment"]  # all of them
        draw_gallery(cache, picture, **{**options, "batch_size": min(options["batch_size"], MOST_COLUMNS)})
        click.echo(json.dumps({"picture": str(picture)}) if as_json else f"🖼️  Picture: {picture}")
        return
    summary = draw_dataset_batch(coco, picture, **options) if coco else draw_batch(cache, picture, **options)
    if as_json:
        _show_json(summary)
    else:
        click.echo("\n".join(batch_lines(summary)))


# ---------------------------------------------------------------------------------------------------- train


_NETWORKS = click.Choice(["unet", "attention_unet", "resunet"])
_LOSSES = click.Choice(["bce_dice", "focal_dice", "bce", "dice", "focal"])
_PRECISIONS = click.Choice(["fp32", "bf16", "fp16"])


@main.command(short_help="Train a network on a cache.")
@click.option("--cache", type=_FOLDER, help=f"The cache's folder.  [default: {DEFAULT_CACHE}]")
@click.option("--out", type=_FOLDER, help=f"The run's folder: checkpoints, plots, log.  [default: {DEFAULT_RUN}]")
@click.option(
    "--profile",
    help="rtx4090, rtx3080, gtx1080, gtx1060, a100, h100, h200, cpu, or auto: by the hardware.  [default: auto]",
)
@click.option("--config", "file", type=_FILE, help="Settings from a TOML file, or from the config.json of a run.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting, also by the guide's name (num_epochs=50); may be repeated; stronger than the file.",
)
@click.option("--epochs", type=int, help="Passes over the training images.  [default: 100]")
@click.option("--batch-size", type=int, help="Images in a step.  [default: the profile's]")
@click.option("--accumulation", type=int, help="Steps whose gradients make one update.  [default: 1]")
@click.option("--image-size", "side", type=int, help="Side that the cache must have, pixels.  [default: any]")
@click.option("--optimizer", type=click.Choice(["adamw", "adam", "sgd"]), help="Which.  [default: adamw]")
@click.option(
    "--lr", "--learning-rate", "learning_rate", type=float, help="Peak learning rate.  [default: 1e-3; sgd: 1e-2]"
)
@click.option("--weight-decay", type=float, help="Of the kernels.  [default: 1e-2; adam: 1e-6; sgd: 1e-4]")
@click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]")
@click.option(
    "--scheduler",
    type=click.Choice(["cosine_annealing", "plateau", "none"]),
    help="Of the learning rate, after a warm-up.  [default: cosine_annealing]",
)
@click.option("--network", "--model", "network_name", type=_NETWORKS, help="Which network.  [default: the profile's]")
@click.option(
    "--width", "network_width", type=int, help="Channels of its first level, a multiple of 8.  [default: the profile's]"
)
@click.option(
    "--encoder",
    "network_encoder",
    metavar="timm:NAME",
    help="An encoder of timm's for --network unet, with pretrained weights; needs the extra [timm].  [default: none]",
)
@click.option(
    "--encoder-weights",
    metavar="auto|none|FILE",
    help="Download them, or go on without if that fails; start from scratch; or a file.  [default: auto]",
)
@click.option("--dropout", "network_dropout", type=float, help="Of its deepest features.  [default: 0]")
@click.option("--loss", type=_LOSSES, help="Which loss.  [default: bce_dice]")
@click.option(
    "--average", "--ema", "average", type=float, help="Share that a running average of the weights keeps; 0: none."
)
@click.option("--patience", type=int, help="End after so many epochs without a better IoU; 0 never does.  [default: 0]")
@click.option(
    "--augment", type=click.Choice(["none", "light", "heavy"]), help="How strongly to augment.  [default: light]"
)
@click.option("--loader", type=_LOADERS, help="Which loader.  [default: the profile's]")
@click.option("--workers", "threads", type=int, help="CPU threads of each loader; 0 takes one a processor.")
@click.option("--prefetch", type=int, help="Batches made ahead.  [default: 2]")
@click.option(
    "--pin-memory/--no-pin-memory", default=None, help="Make them in locked memory, for a GPU.  [default: yes]"
)
@click.option("--precision", type=_PRECISIONS, help="Of the convolutions.  [default: the profile's]")
@click.option(
    "--compile/--no-compile", "compile", default=None, help="Whether to use torch.compile.  [default: the profile's]"
)
@click.option("--seed", type=int, help="Of weights, order and augmentation.  [default: 0]")
@click.option(
    "--deterministic/--no-deterministic", default=None, help="Only kernels that give the same bits.  [default: no]"
)
@click.option(
    "--on-bad-record",
    type=click.Choice(["stop", "skip"]),
    help="Stop with its name, or leave it out of loss and scores and count it.  [default: stop]",
)
@click.option(
    "--wandb", metavar="PROJECT", help="Send scalars to this project at Weights & Biases, too; needs the extra [wandb]."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, from its very next batch.")
def train(file: Path | None, assignments: tuple[str, ...], resume: bool, **flags: Any) -> None:
    """Train a network on a cache.

    Settings come from the profile, then --config, then --set, then the flags. Each epoch is validated and saved; Ctrl-C
    saves too, and --resume goes on as if nothing had happened.
    """
    from console.train import TrainPrinter, end_lines
    from train.loop import fit
    from train.profiles import profile as find_profile
    from train.ranks import Ranks
    from train.settings import configure, read_settings

    settings = read_settings(file, assignments)
    settings |= {name.replace("network_", "network."): value for name, value in flags.items() if value is not None}
    cache, out = Path(settings.pop("cache", DEFAULT_CACHE)), Path(settings.pop("out", DEFAULT_RUN))
    config = configure(find_profile(settings.pop("profile", "auto")), settings, cache=cache, out=out)
    printer = TrainPrinter()
    try:
        result = fit(config, printer, resume=resume)
    finally:
        printer.close()
    if Ranks.found().first:
        click.echo("\n".join(end_lines(result)))
    if result.interrupted:
        sys.exit(130)


@main.command("eval", short_help="How good is a trained network?")
@click.option("--checkpoint", type=_FILE, required=True, help="A best_model.pth or last_model.pth that training wrote.")
@click.option("--cache", type=_FOLDER, help="Score this cache's images at its side.")
@click.option("--coco", type=_FOLDER, help="Score this dataset's photos at their own size.")
@click.option("--split", type=click.Choice(["val", "train"]), default="val", show_default=True, help="Which images.")
@click.option("--out", type=_FOLDER, help="Folder for results and pictures.  [default: eval-SPLIT in the run's folder]")
@click.option("--batch-size", default=0, show_default=True, help="Images predicted together; 0: as in training.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where.  [default: a GPU if there is one]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Of the convolutions.  [default: as in training, if the device can do it]",
)
@click.option("--threads", default=0, show_default=True, help="CPU threads that read; 0 takes one a processor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def evaluate(as_json: bool, **given: Any) -> None:
    """How good is a trained network? Scores it on a split: give --cache, --coco or both.

    A cache is scored at its side, as in training. Of a dataset the photos are predicted as a cache would have them,
    and the answer is brought back to each photo's own size: what a user of the network gets.
    """
    from console.evaluate import eval_lines
    from console.progress import progress_bar
    from train.evaluation.config import EvalConfig
    from train.evaluation.run import evaluate as run_evaluation

    config = EvalConfig(**given)
    with progress_bar("Evaluating") as update:
        report = run_evaluation(config, update)
    if as_json:
        _show_json(report.to_dict())
    else:
        click.echo("\n".join(eval_lines(report)))


# ---------------------------------------------------------------------------------------------------- use


@main.command(short_help="Remove backgrounds: photos in, cutouts, masks or composites out.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--model", type=_FILE, required=True, help="A best_model.pth or last_model.pth that training wrote.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results; - for standard output."
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["cutout", "mask", "composite"]),
    help="The photo with the mask as its alpha, the mask alone, or before a --background.  [default: cutout]",
)
@click.option(
    "--background",
    metavar="WHAT",
    help="Of a composite: #rrggbb, a CSS name, blur, blur:PERCENT (of the diagonal), or a picture.",
)
@click.option(
    "--format", type=click.Choice(["png", "jpeg"]), default="png", show_default=True, help="jpeg: composites."
)
@click.option("--hard", is_flag=True, help="A mask of 0 and 255 instead of the probability.")
@click.option(
    "--threshold", default=0.5, show_default=True, help="Above it a pixel is a person, for --hard and the coverage."
)
@click.option("--refine", is_flag=True, help="Draw the mask's edges along the photo's, by a guided filter.")
@click.option("--overwrite", is_flag=True, help="Make results anew that are there already.  [default: skip them]")
@click.option("--side", type=int, help="Of the square that the network sees, pixels.  [default: as in training]")
@click.option("--batch-size", default=0, show_default=True, help="Photos predicted together; 0: as in training.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where.  [default: a GPU if there is one]")
@click.option(
    "--precision", type=_PRECISIONS, help="Of the convolutions.  [default: as in training, if the device can do it]"
)
@click.option("--threads", default=0, show_default=True, help="CPU threads that read and write; 0: one a processor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def predict(kind: Any, as_json: bool, **given: Any) -> None:
    """Remove the backgrounds of photos: files, folders, "patterns", or - for standard input.

    Each result has its photo's size, upright, and is called as its photo is; sub-folders of a folder are kept. Exits
    with 1 if a photo had to be left out.
    """
    from console.predict import predict_lines
    from console.progress import progress_bar
    from predict.config import PredictConfig, PredictError
    from predict.plan import plan_jobs
    from predict.run import predict as run_prediction

    try:
        config = PredictConfig(kind=kind or ("composite" if given["background"] else "cutout"), **given)
        plan = plan_jobs(config)
    except PredictError as error:
        raise click.UsageError(str(error)) from None
    if as_json and config.to_standard_output:
        raise click.UsageError("standard output can hold the result or --json; name a folder with --out")
    with progress_bar("Predicting") as update:
        report = run_prediction(config, plan, update)
    if as_json:
        _show_json(report.to_dict())
    else:
        click.echo("\n".join(predict_lines(report)), err=config.to_standard_output)
    if report.count("rejected"):
        sys.exit(1)


# ---------------------------------------------------------------------------------------------------- measure


_SUITES = (
    "machine",
    "raster",
    "annotations",
    "preprocess",
    "stores",
    "verify",
    "loader",
    "convolutions",
    "stages",
    "model",
    "epoch",
)


@main.command(short_help="How fast is each stage, against its physical limit?")
@click.option("--coco", type=_FOLDER, help="Measure on this dataset.  [default: drawn people]")
@click.option("--cache", type=_FOLDER, help="Load from this cache.  [default: a temporary one]")
@click.option(
    "--suite",
    "suites",
    type=click.Choice(_SUITES),
    multiple=True,
    help="Which; may be repeated.  [default: all but convolutions]",
)
@click.option("--profile", default="auto", show_default=True, help="As in `train`: network, batch, side, precision.")
@click.option("--network", "network_name", type=_NETWORKS, help="Which network.  [default: the profile's]")
@click.option("--width", type=int, help="Channels of its first level, a multiple of 8.  [default: the profile's]")
@click.option("--side", type=int, help="Side of the images, pixels.  [default: the cache's, else the profile's]")
@click.option("--batch-size", type=int, help="Images in a batch.  [default: the profile's]")
@click.option("--precision", type=_PRECISIONS, help="Of the convolutions.  [default: the profile's]")
@click.option(
    "--compile/--no-compile", "compile", default=None, help="Whether to use torch.compile.  [default: the profile's]"
)
@click.option("--threads", default=0, show_default=True, help="CPU threads; 0 takes one a processor.")
@click.option(
    "--images", type=int, help="Images of an epoch, for the minutes.  [default: 45174, as in the guide's table]"
)
@click.option("--seconds", type=float, help="Time for each measurement.")
@click.option("--quick", is_flag=True, help="Fewer photos and shorter measurements: rough figures in two minutes.")
@click.option(
    "--peers", is_flag=True, help="Measure other libraries' loaders, too, on the same samples: a quarter of an hour."
)
@click.option(
    "--peers-folder",
    type=_FOLDER,
    default=Path("data/peers"),
    show_default=True,
    help="Where their environments and datasets are kept, 20 GB.",
)
@click.option(
    "--compare",
    nargs=2,
    type=_FILE,
    metavar="BEFORE AFTER",
    help="Measure nothing: compare two reports that --json wrote.",
)
@click.option(
    "--max-regression",
    type=float,
    metavar="PERCENT",
    help="With --compare: exit code 1 if a row got worse by more than this, and clear of the spread.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the report, or the comparison, to this file, too.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write its tables to this file, too.")
@click.option("--html", "html_file", type=_FILE, help="Write it as a page with charts to this file, too.")
@click.option("--plot", "plot_file", type=_FILE, help="Draw minutes per epoch by hardware, a .png or .svg.")
def bench(
    network_name: str | None,
    width: int | None,
    suites: tuple[Any, ...],
    compare: tuple[Path, Path] | None,
    max_regression: float | None,
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    plot_file: Path | None,
    **given: Any,
) -> None:
    """Measure every stage on this machine, each beside what the hardware could do.

    Ends with the minutes of an epoch here, beside the figures that the guide promises for other hardware.
    """
    if compare:
        _compare(*compare, max_regression, json_file)
        return
    if max_regression is not None:
        raise click.UsageError("--max-regression needs --compare BEFORE AFTER")
    from bench.config import BenchConfig
    from bench.suites import run_suites
    from console.bench import BenchPrinter, show_report
    from console.tier_chart import check_picture, draw_tiers
    from train.profiles import profile as find_profile

    if plot_file:
        check_picture(plot_file)
    values = {name: value for name, value in given.items() if value is not None}
    if network_name or width is not None:
        values["network"] = _network(find_profile(given["profile"]).network, network_name, width)
    if suites:
        values["suites"] = suites
    report = run_suites(BenchConfig(**values), BenchPrinter())
    show_report(report)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        report.write(json_file)
        click.echo(f"📝 Report: {json_file}")
    if markdown_file:
        from console.markdown import markdown_tables

        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        markdown_file.write_text(markdown_tables(report))
        click.echo(f"📝 Tables: {markdown_file}")
    if html_file:
        from console.html import html_page

        html_file.parent.mkdir(parents=True, exist_ok=True)
        html_file.write_text(html_page(report), encoding="utf-8")
        click.echo(f"📝 Page: {html_file}")
    if plot_file:
        click.echo(f"🖼️  Picture: {draw_tiers(report.rows, plot_file)}")


def _compare(before: Path, after: Path, max_regression: float | None, json_file: Path | None) -> None:
    """Two reports instead of a measurement."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in ("compare", "max_regression", "json_file"):
            raise click.UsageError(f"--compare measures nothing; leave out {parameter.opts[0]}")
    from bench.compare import compare_files
    from console.compare import show_comparison

    comparison = compare_files(before, after, max_regression=max_regression)
    show_comparison(comparison)
    if json_file:
        comparison.write(json_file)
        click.echo(f"📝 Comparison: {json_file}")
    if comparison.regressions:
        sys.exit(1)


@main.command(short_help="How long would an epoch take on that card? Nothing is measured.")
@click.option("--gpu", metavar="NAME", help='As "RTX 4090"; of one that is not listed, just a name for the next three.')
@click.option("--peak", type=float, help="TFLOP/s of its tensor cores in 16 bits, added up in fp32 (or of fp32).")
@click.option("--bandwidth", type=float, help="Of its memory, GB/s.")
@click.option("--memory", type=float, help="GB.")
@click.option("--network", "--model", "network_name", type=_NETWORKS, help="Which network.  [default: the profile's]")
@click.option("--width", type=int, help="Channels of its first level, a multiple of 8.  [default: the profile's]")
@click.option("--side", type=int, help="Side of the images, pixels.  [default: the profile's]")
@click.option("--batch-size", "--batch", "batch_size", type=int, help="Images in a step.  [default: the profile's]")
@click.option("--precision", type=_PRECISIONS, help="Of the convolutions.  [default: 16 bits with tensor cores]")
@click.option(
    "--compile/--no-compile", "compile", default=None, help="Whether by torch.compile.  [default: with tensor cores]"
)
@click.option("--images", default=45174, show_default=True, help="Images of an epoch.")
@click.option("--check", is_flag=True, help="Also predict each measured row from the others, and tell the errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def estimate(
    gpu: str | None, network_name: str | None, width: int | None, check: bool, as_json: bool, **given: Any
) -> None:
    """How long would an epoch take on that card, and does the batch fit? A range; nothing is measured.

    The network's operations are counted one by one; each takes as long as its arithmetic or its memory traffic,
    whichever is longer. How near to the peak convolutions come is taken from rows that somebody measured.
    """
    from bench.calibration import calibrations, leave_one_out
    from bench.tier_estimates import card_of, estimate_profile, profile_of
    from console.estimate import check_lines, estimate_dict, estimate_lines

    known = calibrations()
    checks = leave_one_out(known) if check else []
    if not (gpu or given["peak"]):
        if not check:
            raise click.UsageError('Give --gpu "RTX 4090" or another card, or its --peak, --bandwidth and --memory')
        click.echo("\n".join(check_lines(checks)))
        return
    card = card_of(gpu, given.pop("peak"), given.pop("bandwidth"), given.pop("memory"), given["precision"])
    images = given.pop("images")
    profile = profile_of(card, **{name: value for name, value in given.items() if value is not None})
    network = _network(profile.network, network_name, width)
    found = estimate_profile(profile, network, card, known)
    if as_json:
        errors = [{"name": one.row.name, "measured": one.row.images_per_s, "error": one.error} for one in checks]
        _show_json({**estimate_dict(card, network, found, images), **({"checks": errors} if check else {})})
        return
    mode = "compiled" if profile.compile else "eager"
    shape = f"side {profile.side}, batch {profile.batch_size}, {profile.precision} {mode}"
    click.echo("\n".join(estimate_lines(card, shape, network, found, images)))
    if check:
        click.echo("\n".join(["", *check_lines(checks)]))


def _network(base: NetworkConfig, name: Any, width: int | None) -> NetworkConfig:
    """A profile's network with what was asked for on top."""
    return dataclasses.replace(base, name=name or base.name, width=base.width if width is None else width)


if __name__ == "__main__":
    main()
