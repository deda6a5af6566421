"""maskcache on the command line. The commands are in `commands/`.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import click

from cache.machine import settle
from cache.messages import message
from commands.analyze import analyze
from commands.automatic import automatic
from commands.batch import batch
from commands.bench import bench
from commands.check import diff, quick, verify
from commands.dataset import download, synth
from commands.estimate import estimate
from commands.evaluate import evaluate
from commands.export import export
from commands.group import FriendlyGroup
from commands.predict import predict
from commands.preprocess import preprocess
from commands.train import train
from console.language import _


@click.group(
    cls=FriendlyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
    help=message(
        "Train a person-segmentation U-Net on COCO from a precompiled mask cache.\n\n"
        "Without a command, it verifies COCO/, builds data/cache unless it is there, asks once and trains "
        "runs/latest.\n\n"
        "\b\n"
        "The usual order of the commands:\n"
        "  cli.py download --dir COCO                    once: 20 GB, unless COCO is there\n"
        "  cli.py quick --coco COCO                      is everything there?\n"
        "  cli.py preprocess --coco COCO --out CACHE     once: decode, rasterize, resize, pack\n"
        "  cli.py train --cache CACHE --profile auto     as often as you like, at memory speed\n"
        "Without COCO, cli.py synth DIR makes a small dataset to try all of it."
    ),
)
@click.version_option(package_name="maskcache", prog_name="maskcache")
@click.option("--yes", is_flag=True, help=message("Do not ask if there is no command."))
@click.pass_context
def main(context: click.Context, yes: bool) -> None:
    settle()
    if context.invoked_subcommand is None:
        automatic(context, yes=yes)
    elif yes:
        raise click.UsageError(_("--yes is for maskcache without a command"))


for command in (  # in the order in which a user meets them
    *(download, synth, preprocess, diff),  # make data
    *(quick, verify, analyze, batch),  # look at it
    *(train, evaluate, predict, export),
    *(bench, estimate),  # measure
):
    main.add_command(command)


if __name__ == "__main__":
    main()
