"""`cli.py export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from cache.choices import ExportFormat
from cache.messages import message
from commands import options
from commands.options import option


@click.command(
    short_help=message("Write a trained network as ONNX and as a torch.export program."),
    help=message(
        "Write a trained network for other programs: ONNX, a program of torch.export, and a model card.\n\n"
        "Both take uint8 RGB images of any number and size (multiples of the network's stride), normalise "
        "them themselves and answer with probabilities. Each file is first compared with the checkpoint; if "
        "one differs, none is written."
    ),
)
@options.checkpoint
@option("--out", "Write model.onnx, model.pt2 and README.md to this folder.", type=options.FOLDER, required=True)
@option(
    "--format",
    "Write ONNX, which needs the extra [export], a program of torch.export, or both.",
    type=click.Choice([*get_args(ExportFormat), "all"]),
    default="all",
)
@option("--opset", "Use this operator set of ONNX, 18 to 23.", default=18)
@option(
    "--side", "Use, compare and time with square images of this side.  [default: as measured in training]", type=int
)
@option("--threads", "Measure with this many CPU threads; 0 leaves the number to torch.", default=0)
@option("--latency/--no-latency", "Measure how long an image takes.", default=True)
@option("--overwrite", "Replace files that are already there.", is_flag=True)
@options.as_json
def export(checkpoint: Path, as_json: bool, **given: Any) -> None:
    from console.evaluate import ExportPrinter, export_lines
    from export.config import ExportConfig
    from export.run import export as run_export

    report = run_export(ExportConfig(model=checkpoint, **given), ExportPrinter())
    options.show(report, export_lines, as_json=as_json)
