"""The model card, in the layout of the Hugging Face Hub: YAML for its machines, Markdown for people."""

from __future__ import annotations

from export.card_training import data_section, scores_section, training_section
from export.config import FILES, Format
from export.markdown import table
from export.metadata import THRESHOLD
from export.parity import TOLERANCE
from export.record import TrainingRecord
from export.report import CHECKPOINT, ExportReport
from export.usage import usage

LICENCE = "apache-2.0"
"""As maskcache itself; whoever trained a network may put another into its card."""

TAGS = ("person-segmentation", "background-removal", "u-net", "maskcache")

_RUNTIMES: dict[str, str] = {
    CHECKPOINT: "the checkpoint, PyTorch (eager)",
    "onnx": f"`{FILES['onnx']}`, ONNX Runtime",
    "program": f"`{FILES['program']}`, PyTorch (`torch.export`)",
}
_LIBRARIES: dict[Format, str] = {"onnx": "onnx", "program": "pytorch"}


def write_card(report: ExportReport, record: TrainingRecord) -> str:
    """Give the card's text."""
    sections = (
        _front(report),
        _title(report, record),
        _usage(report, record),
        _contract(report),
        data_section(record),
        training_section(record),
        scores_section(record),
        _parity(report),
        _latency(report),
        _limits(report, record),
        _licence(record),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(report: ExportReport) -> str:
    kinds = [file.format for file in report.files]
    lines = ("---", f"license: {LICENCE}", f"library_name: {_LIBRARIES[kinds[0]]}", "pipeline_tag: image-segmentation")
    return "\n".join((*lines, "tags:", *(f"- {tag}" for tag in TAGS), "---"))


def _title(report: ExportReport, record: TrainingRecord) -> str:
    files = " and ".join(f"`{file.path.name}` ({file.bytes / 1e6:.1f} MB)" for file in report.files)
    fit = {"letterbox": "letterboxed into", "stretch": "stretched to"}[record.saved.fit]
    return (
        f"# {report.metadata['name']}\n\n"
        f"Finds the pixels of persons in a photo, to remove its background. A {report.network} with "
        f"{report.parameters / 1e6:.1f} M parameters, trained with maskcache on photos {fit} squares of "
        f"{report.trained_side} pixels. Here as {files}, exported by maskcache {report.metadata['maskcache_version']} "
        f"from the checkpoint `{report.model.name}` (SHA-256 `{report.metadata['checkpoint_sha256']}`)."
    )


def _usage(report: ExportReport, record: TrainingRecord) -> str:
    parts = [
        "## How to use\n\nEach of these programs cuts the persons out of `photo.jpg`. Pillow shrinks photos a little "
        "otherwise than training did (OpenCV's `INTER_AREA`), so that masks may differ by some pixels at edges from "
        "those of `maskcache predict`."
    ]
    for file in report.files:
        needs = {"onnx": "pip install onnxruntime numpy pillow", "program": "pip install torch numpy pillow"}
        code = usage(file.format, side=report.trained_side, fit=record.saved.fit)
        parts.append(f"With `{file.path.name}` (`{needs[file.format]}`):\n\n```python\n{code}\n```")
    return "\n\n".join(parts)


def _contract(report: ExportReport) -> str:
    stride, least = report.stride, report.least
    normalised = report.normalisation
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (normalised.mean, normalised.std))
    rows = [
        ("input `image`", "uint8, (N, 3, H, W): N photos, RGB, 0 to 255. No normalisation: the network does it."),
        ("output `probability`", "float32, (N, 1, H, W): of each pixel being of a person, 0 to 1."),
        ("N, H, W", f"any N from 1; H and W multiples of {stride}, {least} or more; they need not be equal."),
        ("inside", f"`(image / 255 - mean) / std`, mean {mean}, std {std}; at the end a sigmoid."),
        ("threshold", f"the scores below take a pixel for a person above {THRESHOLD}."),
    ]
    if report.opset:
        rows.append(("ONNX", f"opset {report.opset}; side, fit, stride and more are in the file's metadata, too."))
    words = [f"## Input and output\n\n{table(('what', 'how'), rows)}"]
    for file in report.files:
        tried = f"{least + stride // 2} x {least}"
        words.append(
            f"`{file.path.name}` refuses other sizes with an error (tried: {tried})."
            if file.refuses_other_sizes
            else f"`{file.path.name}` answers at other sizes, too (tried: {tried}); nobody has looked at how well."
        )
    return "\n\n".join(words)


