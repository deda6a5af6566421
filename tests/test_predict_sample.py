"""The network that is there right after installation."""

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO

from maskcache import remove_background
from predict.config import SAMPLE
from train.checkpoint import load_checkpoint


def test_it_is_small_and_has_a_card_and_a_measured_side():
    saved = load_checkpoint(SAMPLE)
    assert SAMPLE.stat().st_size < 8_000_000
    assert {value.dtype for value in saved.network.values()} == {torch.float16, torch.int64}
    card = SAMPLE.with_suffix(".md").read_text()
    assert f"side {saved.use.side}, threshold {saved.use.threshold}" in card
    assert not saved.config.out.is_absolute()
    assert not saved.config.loader.cache.is_absolute()


def test_it_finds_the_persons_of_photos(coco_people):
    """Photos of which it saw none in training, each with a person of a tenth of it or more."""
    coco = COCO(coco_people / "annotations" / "person_keypoints_val2017.json")
    common = either = 0
    for image in coco.loadImgs(coco.getImgIds()):
        annotations = coco.imgToAnns[image["id"]]
        size = image["height"] * image["width"]
        if any(each["iscrowd"] for each in annotations) or max(each["area"] for each in annotations) < size / 4:
            continue
        person_HW = np.any([coco.annToMask(each) for each in annotations], axis=0)
        photo = coco_people / "val2017" / image["file_name"]
        assert cv2.imread(str(photo)).shape[:2] == person_HW.shape
        mask_HW = remove_background(photo, SAMPLE, output="mask", hard=True, device="cpu") > 0
        common, either = common + (mask_HW & person_HW).sum(), either + (mask_HW | person_HW).sum()
    assert common / either > 0.7
