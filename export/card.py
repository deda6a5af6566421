"""The model card, in the layout of the Hugging Face Hub: YAML for its machines, Markdown for people."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from cache.choices import Crowd, ExportFormat, Fit, ImageRule
from cache.messages import listed
from cache.spec import things
from export.check import CHECKPOINT, TOLERANCE, ExportReport
from export.config import FILES
from export.record import THRESHOLD, TrainingRecord
from train.result import TARGETS

LICENCE = "apache-2.0"
"""The licence of maskcache itself; whoever trained a network may put another into its card."""

TAGS = ("background-removal", "u-net", "maskcache")

_RUNTIMES: dict[str, str] = {
    CHECKPOINT: "the checkpoint, PyTorch (eager)",
    "onnx": f"`{FILES['onnx']}`, ONNX Runtime",
    "program": f"`{FILES['program']}`, PyTorch (`torch.export`)",
}
_LIBRARIES: dict[ExportFormat, str] = {"onnx": "onnx", "program": "pytorch"}
_RULES: dict[ImageRule, str] = {
    "person": "images with at least one annotation",
    "keypoints": "images with at least one annotation that has keypoints",
    "keypoints10": "images with at least ten labelled keypoints",
    "all": "all images, those without an annotation too",
}
_CROWDS: dict[Crowd, str] = {
    "ignore": "left out of loss and scores",
    "person": "part of the mask",
    "drop": "background",
}
_SCORES = {
    "iou": "IoU",
    "dice": "Dice",
    "accuracy": "pixel accuracy",
    "precision": "precision",
    "recall": "recall",
    "boundary_f": "boundary F (within 0.8 % of the diagonal)",
}
_UNITS = {"hours": 3600, "minutes": 60}
_RUN: dict[ExportFormat, tuple[str, str, str]] = {
    "onnx": (
        "import onnxruntime",
        f'session = onnxruntime.InferenceSession("{FILES["onnx"]}", providers=["CPUExecutionProvider"])',
        'probability = session.run(["probability"], {"image": image})[0]',
    ),
    "program": (
        "import torch",
        f'network = torch.export.load("{FILES["program"]}").module()\n'
        "network = network.to(memory_format=torch.channels_last)  # faster on processors",
        "probability = network(torch.from_numpy(image)).numpy()",
    ),
}
"""How a file is imported, loaded and called."""

_FIT: dict[Fit, tuple[str, str]] = {
    "letterbox": (
        """\
inner = ImageOps.contain(photo, (SIDE, SIDE), Image.Resampling.HAMMING)
left, top = (SIDE - inner.width) // 2, (SIDE - inner.height) // 2
square = Image.new("RGB", (SIDE, SIDE))
square.paste(inner, (left, top))""",
        "mask = mask.crop((left, top, left + inner.width, top + inner.height))\n",
    ),
    "stretch": ("square = photo.resize((SIDE, SIDE), Image.Resampling.HAMMING)", ""),
}
"""How a photo is laid into the network's square, and its mask taken out of it."""