def _parity(report: ExportReport) -> str:
    shapes = report.files[0].difference.shapes
    rows = [
        (
            _RUNTIMES[file.format],
            f"{file.difference.largest:.1e}",
            f"{file.difference.mean:.1e}",
            f"{100 * file.difference.decisions:.4f} %",
        )
        for file in report.files
    ]
    tried = ", ".join(f"{count} x {height} x {width}" for count, _, height, width in shapes)
    head = ("file", "largest difference", "mean difference", "pixels decided otherwise")
    return (
        "## Same answers as the checkpoint\n\n"
        "Each file was read back and compared with the checkpoint's network in fp32, on drawn scenes with persons and "
        f"on noise: batches of {tried}, {report.files[0].difference.pixels:,} pixels. Differences are of the "
        f"probability; above {TOLERANCE:g} there would be no file.\n\n{table(head, rows, numbers=True)}"
    )


def _latency(report: ExportReport) -> str:
    if not report.latency:
        return ""
    rows = [
        (_RUNTIMES[name], f"{each.median:.1f}", f"{each.p10:.1f} to {each.p90:.1f}")
        for name, each in report.latency.items()
    ]
    environment = report.environment
    runtimes = f"torch {environment['torch']}"
    if report.opset:
        runtimes += f", ONNX Runtime {environment['onnxruntime']}"
    runs = next(iter(report.latency.values())).runs
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    head = ("what", "median, ms", "p10 to p90, ms")
    return (
        f"## Latency\n\nOne image of side {report.side}, fp32, {threads} each, {runs} runs by turns, on one machine: "
        f"{environment['processor']}; {runtimes}. Decoding and resizing the photo come on top.\n\n"
        f"{table(head, rows, numbers=True)}"
    )


def _limits(report: ExportReport, record: TrainingRecord) -> str:
    side = report.trained_side
    category = record.cache.spec.category if record.cache else "person"
    subject = "Persons" if category == "person" else f"What COCO calls {category!r}"
    lines = (
        f"{subject} only: what a person holds or sits on is background, as COCO annotates it.",
        f"The network sees {side} pixels along the longer side of a photo. Of a photo 10 times as long a pixel of the "
        "network stands for 10 x 10: hair, fingers, and persons far away are lost or blurred.",
        "COCO's outlines are polygons, often some pixels off; no network learns finer edges from them. There is no "
        "matting: half-transparent pixels were never taught.",
        "Crowds were annotated as regions, not person by person; whether they count in training and in the scores "
        "stands above, under training data.",
        f"It was trained at side {side}. Other sizes work; how well has not been measured.",
        "COCO's are everyday photos of the web. Not tried on drawings, X-rays, infrared, night or fisheye pictures. "
        "The pictures of a video are judged each by itself, so that edges flicker.",
        "COCO's photos show more men than women and far more light than dark skin (Zhao, Wang and Russakovsky 2021). "
        "Scores by such groups have not been measured here: measure them before relying on the network.",
        "The probability is not calibrated, and the network always answers: it does not say when it does not know.",
    )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(record: TrainingRecord) -> str:
    words = (
        f"## Licence\n\nThe files of this folder: {LICENCE}, as maskcache itself; whoever trained the network may "
        "choose another, here and in the first lines. What it was trained on is not part of them. COCO's annotations "
        "are of the COCO Consortium, CC BY 4.0 (https://cocodataset.org/#termsofuse). It does not own COCO's photos: "
        "they are of people on Flickr, under the licence that each has there and Flickr's terms of use. Whether that "
        "bears on a network trained on them is not for this card to say."
    )
    encoder = record.saved.config.network.encoder
    if encoder and record.saved.config.encoder_weights != "none":
        words += (
            f" The encoder may have begun with pretrained weights of {encoder}, which have a licence of their own; "
            "ImageNet's photos, on which such weights are mostly trained, are offered for non-commercial research."
        )
    return words
