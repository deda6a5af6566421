"""Tensor suffixes: N images, 1 the person logit or plane, H and W pixels, 4 the counts (tp, fp, fn, tn)."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import classification

from model.metrics import Scores, count_pixels

SHAPE = (4, 1, 24, 24)
IGNORED = -1


def batch(seed: int, person_share: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that know something of the person plane, and the two planes."""
    random = torch.Generator().manual_seed(seed)
    person_N1HW = (torch.rand(SHAPE, generator=random) < person_share).to(torch.uint8)
    logits_N1HW = person_N1HW.float() - 0.5 + torch.randn(SHAPE, generator=random)
    ignore_N1HW = (torch.rand(SHAPE, generator=random) < 0.2).to(torch.uint8)
    return logits_N1HW, person_N1HW, ignore_N1HW


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_scores_equal_those_of_torchmetrics(share):
    others = {
        "iou": classification.BinaryJaccardIndex(ignore_index=IGNORED),
        "dice": classification.BinaryF1Score(ignore_index=IGNORED),
        "accuracy": classification.BinaryAccuracy(ignore_index=IGNORED),
        "precision": classification.BinaryPrecision(ignore_index=IGNORED),
        "recall": classification.BinaryRecall(ignore_index=IGNORED),
    }
    counts_4 = torch.zeros(4, dtype=torch.int64)
    for seed in range(5):
        logits_N1HW, person_N1HW, ignore_N1HW = batch(seed, share)
        counts_4 += count_pixels(logits_N1HW, person_N1HW, ignore_N1HW)
        target_N1HW = person_N1HW.long().masked_fill(ignore_N1HW.bool(), IGNORED)
        for metric in others.values():
            metric.update((logits_N1HW > 0).long(), target_N1HW)
    expected = {name: metric.compute().item() for name, metric in others.items()}
    assert asdict(Scores.from_counts(*counts_4.tolist())) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_counts_equal_numpys(seed, dtype):
    logits_N1HW, person_N1HW, ignore_N1HW = batch(seed)
    logits_N1HW = logits_N1HW.to(dtype)
    valid = ignore_N1HW.numpy() == 0
    predicted = logits_N1HW.float().numpy()[valid] > 0
    person = person_N1HW.numpy()[valid] == 1
    expected = [
        np.sum(predicted & person),
        np.sum(predicted & ~person),
        np.sum(~predicted & person),
        np.sum(~predicted & ~person),
    ]
    counts_4 = count_pixels(logits_N1HW, person_N1HW, ignore_N1HW)
    assert counts_4.dtype == torch.int64
    assert counts_4.tolist() == expected
    assert sum(expected) == valid.sum()


def test_a_logit_of_zero_is_background():
    plane_N1HW = torch.ones((1, 1, 1, 3), dtype=torch.uint8)
    logits_N1HW = torch.tensor([-1e-6, 0.0, 1e-6]).view(1, 1, 1, 3)
    assert count_pixels(logits_N1HW, plane_N1HW, 0 * plane_N1HW).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("counts", "iou", "dice", "accuracy", "precision", "recall"),
    [
        ((0, 0, 0, 0), 0, 0, 0, 0, 0),  # nothing was counted
        ((0, 0, 0, 9), 1, 1, 1, 1, 1),  # nobody there, nobody predicted
        ((0, 4, 0, 6), 0, 0, 0.6, 0, 0),  # nobody there
        ((0, 0, 4, 6), 0, 0, 0.6, 0, 0),  # nobody predicted
        ((5, 0, 0, 0), 1, 1, 1, 1, 1),
        ((2, 1, 1, 4), 0.5, 2 / 3, 0.75, 2 / 3, 2 / 3),
    ],
)
def test_scores_of_counts(counts, iou, dice, accuracy, precision, recall):
    expected = Scores(iou=iou, dice=dice, accuracy=accuracy, precision=precision, recall=recall)
    assert asdict(Scores.from_counts(*counts)) == pytest.approx(asdict(expected))


def test_refuses_to_broadcast():
    logits_N1HW, person_N1HW, ignore_N1HW = batch(0)
    with pytest.raises(AssertionError, match="broadcast"):
        count_pixels(logits_N1HW, person_N1HW, ignore_N1HW[:1])


def test_it_never_reads_the_device_and_compiles():
    """Meta tensors have no values: whatever would read one on the host raises."""
    assert count_pixels(*(tensor.to("meta") for tensor in batch(0))).shape == (4,)
    torch.compiler.reset()
    compiled = torch.compile(count_pixels, backend="aot_eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(*batch(0)), count_pixels(*batch(0)))
