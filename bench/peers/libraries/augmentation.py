"""SPDL, and raw records through other libraries' augmentation: OpenCV, torchvision, AlbumentationsX and Kornia.

OpenCV applies the very parameters that our loaders draw. The others draw their own of the same ranges, which are in the
option `augment` (the fields of `loader.augment.AugmentConfig`): a flip, one affine map, and colours. As their guides
advise, torchvision and AlbumentationsX augment samples in the workers of a DataLoader, and Kornia whole batches.
What lies outside the image is ignored. Libraries are imported in the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.peers.child import Batch, Feed
from bench.peers.libraries.arrays import Records, shuffled
from bench.peers.task import FOLDER, U8, Samples, Task, unpack

F32 = npt.NDArray[np.float32]

Transform = Callable[[int, U8, U8], tuple[Any, Any]]
"""Of a record's number, its image `(S, S, 3)` and planes `(2, S, S)`: both, augmented."""

SHIFT = 0.1
"""Largest shift of the picture, as a share of its side: about what our zoom leaves room for."""


class Augmented:
    """Samples of raw records, each through the function of this file that the option `by` names, if there is one."""

    def __init__(self, task: Task) -> None:
        self._records, self._count = Records(task), task.samples
        self._transform: Transform | None = globals()[task.options["by"]](task) if "by" in task.options else None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Any, Any, Any]:
        image, planes = self._records.sample(number)
        if self._transform:
            image, planes = self._transform(number, image, planes)
        return image, planes[0], planes[1]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """A batch of NumPy's arrays."""
        image, person, ignore = map(np.stack, zip(*map(self.__getitem__, numbers), strict=True))
        return image, person, ignore


def open_loader(task: Task, _stack: ExitStack) -> Feed:
    """Torch's DataLoader, whose workers augment."""
    from bench.peers.libraries.common import worker_loader

    loader = worker_loader(Augmented(task), task, shuffle=True)
    return lambda: loader


def open_spdl(task: Task, _stack: ExitStack) -> Feed:
    """SPDL's pipeline, whose threads make a batch each: of raw records, augmented or not, or of the samples' JPEGs."""
    from spdl.pipeline import PipelineBuilder  # type: ignore[import-not-found]

    if "by" in task.options:
        load: Callable[[Sequence[int]], Batch] = Augmented(task).batch
    else:
        load = partial(_jpeg_batch, task, Samples(task.folder, 0)) if task.codec == "jpeg" else Records(task).batch
    epochs = count()

    def epoch() -> Iterator[Batch]:
        pipeline = PipelineBuilder().add_source(shuffled(task, next(epochs))).pipe(load, concurrency=task.threads)
        built = pipeline.add_sink().build(num_threads=task.threads)
        with built.auto_stop():
            yield from built

    return epoch


def _jpeg_batch(task: Task, samples: Samples, numbers: Sequence[int]) -> Batch:
    import spdl.io  # type: ignore[import-not-found]

    buffer = spdl.io.load_image_batch([samples.jpeg(number) for number in numbers], width=None, height=None)
    planes = unpack(b"".join(samples.bits(number) for number in numbers), task.side)
    return spdl.io.to_numpy(buffer), planes[0::2], planes[1::2]


def opencv(task: Task) -> Transform:
    """OpenCV's functions, with our parameters."""
    import cv2

    cv2.setNumThreads(1)  # those who ask are the parallelism
    # Drawn beforehand: sample by sample, drawing would cost a tenth of the time.
    matrix, colour = (np.load(task.folder / FOLDER / f"{name}.npy") for name in ("matrix", "colour"))

    def transform(number: int, image: U8, planes: U8) -> tuple[U8, U8]:
        out, out_planes = np.empty_like(image), np.empty_like(planes)
        warp(image, planes[0], planes[1], matrix[number], colour[number], out=(out, *out_planes))
        return out, out_planes

    return transform


