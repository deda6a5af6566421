"""`cli.py export`."""

from __future__ import annotations

from typing import Any

import click

from commands.options import CHECKPOINT, FOLDER
from commands.output import show_json


@click.command(short_help="A trained network for other programs: ONNX, torch.export, and a model card.")
@click.option("--model", type=CHECKPOINT, required=True, help="A best_model.pth or last_model.pth that training wrote.")
@click.option("--out", type=FOLDER, required=True, help="Folder of model.onnx, model.pt2 and README.md.")
@click.option(
    "--format",
    type=click.Choice(["onnx", "program", "all"]),
    default="all",
    show_default=True,
    help="ONNX, which needs the extra [export]; a program of torch.export; or both.",
)
@click.option("--opset", default=18, show_default=True, help="Operator set of ONNX, 18 to 23.")
@click.option("--side", type=int, help="At which they are compared and timed, pixels.  [default: as in training]")
@click.option(
    "--threads", default=0, show_default=True, help="CPU threads of each while it is timed; 0: as torch does."
)
@click.option("--latency/--no-latency", default=True, help="Whether to time them.  [default: yes]")
@click.option("--overwrite", is_flag=True, help="Put new files in the place of those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def export(as_json: bool, **given: Any) -> None:
    """A trained network for other programs: ONNX, a program of torch.export, and the model card that goes with them.

    They take uint8 RGB images of any number and size (multiples of the network's stride), normalise them themselves
    and answer with probabilities. Each file is first compared with the checkpoint; if one differs, none is written.
    """
    from console.export import ExportPrinter, export_lines
    from export.config import ExportConfig
    from export.run import export as run_export

    report = run_export(ExportConfig(**given), ExportPrinter())
    if as_json:
        show_json(report)
    else:
        click.echo("\n".join(export_lines(report)))
