"""`cli.py train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cache.choices import Backend, EncoderNorm, Level, LossName, OnBadRecord, OptimizerName, Order, Scheduler
from cache.messages import message
from commands import options
from commands.options import CACHE, DEFAULT_CACHE, DEFAULT_RUN, FILE, FOLDER, group, option


@click.command(
    cls=options.GroupedCommand,
    short_help=message("Train a network on a cache."),
    help=message(
        "Train a network on a cache.\n\n"
        "Settings come from the profile, then --config, then --set, then the other options. Each epoch is "
        "validated and saved. Ctrl-C saves, too, and --resume continues as if nothing had happened."
    ),
)
@group(
    message("Data"),
    option("--cache", "Train on the cache in this folder or at s3://BUCKET/FOLDER.", type=CACHE, default=DEFAULT_CACHE),
    option("--side", "Refuse a cache of another side than this, in pixels.", aliases=["--image-size"], type=int),
    option("--augment", "Augment images this strongly.", type=Level, default="light"),
    option(
        "--order",
        "Shuffle over all images (global), or so that only a few shards are needed at a time (windowed). auto is "
        "windowed for a URL.",
        type=Order,
        default="auto",
    ),
    option("--window", "Mix this many shards in the windowed order.", default=16),
    option("--cache-dir", "Keep shards of a URL in this folder.  [default: $MASKCACHE_CACHE_DIR]", type=FOLDER),
    option(
        "--cache-size",
        "Keep at most this much, such as 50GB.  [default: half of what is free]",
        metavar=message("SIZE"),
    ),
    option("--in-place", "Read Zarr shards of a URL without keeping them.", is_flag=True),
    option("--on-bad-record", "Stop at a bad record, or skip and count it.", type=OnBadRecord, default="stop"),
)
@group(
    message("Network"),
    options.network,
    option("--encoder", "Give --network unet this pretrained encoder of timm.", "network_encoder", metavar="timm:NAME"),
    option(
        "--encoder-weights",
        "Download the encoder's weights (auto continues if that fails), start from scratch, take those that an "
        "installed package ships, or read a file.",
        default="auto",
        metavar="auto|none|package:NAME|FILE",
    ),
    option(
        "--init-from",
        "Start from the network of this checkpoint, of another side, other photos or another category.",
        metavar="CHECKPOINT",
        type=FILE,
    ),
    option("--dropout", "Drop this share of the deepest features.", "network_dropout", default=0.0),
)
@group(
    message("Optimization"),
    option("--epochs", "Pass this many times over the training images.", default=100),
    options.batch_size,
    option("--global-batch", "Share this many images among all ranks instead of --batch-size for each.", type=int),
    option("--accumulation", "Add up the gradients of this many batches for each update.", default=1),
    option("--sync-batchnorm", "Normalize over the images of all GPUs (BatchNorm); not compiled.", is_flag=True),
    option("--optimizer", "Use this optimizer.", type=OptimizerName, default="adamw"),
    option("--learning-rate", "Set the peak learning rate.  [default: 1e-3; sgd: 1e-2]", "--lr", type=float),
    option(
        "--weight-decay",
        "Set the weight decay of the convolution kernels.  [default: 1e-2; adam: 1e-6; sgd: 1e-4]",
        type=float,
    ),
    option(
        "--encoder-lr",
        "Let the encoder learn at this factor of the learning rate; 0 freezes it.  [default: 0.03 if pretrained]",
        type=float,
    ),
    option(
        "--encoder-norm",
        "Keep the statistics of the encoder's BatchNorm, or train them.  [default: frozen if pretrained]",
        type=EncoderNorm,
    ),
    option("--freeze-epochs", "Freeze the encoder in this many epochs at the start.", default=0),
    option("--momentum", "Set the momentum of sgd.", default=0.9),
    option("--scheduler", "Change the learning rate in this way.", type=Scheduler, default="cosine_annealing"),
    option("--loss", "Minimize this loss.", type=LossName, default="bce_dice"),
    option(
        "--average",
        "Validate and save a moving average of the weights with this decay; 0 uses the weights as they are.",
        aliases=["--ema"],
        default=0.0,
    ),
    option("--patience", "Stop after this many epochs without a better IoU; 0 never stops early.", default=0),
)
@group(
    message("Hardware"),
    option(
        "--profile",
        "Use the values for rtx4090, rtx3080, gtx1080, gtx1060, a100, h100, h200 or cpu; auto finds what is here.",
        default="auto",
    ),
    options.precision,
    options.compiled,
    option("--loader", "Load with this backend.  [default: the profile's]", type=Backend),
    option(
        "--threads",
        "Use this many CPU threads; 0 uses one per processor.  [default: the profile's]",
        aliases=["--workers"],
        type=int,
    ),
    option("--prefetch", "Prepare this many batches in advance.", default=2),
    option("--pin-memory/--no-pin-memory", "Prepare batches in pinned memory, for a GPU.", default=True),
    option("--device-memory", "Use at most this much of the device's memory, such as 8GB.", metavar=message("SIZE")),
    option("--deterministic/--no-deterministic", "Use only kernels that repeat bit for bit.", default=False),
)
@group(
    message("Run"),
    option("--out", "Write checkpoints, plots and logs to this folder.", type=FOLDER, default=DEFAULT_RUN),
    option("--resume", "Continue the run in --out with the very next batch.", is_flag=True),
    option("--config", "Read settings from a TOML file or the config.json of a run.", "file", type=FILE),
    option(
        "--set",
        "Change any setting, also by another tool's name (num_epochs=50); may be repeated.",
        "assignments",
        multiple=True,
        metavar=message("NAME=VALUE"),
    ),
    option("--seed", "Seed the weights, the order and the augmentation.", default=0),
    option("--wandb", "Log to this project at Weights & Biases; needs the extra [wandb].", metavar=message("PROJECT")),
)
def train(file: Path | None, assignments: tuple[str, ...], resume: bool, **flags: Any) -> None:
    from cache.storage import place
    from console.train import TrainPrinter, end_lines
    from train.loop import fit
    from train.profiles import profile as find_profile
    from train.ranks import Ranks, ReportedElsewhereError
    from train.settings import configure, read_settings

    context = click.get_current_context()
    automatic = context.parent is not None and context.parent.invoked_subcommand is None
    settings = read_settings(file, assignments)
    for name, value in flags.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            settings[name.replace("network_", "network.")] = value
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
