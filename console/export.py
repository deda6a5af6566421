"""What `export` says."""

from __future__ import annotations

import time

from cache.choices import ExportFormat
from cache.messages import message
from console.language import _
from console.text import bulleted, count, duration, size, tell, underlined
from export.config import FILES
from export.report import CHECKPOINT, ExportReport
from export.run import Step

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
        words = _(_STEPS[step], file=FILES[kind] if kind else "")
        seconds = duration(time.monotonic() - self._start)
        tell(_("⏱️  {step} (after {time})", step=words, time=seconds))


def export_lines(report: ExportReport) -> list[str]:
    """What was exported, how near it is, how fast it is, and the files."""
    difference = _(
        "   - {file}: {largest:.1e} at most, {mean:.1e} on average; {decided:.4f} % of the pixels decided otherwise"
    )
    return [
        *underlined(_("📦 EXPORT OF {checkpoint}", checkpoint=report.model)),
        _("📊 Configuration:"),
        _(
            "   - Network: {network}, {parameters:.1f} M parameters, trained at side {side}",
            network=report.network,
            parameters=report.parameters / 1e6,
            side=report.trained_side,
        ),
        _(
            "   - Images: any number, uint8 RGB; height and width multiples of {stride}, {least} or more",
            stride=report.stride,
            least=report.least,
        ),
        *bulleted(report.notes),
        "",
        _("🔍 Probabilities beside those of the checkpoint in fp32:"),
        *(
            difference.format(
                file=file.path.name,
                largest=file.difference.largest,
                mean=file.difference.mean,
                decided=100 * file.difference.decisions,
            )
            for file in report.files
        ),
        "",
        *_latency_lines(report),
        *(_("   💾 Model: {path} ({size})", path=file.path, size=size(file.bytes)) for file in report.files),
        _("   📝 Card: {path}", path=report.card),
    ]


def _latency_lines(report: ExportReport) -> list[str]:
    if not report.latency:
        return []
    head = _("⏱️  One image of side {side}, {threads}, milliseconds (p10 to p90):")
    lines = [head.format(side=report.side, threads=count(report.threads, "{count:,} thread", "{count:,} threads"))]
    for name, each in report.latency.items():
        lines.append(f"   - {_(_RUNTIMES[name])}: {each.median:.1f} ({each.p10:.1f}..{each.p90:.1f})")
    return [*lines, ""]
