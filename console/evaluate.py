"""What `eval` and `export` print."""

from __future__ import annotations

import time

from cache.choices import ExportFormat
from cache.messages import message
from console.language import _
from console.render import rendered
from console.text import duration, tell
from export.check import CHECKPOINT, ExportReport
from export.config import FILES
from export.run import Step
from train.evaluation.result import EvalReport
from train.result import TARGETS

SHOWN_REJECTIONS = 10

WORTH_SAYING = 0.005
"""IoU that another threshold must bring."""

_ROWS = (
    ("iou", "IoU"),
    ("dice", "Dice"),
    ("accuracy", message("Accuracy")),
    ("precision", message("Precision")),
    ("recall", message("Recall")),
)


def eval_lines(report: EvalReport) -> list[str]:
    """What was evaluated, the scores beside their targets, what was left out, and the files."""
    sizes = report.sizes
    rows = [(label, [getattr(size.scores, field) for size in sizes], TARGETS.get(field)) for field, label in _ROWS]
    rows.append((message("Boundary F"), [size.boundary.f for size in sizes], None))
    if any(size.loss is not None for size in sizes):
        rows.append((message("Loss"), [size.loss for size in sizes], None))
    return rendered("eval", report=report, rows=rows, shown=SHOWN_REJECTIONS, worth_saying=WORTH_SAYING)


_STEPS: dict[Step, str] = {
    "trace": message("Following the network through images of any size"),
    "write": message("Writing {file}"),
    "compare": message("Comparing {file} with the checkpoint"),
    "measure": message("Measuring how long an answer takes"),
}
_RUNTIMES: dict[str, str] = {
    CHECKPOINT: message("checkpoint, eager"),
    "onnx": message("ONNX, ONNX Runtime"),
    "program": message("torch.export program"),
}


class ExportPrinter:
    """Says on standard error which step begins: some take a while."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, step: Step, kind: ExportFormat | None) -> None:
        """Print a line; see `export.run.Tell`."""
        name = _(_STEPS[step], file=FILES[kind] if kind else "")
        tell(_("⏱️  {step} (after {time})", step=name, time=duration(time.monotonic() - self._start)))


def export_lines(report: ExportReport) -> list[str]:
    """What was exported, how near it is, how fast it is, and the files."""
    return rendered("export", report=report, runtimes=_RUNTIMES)
