import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_jaccard_index

from train.evaluation.result import STEPS, ThresholdCounts, ThresholdScore


def draw(seed, images=3, side=24):
    """Probabilities that know something of the persons, many of them exactly on a threshold, and the planes."""
    generator = torch.Generator().manual_seed(seed)
    person = (torch.rand((images, 1, side, side), generator=generator) < 0.3).to(torch.uint8)
    ignore = (torch.rand((images, 1, side, side), generator=generator) < 0.2).to(torch.uint8)
    probability = torch.sigmoid(torch.randn(person.shape, generator=generator) + 2.0 * person - 2.5)
    return torch.where(ignore == 1, probability, (20 * probability).round() / 20), person, ignore


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_threshold_is_that_of_trying_them_all(seed):
    counts = ThresholdCounts()
    batches = [draw(seed), draw(seed + 1, images=1)]
    for batch in batches:
        counts.update(*batch)
    probability, person, ignore = (torch.cat([batch[part].flatten() for batch in batches]) for part in range(3))
    # torchmetrics thresholds with >, as we do
    tried = {
        step: float(binary_jaccard_index(probability[ignore == 0], person[ignore == 0], threshold=step / STEPS))
        for step in range(1, STEPS)
    }
    found = counts.best()
    assert found.iou == pytest.approx(max(tried.values()), abs=1e-6)
    assert tried[round(found.threshold * STEPS)] == pytest.approx(found.iou, abs=1e-6)


def test_of_equals_that_nearest_to_a_half_is_taken():
    counts = ThresholdCounts()
    person = torch.tensor([0, 0, 1, 1], dtype=torch.uint8).view(1, 1, 2, 2)
    counts.update(torch.tensor([0.0, 0.2, 0.9, 1.0]).view(1, 1, 2, 2), person, torch.zeros_like(person))
    assert counts.best() == ThresholdScore(threshold=0.5, iou=1.0)


@pytest.mark.parametrize("ignored", [0, 1])
def test_nobody_there_and_nothing_that_counts(ignored):
    counts = ThresholdCounts()
    plane = torch.zeros((1, 1, 2, 2), dtype=torch.uint8)
    counts.update(torch.full((1, 1, 2, 2), 0.7), plane, plane + ignored)
    # Above 0.7 nobody is found, which is right; of no pixel there is nothing to be right about.
    assert counts.best() == (
        ThresholdScore(threshold=0.5, iou=0.0) if ignored else ThresholdScore(threshold=0.7, iou=1.0)
    )
