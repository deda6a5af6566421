"""What the card says of data, training and scores."""

from __future__ import annotations

import dataclasses

from cache.spec import Crowd, ImageRule
from export.markdown import table
from export.record import TrainingRecord
from train.evaluation.targets import TARGETS

_RULES: dict[ImageRule, str] = {
    "person": "images with at least one annotation of a person",
    "keypoints": "images with at least one person that has keypoints",
    "keypoints10": "images with at least ten labelled keypoints",
    "all": "all images, those without a person too",
}
_CROWDS: dict[Crowd, str] = {
    "ignore": "left out of loss and scores",
    "person": "persons like any other",
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
_UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


def data_section(record: TrainingRecord) -> str:
    """On which images; what is not known is said to be so."""
    saved, index = record.saved, record.cache
    head = "## Training data\n\n"
    if index is None:
        return (
            f"{head}A cache made from a dataset in COCO's layout, fingerprint `{saved.fingerprint}`. When this card "
            "was written it was not where the run had it, so how many images it has, by which rule they were chosen, "
            "and what became of crowds are not known here."
        )
    spec = index.spec
    rows: list[tuple[str, object]] = [
        (f"images, {name}", f"{split.samples:,} (`{split.source.annotations}`; {split.rejected:,} could not be used)")
        for name, split in index.splits.items()
    ]
    codec = "raw pixels" if spec.codec == "raw" else f"JPEG, quality {spec.jpeg_quality}"
    rows += [
        ("which", f"`{spec.images}`: {_RULES[spec.images]}" + (f"; {spec.limit:,} at most" if spec.limit else "")),
        ("category", f"`{spec.category}`"),
        ("crowds", f"`{spec.crowd}`: {_CROWDS[spec.crowd]}"),
        ("stored as", f"side {spec.side}, {spec.fit}, {codec}"),
        ("fingerprint", f"`{index.fingerprint}`"),
    ]
    return (
        f"{head}A dataset in COCO's layout; whether it is COCO 2017, a part of it, or another one is not recorded. "
        "(COCO 2017 has 64,115 images with persons to train on, and 2,693 to validate.)\n\n"
        f"{table(('what', 'how'), rows)}"
    )


def training_section(record: TrainingRecord) -> str:
    """With which settings."""
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
    return f"## Training\n\n{table(('setting', 'value'), rows)}"


def scores_section(record: TrainingRecord) -> str:
    """How good it is."""
    scored, photos = record.scored, record.photos
    if scored is None:
        return "## Scores\n\nNone: the checkpoint was written before the end of its first epoch."
    values = {**dataclasses.asdict(scored.val), "boundary_f": scored.boundary_f}
    columns = [values] + ([photos.values] if photos else [])
    head = [
        "score",
        f"at side {record.saved.side}",
        *(["at the photos' own size"] if photos else []),
        "aimed at on COCO",
    ]
    rows = [
        (label, *(_number(column[name]) for column in columns), _number(TARGETS.get(name)))
        for name, label in _SCORES.items()
    ]
    index = record.cache
    pixels = sum(scored.val_counts)
    images = f"{index.splits['val'].samples:,}" if index and "val" in index.splits else "an unknown number of"
    words = (
        f"On the validation split, {images} images, pooled over the {pixels:,} pixels that count, after epoch "
        f"{scored.epoch}. The epoch was chosen by its IoU on the same images, which makes that a little too good."
    )
    if photos:
        words += f" At the photos' own size: {photos.images:,} images, by `maskcache eval`."
    if photos and photos.best_threshold:
        threshold, iou = photos.best_threshold
        words += f" In hindsight the best threshold there is {threshold:g}, with an IoU of {iou:.4f}."
    told = "".join(f"\n\nNote: {note}." for note in record.notes)
    return f"## Scores\n\n{words}\n\n{table(head, rows, numbers=True)}{told}"


def _duration(seconds: float) -> str:
    """In the unit that gives two digits or more."""
    name, unit = next(each for each in _UNITS.items() if seconds >= 10 * each[1] or each[1] == 1)
    return f"{seconds / unit:,.0f} {name}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").ljust(4, "0")
