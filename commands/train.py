"""`cli.py train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from commands.options import CACHE, DEFAULT_CACHE, DEFAULT_RUN, FILE, FOLDER, LOADERS, LOSSES, NETWORKS, PRECISIONS


@click.command(short_help="Train a network on a cache.")
@click.option("--cache", type=CACHE, help=f"The cache's folder, or s3://BUCKET/FOLDER.  [default: {DEFAULT_CACHE}]")
@click.option("--out", type=FOLDER, help=f"The run's folder: checkpoints, plots, log.  [default: {DEFAULT_RUN}]")
@click.option(
    "--profile",
    help="rtx4090, rtx3080, gtx1080, gtx1060, a100, h100, h200, cpu, or auto: by the hardware.  [default: auto]",
)
@click.option("--config", "file", type=FILE, help="Settings from a TOML file, or from the config.json of a run.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting, also by the guide's name (num_epochs=50); may be repeated; stronger than the file.",
)
@click.option("--epochs", type=int, help="Passes over the training images.  [default: 100]")
@click.option("--batch-size", type=int, help="Images in a step, of each rank.  [default: the profile's]")
@click.option(
    "--global-batch", type=int, help="Images in a step of all ranks, instead of --batch-size.  [default: their sum]"
)
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
@click.option("--network", "--model", "network_name", type=NETWORKS, help="Which network.  [default: the profile's]")
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
@click.option("--loss", type=LOSSES, help="Which loss.  [default: bce_dice]")
@click.option(
    "--average", "--ema", "average", type=float, help="Share that a running average of the weights keeps; 0: none."
)
@click.option("--patience", type=int, help="End after so many epochs without a better IoU; 0 never does.  [default: 0]")
@click.option(
    "--augment", type=click.Choice(["none", "light", "heavy"]), help="How strongly to augment.  [default: light]"
)
@click.option("--loader", type=LOADERS, help="Which loader.  [default: the profile's]")
@click.option("--workers", "threads", type=int, help="CPU threads of each loader; 0 takes one a processor.")
@click.option("--prefetch", type=int, help="Batches made ahead.  [default: 2]")
@click.option(
    "--pin-memory/--no-pin-memory", default=None, help="Make them in locked memory, for a GPU.  [default: yes]"
)
@click.option(
    "--order",
    type=click.Choice(["auto", "global", "windowed"]),
    help="Shuffle over all images, or so that few shards are needed at a time; auto: windowed for a URL.",
)
@click.option("--window", type=int, help="Shards that the windowed order mixes.  [default: 16]")
@click.option("--cache-dir", type=FOLDER, help="Where shards of a URL are kept.  [default: $MASKCACHE_CACHE_DIR]")
@click.option("--cache-size", metavar="SIZE", help="How much they may take, as 50GB.  [default: half of what is free]")
@click.option("--in-place", is_flag=True, default=None, help="Read Zarr shards of a URL where they are.")
@click.option("--precision", type=PRECISIONS, help="Of the convolutions.  [default: the profile's]")
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
    from cache.place import place
    from console.train import TrainPrinter, end_lines
    from train.loop import fit
    from train.profiles import profile as find_profile
    from train.ranks import Ranks, ReportedElsewhereError
    from train.settings import configure, read_settings

    above = click.get_current_context().parent
    automatic = above is not None and above.invoked_subcommand is None
    settings = read_settings(file, assignments)
    settings |= {name.replace("network_", "network."): value for name, value in flags.items() if value is not None}
    cache, out = place(settings.pop("cache", DEFAULT_CACHE)), Path(settings.pop("out", DEFAULT_RUN))
    config = configure(find_profile(settings.pop("profile", "auto")), settings, cache=cache, out=out)
    printer = TrainPrinter()
    try:
        result = fit(config, printer, resume=resume)
    except ReportedElsewhereError:
        sys.exit(1)
    finally:
        printer.close()
    if Ranks.from_env().first:
        click.echo("\n".join(end_lines(result, automatic=automatic)))
    if result.interrupted:
        sys.exit(130)
