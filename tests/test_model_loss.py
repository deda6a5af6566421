"""Tensor suffixes: N images, 1 the person logit or plane, H and W pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from model import LOSSES, bce_dice
from model.loss import DICE_SMOOTHING

SHAPE = (3, 1, 16, 16)


def batch(seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, person and ignore planes at random."""
    random = torch.Generator().manual_seed(seed)
    logits_N1HW = scale * torch.randn(SHAPE, generator=random)
    person_N1HW = torch.randint(0, 2, SHAPE, generator=random, dtype=torch.uint8)
    ignore_N1HW = (torch.rand(SHAPE, generator=random) < 0.3).to(torch.uint8)
    return logits_N1HW.requires_grad_(), person_N1HW, ignore_N1HW


def numpy_terms(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> tuple[float, float]:
    """Cross-entropy and Dice loss by their definitions, in double precision, over the list of valid pixels."""
    valid = ignore_N1HW.numpy() == 0
    person = person_N1HW.numpy()[valid].astype(float)
    probability = 1 / (1 + np.exp(-logits_N1HW.detach().double().numpy()[valid]))
    bce = -np.mean(person * np.log(probability) + (1 - person) * np.log(1 - probability))
    overlap, total = np.sum(probability * person), np.sum(probability) + np.sum(person)
    return float(bce), float(1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("bce_weight", "dice_weight"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_equals_its_definition(seed, bce_weight, dice_weight):
    planes = batch(seed)
    bce, dice = numpy_terms(*planes)
    loss = bce_dice(*planes, bce_weight=bce_weight, dice_weight=dice_weight)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(bce_weight * bce + dice_weight * dice, rel=1e-5)


def test_gradient_equals_finite_differences():
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    bce_dice(logits_N1HW, person_N1HW, ignore_N1HW).backward()
    assert logits_N1HW.grad is not None
    logits_64 = logits_N1HW.detach().double()
    direction = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-4
    ahead = sum(numpy_terms(logits_64 + step * direction, person_N1HW, ignore_N1HW))
    behind = sum(numpy_terms(logits_64 - step * direction, person_N1HW, ignore_N1HW))
    slope = (logits_N1HW.grad.double() * direction).sum().item()
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("bad", [0.0, 50.0, float("inf"), float("nan")])
def test_ignored_pixels_count_for_nothing(bad):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    expected = bce_dice(logits_N1HW, person_N1HW, ignore_N1HW)
    ignored_N1HW = ignore_N1HW.bool()
    changed_N1HW = logits_N1HW.detach().masked_fill(ignored_N1HW, bad).requires_grad_()
    loss = bce_dice(changed_N1HW, torch.where(ignored_N1HW, 1 - person_N1HW, person_N1HW), ignore_N1HW)
    assert torch.equal(loss, expected)
    loss.backward()
    assert changed_N1HW.grad is not None
    assert not changed_N1HW.grad[ignored_N1HW].any()
    assert (changed_N1HW.grad[~ignored_N1HW] != 0).all()
    assert changed_N1HW.grad.isfinite().all()


def test_everything_ignored_is_zero():
    logits_N1HW, person_N1HW, _ = batch()
    loss = bce_dice(logits_N1HW, person_N1HW, torch.ones_like(person_N1HW))
    assert loss.item() == 0
    loss.backward()
    assert logits_N1HW.grad is not None
    assert torch.equal(logits_N1HW.grad, torch.zeros(SHAPE))


@pytest.mark.parametrize("size", [1e2, 1e4, 6e4])
def test_large_logits_are_stable(size):
    _, person_N1HW, _ = batch()
    valid_N1HW = torch.zeros_like(person_N1HW)
    right_N1HW = size * (2 * person_N1HW.float() - 1)
    assert bce_dice(right_N1HW, person_N1HW, valid_N1HW).item() == pytest.approx(0, abs=1e-6)
    wrong_N1HW = (-right_N1HW).half().requires_grad_()
    loss = bce_dice(wrong_N1HW, person_N1HW, valid_N1HW)
    assert loss.item() == pytest.approx(wrong_N1HW.abs().float().mean().item() + 1, rel=1e-2)
    loss.backward()
    assert wrong_N1HW.grad is not None
    assert wrong_N1HW.grad.isfinite().all()


def test_nobody_there_and_nobody_predicted_costs_next_to_nothing():
    empty_N1HW = torch.zeros(SHAPE, dtype=torch.uint8)
    assert bce_dice(torch.full(SHAPE, -30.0), empty_N1HW, empty_N1HW).item() < 1e-6


def test_pooling_keeps_an_empty_image_from_outweighing_the_others():
    """One false pixel in an image without a person, beside an image that is all person and right."""
    person_N1HW = torch.zeros((2, 1, 16, 16), dtype=torch.uint8)
    person_N1HW[0] = 1
    logits_N1HW = 40 * (2 * person_N1HW.float() - 1)
    logits_N1HW[1, 0, 0, 0] = 40
    assert bce_dice(logits_N1HW, person_N1HW, torch.zeros_like(person_N1HW), bce_weight=0).item() < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_fp32_whatever_autocast_says(dtype):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    half_N1HW = logits_N1HW.detach().to(dtype)
    expected = bce_dice(half_N1HW.float(), person_N1HW, ignore_N1HW)
    with torch.autocast("cpu", dtype):
        loss = bce_dice(half_N1HW, person_N1HW, ignore_N1HW)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_refuses_to_broadcast():
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    with pytest.raises(AssertionError, match="broadcast"):
        bce_dice(logits_N1HW, person_N1HW[:1], ignore_N1HW)
    with pytest.raises(AssertionError, match="broadcast"):
        bce_dice(logits_N1HW, person_N1HW, ignore_N1HW[:, 0])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_each_loss_of_the_table_trains_and_compiles(name):
    torch.compiler.reset()
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    compiled = torch.compile(LOSSES[name], backend="aot_eager", fullgraph=True, dynamic=False)
    loss = compiled(logits_N1HW, person_N1HW, ignore_N1HW)
    torch.testing.assert_close(loss, LOSSES[name](logits_N1HW, person_N1HW, ignore_N1HW))
    loss.backward()
    assert logits_N1HW.grad is not None
    better_N1HW = logits_N1HW.detach() - 10 * logits_N1HW.grad
    assert LOSSES[name](better_N1HW, person_N1HW, ignore_N1HW) < loss