def write_card(report: ExportReport, record: TrainingRecord) -> str:
    """The text of the card."""
    sections = (
        _front(report, record),
        _title(report, record),
        _usage(report, record),
        _contract(report),
        _data(record),
        _training(record),
        _scores(record),
        _parity(report),
        _latency(report),
        _limits(report, record),
        _licence(record),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(report: ExportReport, record: TrainingRecord) -> str:
    kinds = [file.format for file in report.files]
    lines = ("---", f"license: {LICENCE}", f"library_name: {_LIBRARIES[kinds[0]]}", "pipeline_tag: image-segmentation")
    return "\n".join((*lines, "tags:", *(f"- {tag}" for tag in (*_subjects(record), *TAGS)), "---"))


def _subjects(record: TrainingRecord) -> list[str]:
    """A tag for each category, of letters, digits and hyphens: `traffic-light-segmentation`."""
    words = (re.findall(r"\w+", name.lower()) for name in record.saved.spec.categories)
    return ["-".join((*each, "segmentation")) for each in words]


def _title(report: ExportReport, record: TrainingRecord) -> str:
    files = " and ".join(f"`{file.path.name}` ({file.bytes / 1e6:.1f} MB)" for file in report.files)
    fit = {"letterbox": "letterboxed into", "stretch": "stretched to"}[record.saved.spec.fit]
    return (
        f"# {report.metadata['name']}\n\n"
        f"Finds the pixels of {things(record.saved.spec.category)} in a photo, the foreground, to remove its "
        f"background. A {report.network} with {report.parameters / 1e6:.1f} M parameters, trained with maskcache on "
        f"photos {fit} squares of {report.trained_side} pixels. Here as {files}, exported by maskcache "
        f"{report.metadata['maskcache_version']} from the checkpoint `{report.model.name}` "
        f"(SHA-256 `{report.metadata['checkpoint_sha256']}`)."
    )


def _usage(report: ExportReport, record: TrainingRecord) -> str:
    parts = [
        f"## How to use\n\nEach of these programs cuts {things(record.saved.spec.category)} out of `photo.jpg`. Pillow "
        "shrinks photos a little otherwise than training did (OpenCV's `INTER_AREA`), so that masks may differ by some "
        "pixels at edges from those of `maskcache predict`."
    ]
    for file in report.files:
        needs = {"onnx": "pip install onnxruntime numpy pillow", "program": "pip install torch numpy pillow"}
        code = usage(file.format, side=report.trained_side, fit=record.saved.spec.fit)
        parts.append(f"With `{file.path.name}` (`{needs[file.format]}`):\n\n```python\n{code}\n```")
    return "\n\n".join(parts)


def _contract(report: ExportReport) -> str:
    stride, least = report.stride, report.least
    mean, std = (", ".join(f"{value:g}" for value in report.normalisation[name]) for name in ("mean", "std"))
    rows = [
        ("input `image`", "uint8, (N, 3, H, W): N photos, RGB, 0 to 255. No normalisation: the network does it."),
        ("output `probability`", "float32, (N, 1, H, W): of each pixel being foreground, 0 to 1."),
        ("N, H, W", f"any N from 1; H and W multiples of {stride}, {least} or more; they need not be equal."),
        ("inside", f"`(image / 255 - mean) / std`, mean {mean}, std {std}; at the end a sigmoid."),
        ("threshold", f"the scores below take a pixel for foreground above {THRESHOLD}."),
    ]
    if report.opset:
        rows.append(("ONNX", f"opset {report.opset}; side, fit, stride and more are in the file's metadata, too."))
    return f"## Input and output\n\n{_table(('what', 'how'), rows)}"


def _data(record: TrainingRecord) -> str:
    saved, index = record.saved, record.cache
    head = "## Training data\n\n"
    if index is None:
        return (
            f"{head}A cache made from a dataset in COCO's layout, fingerprint `{saved.fingerprint}`, with masks of "
            f"{things(saved.spec.category)}. When this card was written it was not where the run had it, so how many "
            "images it has, by which rule they were chosen, and what became of crowds are not known here."
        )
    spec = index.spec
    rows: list[tuple[str, object]] = [
        (f"images, {name}", f"{split.samples:,} (`{split.source.annotations}`; {split.rejected:,} could not be used)")
        for name, split in index.splits.items()
    ]
    codec = "raw pixels" if spec.codec == "raw" else f"JPEG, quality {spec.jpeg_quality}"
    rows += [
        (
            "which",
            f"`--select {spec.images}`: {_RULES[spec.images]}" + (f"; {spec.limit:,} at most" if spec.limit else ""),
        ),
        ("category", f"`{', '.join(spec.categories)}`"),
        ("crowds", f"`--crowd {spec.crowd}`: {_CROWDS[spec.crowd]}"),
        ("stored as", f"side {spec.side}, {spec.fit}, {codec}"),
        ("fingerprint", f"`{index.fingerprint}`"),
    ]
    known = ""
    if spec.category == "person":
        known = " (COCO 2017 has 64,115 images with persons to train on, and 2,693 to validate.)"
    return (
        f"{head}A dataset in COCO's layout; whether it is COCO 2017, a part of it, or another one is not recorded."
        f"{known}\n\n{_table(('what', 'how'), rows)}"
    )


def _training(record: TrainingRecord) -> str:
    saved, config = record.saved, record.saved.config
    network = config.network
    duration = _duration(sum(result.seconds for result in saved.results))
    rows: list[tuple[str, object]] = [
        ("network", f"{network.name}, width {network.width}, dropout {network.dropout:g}"),
        ("epochs", f"the weights are those after {len(saved.results)} ({config.epochs} planned): {duration} of work"),
        ("images in an update", config.images_per_update),
        ("optimizer", f"{config.optimizer}, weight decay {config.decay:g}, gradient norm at most {config.clip:g}"),
        ("learning rate", f"{config.peak:g}, {config.scheduler}, warm-up over {100 * config.warmup:g} % of the steps"),
        ("loss", config.loss),
        ("augmentation", config.loader.augment),
        ("average of the weights", f"{config.average:g}" if config.average else "none"),
        ("precision", f"{config.precision}; exported in fp32"),
        ("seed", config.loader.seed),
    ]
    if network.encoder:
        start = {"auto": "pretrained weights if they could be had: the run's log tells", "none": "none"}
        weights = start.get(config.encoder_weights, "those of a file, which is not recorded further")
        rows.insert(1, ("encoder", f"{network.encoder}, with weights to begin with: {weights}"))
    return f"## Training\n\n{_table(('setting', 'value'), rows)}"


def _scores(record: TrainingRecord) -> str:
    scored, photos = record.scored, record.photos
    if scored is None:
        return "## Scores\n\nNone: the checkpoint was written before the end of its first epoch."
    index = record.cache
    images = f"{index.splits['val'].samples:,}" if index and "val" in index.splits else "an unknown number of"
    words = (
        f"On the validation split, {images} images, pooled over the {sum(scored.val_counts):,} pixels that count, "
        f"after epoch {scored.epoch}. The epoch was chosen by its IoU on the same images, which makes that a little "
        "too good."
    )
    columns = {f"at side {record.saved.spec.side}": {**dataclasses.asdict(scored.val), "boundary_f": scored.boundary_f}}
    if photos:
        columns["at the photos' own size"] = photos.values
        words += f" At the photos' own size: {photos.images:,} images, by `maskcache eval`."
    if photos and photos.best_threshold:
        threshold, iou = photos.best_threshold
        words += f" In hindsight the best threshold there is {threshold:g}, with an IoU of {iou:.4f}."
    head = ("score", *columns, "aimed at on COCO")
    rows = [
        (label, *(_number(values[name]) for values in columns.values()), _number(TARGETS.get(name)))
        for name, label in _SCORES.items()
    ]
    notes = "".join(f"\n\nNote: {note}." for note in record.notes)
    return f"## Scores\n\n{words}\n\n{_table(head, rows, numbers=True)}{notes}"


def _duration(seconds: float) -> str:
    """A time in the largest unit that gives two digits or more."""
    name, unit = next((each for each in _UNITS.items() if seconds >= 10 * each[1]), ("seconds", 1))
    return f"{seconds / unit:,.0f} {name}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").ljust(4, "0")


