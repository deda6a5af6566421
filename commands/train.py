"""`cli.py train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cache.choices import Backend, Level, LossName, OnBadRecord, OptimizerName, Order, Scheduler
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
    option(
        "--cache",
        type=CACHE,
        default=DEFAULT_CACHE,
        help=message("Train on the cache in this folder or at s3://BUCKET/FOLDER."),
    ),
    option(
        "--side",
        aliases=["--image-size"],
        type=int,
        help=message("Refuse a cache of another side than this, in pixels."),
    ),
    option("--augment", type=Level, default="light", help=message("Augment images this strongly.")),
    option(
        "--order",
        type=Order,
        default="auto",
        help=message(
            "Shuffle over all images (global), or so that only a few shards are needed at a time (windowed). auto is "
            "windowed for a URL."
        ),
    ),
    option("--window", default=16, help=message("Mix this many shards in the windowed order.")),
    option(
        "--cache-dir",
        type=FOLDER,
        help=message("Keep shards of a URL in this folder.  [default: $MASKCACHE_CACHE_DIR]"),
    ),
    option(
        "--cache-size",
        metavar=message("SIZE"),
        help=message("Keep at most this much, such as 50GB.  [default: half of what is free]"),
    ),
    option("--in-place", is_flag=True, help=message("Read Zarr shards of a URL without keeping them.")),
    option(
        "--on-bad-record", type=OnBadRecord, default="stop", help=message("Stop at a bad record, or skip and count it.")
    ),
)
@group(
    message("Network"),
    options.network,
    option(
        "--encoder",
        "network_encoder",
        metavar="timm:NAME",
        help=message("Give --network unet this pretrained encoder of timm, which needs the extra [timm]."),
    ),
    option(
        "--encoder-weights",
        default="auto",
        metavar="auto|none|FILE",
        help=message(
            "Download the encoder's weights (auto continues if that fails), start from scratch, or read a file."
        ),
    ),
    option("--dropout", "network_dropout", default=0.0, help=message("Drop this share of the deepest features.")),
)
@group(
    message("Optimization"),
    option("--epochs", default=100, help=message("Pass this many times over the training images.")),
    options.batch_size,
    option(
        "--global-batch",
        type=int,
        help=message("Share this many images among all ranks instead of --batch-size for each."),
    ),
    option("--accumulation", default=1, help=message("Add up the gradients of this many batches for each update.")),
    option("--optimizer", type=OptimizerName, default="adamw", help=message("Use this optimizer.")),
    option(
        "--learning-rate", "--lr", type=float, help=message("Set the peak learning rate.  [default: 1e-3; sgd: 1e-2]")
    ),
    option(
        "--weight-decay",
        type=float,
        help=message("Set the weight decay of the convolution kernels.  [default: 1e-2; adam: 1e-6; sgd: 1e-4]"),
    ),
    option("--momentum", default=0.9, help=message("Set the momentum of sgd.")),
    option(
        "--scheduler", type=Scheduler, default="cosine_annealing", help=message("Change the learning rate in this way.")
    ),
    option("--loss", type=LossName, default="bce_dice", help=message("Minimize this loss.")),
    option(
        "--average",
        aliases=["--ema"],
        default=0.0,
        help=message(
            "Validate and save a moving average of the weights with this decay; 0 uses the weights as they are."
        ),
    ),
    option(
        "--patience", default=0, help=message("Stop after this many epochs without a better IoU; 0 never stops early.")
    ),
)
@group(
    message("Hardware"),
    option(
        "--profile",
        default="auto",
        help=message(
            "Use the values for rtx4090, rtx3080, gtx1080, gtx1060, a100, h100, h200 or cpu; auto finds what is here."
        ),
    ),
    options.precision,
    options.compiled,
    option("--loader", type=Backend, help=message("Load with this backend.  [default: the profile's]")),
    option(
        "--threads",
        aliases=["--workers"],
        type=int,
        help=message("Use this many CPU threads; 0 uses one per processor.  [default: the profile's]"),
    ),
    option("--prefetch", default=2, help=message("Prepare this many batches in advance.")),
    option("--pin-memory/--no-pin-memory", default=True, help=message("Prepare batches in pinned memory, for a GPU.")),
    option(
        "--deterministic/--no-deterministic", default=False, help=message("Use only kernels that repeat bit for bit.")
    ),
)
@group(
    message("Run"),
    option(
        "--out", type=FOLDER, default=DEFAULT_RUN, help=message("Write checkpoints, plots and logs to this folder.")
    ),
    option("--resume", is_flag=True, help=message("Continue the run in --out with the very next batch.")),
    option("--config", "file", type=FILE, help=message("Read settings from a TOML file or the config.json of a run.")),
    option(
        "--set",
        "assignments",
        multiple=True,
        metavar=message("NAME=VALUE"),
        help=message("Change any setting, also by another tool's name (num_epochs=50); may be repeated."),
    ),
    option("--seed", default=0, help=message("Seed the weights, the order and the augmentation.")),
    option(
        "--wandb",
        metavar=message("PROJECT"),
        help=message("Log to this project at Weights & Biases; needs the extra [wandb]."),
    ),
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
