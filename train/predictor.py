"""A trained network that is ready to predict, and its predictions for the images of a cache.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, S side, H and W pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cache.choices import Device, Precision
from cache.index import Rejection
from cache.messages import message
from cache.spec import CacheSpec
from loader.batch import Batch
from model.base import SegmentationNetwork
from model.loss import Loss
from model.metrics import Scores, count_pixels
from train.checkpoint import load_network
from train.config import TrainConfig
from train.hardware import Hardware, HardwareError, check_hardware, read_hardware
from train.plots import SamplePrediction
from train.process import tf32
from train.result import Inference
from train.step import autocast

if TYPE_CHECKING:
    from loader.loader import Loader


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A network, ready to predict; `load_predictor` gives one."""

    network: SegmentationNetwork  # in eval mode, on the device and in the memory format in which it was trained
    device: Device  # on which it predicts
    precision: Precision  # in which it predicts
    config: TrainConfig  # of the run that trained it
    spec: CacheSpec  # of the cache that it was trained on
    inference: Inference  # the side and the threshold to use it with
    notes: tuple[str, ...] = ()  # a line if the precision is neither training's nor the one asked for

    @property
    def side(self) -> int:
        """The side of the square that it is to see, pixels: as measured in training, else that of its cache."""
        return self.inference.side

    @property
    def threshold(self) -> float:
        """The probability above which a pixel counts as foreground."""
        return self.inference.threshold

    def side_notes(self, side: int) -> tuple[str, ...]:
        """A line if this side is neither the one to use it with nor the one of training."""
        if side in (self.side, trained := self.spec.side):
            return ()
        return (
            message("the network was trained at side {trained} and sees side {side} here", trained=trained, side=side),
        )

    @torch.no_grad()
    def __call__(self, image_N3SS: Tensor) -> Tensor:
        """Give `logits_N1SS` (float32) of uint8 RGB images, both on the device."""
        with tf32(self.precision), autocast(self.device, self.precision):
            logits_N1SS: Tensor = self.network(image_N3SS)
        return logits_N1SS.float()


def load_predictor(path: Path, wanted: Device | None, precision: Precision | None) -> Predictor:
    """Load a checkpoint to predict with. Without a device, take a GPU if there is one; without a precision, training's.

    Raises:
        CheckpointError: see `load_network`.
        HardwareError: the device or the precision that was asked for is not available, or torch has no code for it.
    """
    hardware = read_hardware()
    if wanted == "cuda" and hardware.gpu is None:
        raise HardwareError("device=cuda wants a CUDA device and this machine offers none; use --device cpu")
    device = wanted or ("cuda" if hardware.gpu else "cpu")
    network, saved = load_network(path, device=device)
    if not saved.config.channels_last:
        network.set_memory_format(torch.contiguous_format)
    chosen, notes = _choose_precision(precision, saved.config, device, hardware)
    return Predictor(
        network=network.eval(),
        device=device,
        precision=chosen,
        config=saved.config,
        spec=saved.spec,
        inference=saved.use,
        notes=notes,
    )