def _parity(report: ExportReport) -> str:
    found = [(_RUNTIMES[file.format], file.difference) for file in report.files]
    rows = [(name, f"{one.largest:.1e}", f"{one.mean:.1e}", f"{100 * one.decisions:.4f} %") for name, one in found]
    first = report.files[0].difference
    tried = ", ".join(f"{count} x {height} x {width}" for count, _, height, width in first.shapes)
    head = ("file", "largest difference", "mean difference", "pixels decided otherwise")
    return (
        "## Same answers as the checkpoint\n\n"
        "Each file was read back and compared with the checkpoint's network in fp32, on drawn scenes and "
        f"on noise: batches of {tried}, {first.pixels:,} pixels. Differences are of the "
        f"probability; above {TOLERANCE:g} there would be no file.\n\n{_table(head, rows, numbers=True)}"
    )


def _latency(report: ExportReport) -> str:
    if not report.latency:
        return ""
    rows = [
        (_RUNTIMES[name], f"{each.median:.1f}", f"{each.p10:.1f} to {each.p90:.1f}")
        for name, each in report.latency.items()
    ]
    environment, runs = report.environment, next(iter(report.latency.values())).runs
    runtimes = f"torch {environment['torch']}"
    if report.opset:
        runtimes += f", ONNX Runtime {environment['onnxruntime']}"
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    head = ("what", "median, ms", "p10 to p90, ms")
    return (
        f"## Latency\n\nOne image of side {report.side}, fp32, {threads} each, {runs} runs by turns, on one machine: "
        f"{environment['processor']}; {runtimes}. Decoding and resizing the photo come on top.\n\n"
        f"{_table(head, rows, numbers=True)}"
    )