def warp(image: U8, person: U8, ignore: U8, matrix: F32, colour: F32, *, out: Sequence[U8]) -> None:
    """Augment a sample by OpenCV into `out`: image `(S, S, 3)` bilinear, both planes `(S, S)` nearest, then colours.

    `matrix` and `colour` are those of one sample in `loader.augment.Parameters`.
    """
    import cv2

    size = image.shape[:2]
    centred = matrix.astype(np.float64)
    centred[:, 2] += centred[:, :2].sum(1) / 2 - 0.5  # OpenCV has the centres of pixels at whole numbers
    inverse = cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, centred, size, flags=cv2.INTER_LINEAR | inverse)
    cv2.transform(warped, colour, dst=out[0])
    for plane, target, outside in ((person, out[1], 0), (ignore, out[2], 1)):  # what lies outside is ignored
        cv2.warpAffine(plane, centred, size, dst=target, flags=cv2.INTER_NEAREST | inverse, borderValue=outside)


def _ranges(options: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Smallest and largest factors of the colours."""
    return {name: (1 - options[name], 1 + options[name]) for name in ("brightness", "contrast", "saturation")}


def albumentations(task: Task) -> Transform:
    """Albumentations' pipeline."""
    import albumentations as A  # type: ignore[import-not-found]
    import cv2

    cv2.setNumThreads(0)
    options = task.options["augment"]
    scale, most, shift = tuple(options["zoom"]), options["rotate"], (-SHIFT, SHIFT)
    affine = A.Affine(scale=scale, rotate=(-most, most), translate_percent=shift, fill_mask=(0, 1), p=1)
    colours = A.ColorJitter(**_ranges(options), hue=(0, 0), p=1)
    pipeline = A.Compose([A.HorizontalFlip(p=options["flip"]), affine, colours])

    def transform(_: int, image: U8, planes: U8) -> tuple[U8, U8]:
        done = pipeline(image=image, mask=np.ascontiguousarray(planes.transpose(1, 2, 0)))
        return done["image"], done["mask"].transpose(2, 0, 1)

    return transform


def torchvision(task: Task) -> Transform:
    """Torchvision's transforms, version 2, on bytes."""
    import torch
    from torchvision.transforms import v2  # type: ignore[import-untyped]
    from torchvision.tv_tensors import Image, Mask  # type: ignore[import-untyped]

    options = task.options["augment"]
    affine = v2.RandomAffine(
        options["rotate"], (SHIFT, SHIFT), options["zoom"], interpolation=v2.InterpolationMode.BILINEAR
    )
    pipeline = v2.Compose([v2.RandomHorizontalFlip(options["flip"]), affine, v2.ColorJitter(**_ranges(options))])

    def transform(_: int, image: U8, planes: U8) -> tuple[Any, Any]:
        # What is outside becomes 0, so the second plane is what is not ignored.
        mask = Mask(torch.from_numpy(np.stack([planes[0], 1 - planes[1]])))
        done, mask = pipeline(Image(torch.from_numpy(image).permute(2, 0, 1)), mask)
        return done.permute(1, 2, 0), torch.stack([mask[0], 1 - mask[1]])

    return transform


def open_kornia(task: Task, _stack: ExitStack) -> Feed:
    """Kornia on batches that NumPy loads; images are floats meanwhile, as Kornia wants them."""
    import kornia.augmentation as K  # type: ignore[import-not-found]
    import torch

    torch.set_num_threads(task.threads)
    options, records, epochs = task.options["augment"], Records(task), count()
    affine = K.RandomAffine(options["rotate"], (SHIFT, SHIFT), tuple(options["zoom"]), p=1.0)
    steps = K.RandomHorizontalFlip(p=options["flip"]), affine, K.ColorJiggle(**_ranges(options), hue=0.0, p=1.0)
    pipeline = K.AugmentationSequential(*steps, data_keys=["image", "mask"])

    def epoch() -> Iterator[Batch]:
        for numbers in shuffled(task, next(epochs)):
            image, person, ignore = map(torch.from_numpy, records.batch(numbers))
            # What is outside becomes 0, so the second plane is what is not ignored.
            planes = torch.stack([person, 1 - ignore], 1).float()
            image, planes = pipeline(image.permute(0, 3, 1, 2).float().div_(255), planes)
            yield image.mul_(255).round_().byte(), planes[:, 0].byte(), 1 - planes[:, 1].byte()

    return epoch