def _choose_precision(
    wanted: Precision | None, trained: TrainConfig, device: Device, hardware: Hardware
) -> tuple[Precision, tuple[str, ...]]:
    """The precision to predict in, and a line if it is neither the one asked for nor training's."""
    precision = wanted or trained.precision
    if device == "cpu" and precision == "bf16" and not wanted and not hardware.cpu_bf16:
        return "fp32", (message("trained in bf16, run in fp32: this processor does not gain by bf16"),)
    try:
        check_hardware(hardware, device=device, precision=precision, profile=trained.profile)
    except HardwareError:
        if wanted:
            raise
        check_hardware(hardware, device=device, precision="fp32", profile=trained.profile)
        note = message(
            "trained in {precision}, run in fp32: the {device} of this machine has no {precision}",
            precision=precision,
            device=device,
        )
        return "fp32", (note,)
    return precision, ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """An image, its true planes and its prediction, of one size. The tensors are those of its batch."""

    number: int  # of the sample in the cache, or of the row in the annotations
    image_id: int
    image: Tensor  # (3, H, W) uint8 RGB
    person: Tensor  # (1, 1, H, W) uint8 0/1
    ignore: Tensor  # the same
    predicted: Tensor  # (1, 1, H, W) bool: where the probability is above the threshold
    probability: Tensor  # (1, 1, H, W) float32

    def sample(self) -> SamplePrediction:
        """A copy for a picture."""
        counts: list[int] = count_pixels(self.predicted, self.person, self.ignore).tolist()
        return SamplePrediction(
            image_id=self.image_id,
            image=self.image.permute(1, 2, 0).cpu().numpy().copy(),
            person=self.person[0, 0].bool().cpu().numpy(),
            ignore=self.ignore[0, 0].bool().cpu().numpy(),
            probability=self.probability[0, 0].cpu().numpy().copy(),
            iou=Scores.from_counts(*counts).iou,
        )


class CacheImages:
    """The images of a cache's split at its side, and their predictions.

    The loader must be in the cache's order, not augmented, with the last batch filled up, on the predictor's device.
    """

    size: Literal["cache"] = "cache"
    milliseconds: float | None = None  # of the network, not measured

    def __init__(self, loader: Loader, predictor: Predictor, loss: Loss) -> None:
        self.loss: float | None = None  # mean over the images of the latest pass
        self.rejections: list[Rejection] = []  # images that the latest pass could not read
        self.device = predictor.device
        self._loader, self._predictor, self._loss = loader, predictor, loss

    def __len__(self) -> int:
        """The number of images, including those that cannot be read."""
        return len(self._loader.reader)

    def batches(self) -> Iterator[list[Predicted]]:
        """Pass over all images that can be read, a batch at a time."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._predictor.device)
        images = 0
        self._loader.load_state_dict({"epoch": 0, "consumed": 0})
        for batch in self._loader:
            logits_N1SS = self._predictor(batch.image)
            predicted = self._split(batch, logits_N1SS)
            # A mean over pixels, weighted as in training, so that a filled-up batch counts for less.
            loss_sum += self._loss(logits_N1SS, batch.person, batch.ignore) * len(predicted)
            images += len(predicted)
            yield predicted
        self.loss = float(loss_sum) / images if images else None
        self.rejections = [
            Rejection(
                split=bad.split,
                image_id=bad.image_id,
                file_name=message("sample {sample}", sample=bad.sample),
                reason=bad.reason,
            )
            for bad in self._loader.bad_records
        ]

    def one(self, number: int) -> Predicted:
        """Predict a single image that can be read."""
        batch_size = self._loader.config.batch_size
        self._loader.load_state_dict({"epoch": 0, "consumed": number // batch_size * batch_size})
        batch = next(iter(self._loader))
        return next(one for one in self._split(batch, self._predictor(batch.image)) if one.number == number)

    def _split(self, batch: Batch, logits_N1SS: Tensor) -> list[Predicted]:
        bad = {record.sample for record in batch.skipped}
        # By the logits, as in training: the sigmoid of the smallest ones is a half.
        threshold = self._predictor.threshold
        predicted_N1SS = logits_N1SS > math.log(threshold / (1 - threshold))
        probability_N1SS = logits_N1SS.sigmoid()
        return [
            Predicted(
                number=sample,
                image_id=int(self._loader.reader.samples["image_id"][sample]),
                image=batch.image[row],
                person=batch.person[row : row + 1],
                ignore=batch.ignore[row : row + 1],
                predicted=predicted_N1SS[row : row + 1],
                probability=probability_N1SS[row : row + 1],
            )
            for row, sample in enumerate(batch.samples[: batch.valid].tolist())
            if sample not in bad
        ]