def _limits(report: ExportReport, record: TrainingRecord) -> str:
    side = report.trained_side
    names = record.saved.spec.categories
    lines = [
        f"Only what is annotated as {listed(names, 'or')}: all else is background, also what it holds or sits on.",
        f"The network sees {side} pixels along the longer side of a photo. Of a photo 10 times as long a pixel of the "
        "network stands for 10 x 10: hair, other fine edges, and what is far away are lost or blurred.",
        "COCO's outlines are polygons, often some pixels off; no network learns finer edges from them. There is no "
        "matting: half-transparent pixels were never taught.",
        "Crowds were annotated as regions, not one by one; the section on training data says whether they count.",
        f"It was trained at side {side}. Other sizes work; how well has not been measured.",
        "COCO's are everyday photos of the web. Not tried on drawings, X-rays, infrared, night or fisheye pictures. "
        "The pictures of a video are judged each by itself, so that edges flicker.",
        "The probability is not calibrated, and the network always answers: it does not say when it does not know.",
    ]
    if "person" in names:
        lines.append(
            "COCO's photos show more men than women and far more light than dark skin (Zhao, Wang and Russakovsky "
            "2021). Scores by such groups have not been measured here: measure them before relying on the network."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(record: TrainingRecord) -> str:
    words = (
        f"## Licence\n\nThe files of this folder: {LICENCE}, as maskcache itself; whoever trained the network may "
        "choose another, here and in the first lines. What it was trained on is not part of them. COCO's annotations "
        "are of the COCO Consortium, CC BY 4.0 (https://cocodataset.org/#termsofuse). It does not own COCO's photos: "
        "they are of users of Flickr, under the licence that each has there and Flickr's terms of use. Whether that "
        "bears on a network trained on them is not for this card to say."
    )
    encoder = record.saved.config.network.encoder
    if encoder and record.saved.config.encoder_weights != "none":
        words += (
            f" The encoder may have begun with pretrained weights of {encoder}, which have a licence of their own; "
            "ImageNet's photos, on which such weights are mostly trained, are offered for non-commercial research."
        )
    return words


def usage(kind: ExportFormat, *, side: int, fit: Fit) -> str:
    """A program that cuts the foreground out of `photo.jpg` with a file of this format.

    The network sees a square of this side, pixels, into which photos are laid by `fit`.
    """
    (library, load, call), (place, crop) = _RUN[kind], _FIT[fit]
    return f"""\
import numpy as np
{library}
from PIL import Image, ImageOps

SIDE = {side}
{load}
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
{place}
image = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)[np.newaxis])  # (1, 3, SIDE, SIDE)
{call}  # (1, 1, SIDE, SIDE)
mask = Image.fromarray((255 * probability[0, 0] + 0.5).astype(np.uint8))
{crop}photo.putalpha(mask.resize(photo.size, Image.Resampling.BILINEAR))
photo.save("cutout.png")"""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: bool = False) -> str:
    """A table; with `numbers` all columns but the first are set right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows))
