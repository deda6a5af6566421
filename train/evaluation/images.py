"""Images for an evaluation: what a network makes of a cache's, at the cache's side.

Tensor suffixes: N images, 3 RGB, 1 logit or plane, S side, H and W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cache.choices import Device
from cache.manifest import Rejection
from loader.batch import Batch
from loader.loader import Loader
from model.loss import Loss
from train.evaluation.result import Size
from train.predictions import SamplePrediction
from train.predictor import Predictor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """One image, its truth and what the network makes of it, at the size at which they are compared.

    Its tensors are valid until the next batch is asked for.

    Attributes:
        number, image_id: see `ImageScore`.
        image: `(3, H, W)` uint8 RGB.
        person, ignore: `(1, 1, H, W)` uint8 0/1.
        predicted: `(1, 1, H, W)` bool: where the probability is above a half.
        probability: `(1, 1, H, W)` float32.
    """

    number: int
    image_id: int
    image: Tensor
    person: Tensor
    ignore: Tensor
    predicted: Tensor
    probability: Tensor

    def sample(self, iou: float) -> SamplePrediction:
        """A copy to be drawn."""
        return SamplePrediction(
            image_id=self.image_id,
            image=self.image.permute(1, 2, 0).cpu().numpy().copy(),
            person=self.person[0, 0].bool().cpu().numpy(),
            ignore=self.ignore[0, 0].bool().cpu().numpy(),
            probability=self.probability[0, 0].cpu().numpy().copy(),
            iou=iou,
        )


class EvalImages(Protocol):
    """A split's images at one size, with what the network makes of them.

    Attributes:
        size: which.
        device: of the tensors.
        loss: mean over the images of the latest pass, or None.
        rejections: of the latest pass.
    """

    size: Size
    device: Device
    loss: float | None
    rejections: Sequence[Rejection]

    def __len__(self) -> int:
        """How many, those that cannot be read included."""

    def batches(self) -> Iterator[list[Predicted]]:
        """Pass over all images once, a batch at a time; those that cannot be read are left out."""

    def one(self, number: int) -> Predicted:
        """Predict a single image, one that can be read."""


class CacheImages:
    """The images of a cache; see `EvalImages`.

    Args:
        loader: unshuffled and not augmented, its last batch filled up; skips bad records.
        predictor: on the loader's device.
        loss: of logits and planes.
    """

    size: Size = "cache"

    def __init__(self, loader: Loader, predictor: Predictor, loss: Loss) -> None:
        self.loss: float | None = None
        self.rejections: Sequence[Rejection] = ()
        self.device = predictor.device
        self._loader, self._predictor, self._loss = loader, predictor, loss

    def __len__(self) -> int:
        return len(self._loader.reader)

    def batches(self) -> Iterator[list[Predicted]]:
        """See `EvalImages`."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._predictor.device)
        images = 0
        self._loader.load_state_dict({"epoch": 0, "consumed": 0})
        for batch in self._loader:
            logits_N1SS = self._predictor(batch.image)
            predicted = self._split(batch, logits_N1SS)
            # A mean over pixels, weighted so that a filled-up batch counts for less: as in training.
            loss_sum += self._loss(logits_N1SS, batch.person, batch.ignore) * len(predicted)
            images += len(predicted)
            yield predicted
        self.loss = float(loss_sum) / images if images else None
        self.rejections = [
            Rejection(split=bad.split, image_id=bad.image_id, file_name=f"sample {bad.sample}", reason=bad.reason)
            for bad in self._loader.bad_records
        ]

    def one(self, number: int) -> Predicted:
        """See `EvalImages`."""
        batch_size = self._loader.config.batch_size
        self._loader.load_state_dict({"epoch": 0, "consumed": number // batch_size * batch_size})
        batch = next(iter(self._loader))
        return next(one for one in self._split(batch, self._predictor(batch.image)) if one.number == number)

    def _split(self, batch: Batch, logits_N1SS: Tensor) -> list[Predicted]:
        bad = {record.sample for record in batch.skipped}
        # By the logits, as in training: the sigmoid of the smallest ones is a half.
        predicted_N1SS, probability_N1SS = logits_N1SS > 0, logits_N1SS.sigmoid()
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
