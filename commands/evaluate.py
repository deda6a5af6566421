"""`cli.py eval`."""

from __future__ import annotations

from typing import Any

import click

from commands.options import CHECKPOINT, FOLDER, photo_options
from commands.output import show_json


@click.command("eval", short_help="How good is a trained network?")
@click.option(
    "--checkpoint", type=CHECKPOINT, required=True, help="A best_model.pth or last_model.pth that training wrote."
)
@click.option("--cache", type=FOLDER, help="Score this cache's images at its side.")
@click.option("--coco", type=FOLDER, help="Score this dataset's photos at their own size.")
@photo_options
@click.option("--split", type=click.Choice(["val", "train"]), default="val", show_default=True, help="Which images.")
@click.option("--out", type=FOLDER, help="Folder for results and pictures.  [default: eval-SPLIT in the run's folder]")
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
    from console.language import _
    from console.progress import progress_bar
    from train.evaluation.config import EvalConfig
    from train.evaluation.run import evaluate as run_evaluation

    config = EvalConfig(**given)
    with progress_bar(_("Evaluating")) as update:
        report = run_evaluation(config, update)
    if as_json:
        show_json(report.to_dict())
    else:
        click.echo("\n".join(eval_lines(report)))
