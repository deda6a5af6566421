"""Tensor suffixes: N images, 1 the person logit or plane, H and W pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.loss import DICE_SMOOTHING, LOSSES, cross_entropy, focal, soft_dice

SHAPE = (3, 1, 16, 16)
NAMES = sorted(LOSSES)
TERMS = [cross_entropy, soft_dice, focal]

fuzz = settings(derandomize=True, database=None, deadline=None, max_examples=80)


def batch(seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, person and ignore planes at random."""
    random = torch.Generator().manual_seed(seed)
    logits_N1HW = scale * torch.randn(SHAPE, generator=random)
    person_N1HW = torch.randint(0, 2, SHAPE, generator=random, dtype=torch.uint8)
    ignore_N1HW = (torch.rand(SHAPE, generator=random) < 0.3).to(torch.uint8)
    return logits_N1HW.requires_grad_(), person_N1HW, ignore_N1HW


def numpy_terms(logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> dict[str, float]:
    """The terms by their definitions, in double precision, over the list of valid pixels."""
    valid = ignore_N1HW.numpy() == 0
    if not valid.any():
        return {"bce": 0.0, "dice": 0.0, "focal": 0.0}
    person = person_N1HW.numpy()[valid].astype(float)
    probability = 1 / (1 + np.exp(-logits_N1HW.detach().double().numpy()[valid]))
    overlap, total = np.sum(probability * person), np.sum(probability) + np.sum(person)
    return {
        "bce": float(-np.mean(person * np.log(probability) + (1 - person) * np.log(1 - probability))),
        "dice": float(1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)),
        # Gamma 2; a share of a half for both classes.
        "focal": float(
            -0.5
            * np.mean(
                person * (1 - probability) ** 2 * np.log(probability)
                + (1 - person) * probability**2 * np.log(1 - probability)
            )
        ),
    }


def numpy_loss(name: str, logits_N1HW: Tensor, person_N1HW: Tensor, ignore_N1HW: Tensor) -> float:
    """A loss of the table by its definition."""
    terms = numpy_terms(logits_N1HW, person_N1HW, ignore_N1HW)
    sums = {"bce_dice": terms["bce"] + terms["dice"], "focal_dice": 20 * terms["focal"] + terms["dice"]}
    return {**terms, **sums}[name]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Batches of any small shape, also without a person, without a valid pixel, or nearly certain."""
    shape = (draw(st.integers(1, 3)), 1, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits_N1HW = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0])) * torch.randn(shape, generator=random)
    person_N1HW, ignore_N1HW = (
        (torch.rand(shape, generator=random) < draw(st.sampled_from([0.0, 0.3, 1.0]))).to(torch.uint8) for _ in range(2)
    )
    return logits_N1HW.requires_grad_(), person_N1HW, ignore_N1HW


@pytest.mark.parametrize("name", NAMES)
def test_equals_its_definition(name):
    @fuzz
    @given(batches())
    def check(planes):
        loss = LOSSES[name](*planes)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(numpy_loss(name, *planes), rel=1e-5, abs=1e-6)

    check()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_term_equals_the_papers_formula(gamma):
    """Formula (5), alpha 0.5, and gamma 0 is the cross-entropy; two logits lie beyond what its plain form can do."""
    logits_N1HW, person_N1HW, ignore_N1HW = (plane.double() for plane in batch())
    weight_N1HW = 1 - ignore_N1HW
    pixels = (logits_N1HW * weight_N1HW, person_N1HW * weight_N1HW, weight_N1HW)
    positive = person_N1HW == 1
    p_t = torch.where(positive, logits_N1HW.sigmoid(), 1 - logits_N1HW.sigmoid())
    expected = (-0.5 * (1 - p_t) ** gamma * p_t.log())[weight_N1HW == 1].mean()
    torch.testing.assert_close(focal(*pixels, gamma=gamma), expected)
    torch.testing.assert_close(2 * focal(*pixels, gamma=0), cross_entropy(*pixels))
    logits_11HW = torch.tensor([[[[900.0, -900.0]]]]).double().requires_grad_()
    ones_11HW = torch.ones_like(logits_11HW)
    loss = focal(logits_11HW, ones_11HW, ones_11HW, gamma=gamma)
    assert loss.item() == pytest.approx(0.5 * 900 / 2)
    (gradient,) = torch.autograd.grad(loss, logits_11HW)
    torch.testing.assert_close(gradient, torch.tensor([[[[0.0, -0.25]]]]).double())


@pytest.mark.parametrize("term", TERMS)
def test_gradients_of_the_terms_equal_finite_differences(term):
    random = torch.Generator().manual_seed(0)
    for scale in (0.0, 1.0, 8.0):
        shape = (2, 1, 3, 4)
        logits_N1HW = (scale * torch.randn(shape, generator=random)).double().requires_grad_()
        weight_N1HW = (torch.rand(shape, generator=random) < 0.7).double()
        person_N1HW = (torch.rand(shape, generator=random) < 0.5).double() * weight_N1HW
        assert torch.autograd.gradcheck(
            lambda x, person=person_N1HW, weight=weight_N1HW: term(x * weight, person, weight), (logits_N1HW,)
        )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    LOSSES[name](logits_N1HW, person_N1HW, ignore_N1HW).backward()
    assert logits_N1HW.grad is not None
    logits_64 = logits_N1HW.detach().double()
    direction = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-4
    ahead = numpy_loss(name, logits_64 + step * direction, person_N1HW, ignore_N1HW)
    behind = numpy_loss(name, logits_64 - step * direction, person_N1HW, ignore_N1HW)
    slope = (logits_N1HW.grad.double() * direction).sum().item()
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


def test_a_focal_prediction_tips_over_at_a_half():
    """Of pixels that look alike, some are persons; a logit of 0 is best for them all when half of them are."""
    ones_11HW = torch.ones((1, 1, 1, 100), dtype=torch.float64)
    for persons in (40, 50, 60):
        person_11HW = (torch.arange(100) < persons).double().view(1, 1, 1, 100)
        logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(focal(logit * ones_11HW, person_11HW, ones_11HW), logit)
        assert slope.sign() * (abs(slope) > 1e-9) == np.sign(50 - persons)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [0.0, 50.0, float("inf"), float("nan")])
def test_ignored_pixels_count_for_nothing(name, bad):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    expected = LOSSES[name](logits_N1HW, person_N1HW, ignore_N1HW)
    ignored_N1HW = ignore_N1HW.bool()
    changed_N1HW = logits_N1HW.detach().masked_fill(ignored_N1HW, bad).requires_grad_()
    loss = LOSSES[name](changed_N1HW, torch.where(ignored_N1HW, 1 - person_N1HW, person_N1HW), ignore_N1HW)
    assert torch.equal(loss, expected)
    loss.backward()
    assert changed_N1HW.grad is not None
    assert not changed_N1HW.grad[ignored_N1HW].any()
    assert (changed_N1HW.grad[~ignored_N1HW] != 0).all()
    assert changed_N1HW.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_everything_ignored_is_zero(name):
    logits_N1HW, person_N1HW, _ = batch()
    loss = LOSSES[name](logits_N1HW, person_N1HW, torch.ones_like(person_N1HW))
    assert loss.item() == 0
    loss.backward()
    assert logits_N1HW.grad is not None
    assert torch.equal(logits_N1HW.grad, torch.zeros(SHAPE))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e4, 6e4])
def test_large_logits_are_stable(name, size):
    _, person_N1HW, _ = batch()
    valid_N1HW = torch.zeros_like(person_N1HW)
    right_N1HW = size * (2 * person_N1HW.float() - 1)
    assert LOSSES[name](right_N1HW, person_N1HW, valid_N1HW).item() == pytest.approx(0, abs=1e-6)
    wrong_N1HW = (-right_N1HW).half().requires_grad_()
    loss = LOSSES[name](wrong_N1HW, person_N1HW, valid_N1HW)
    # So far out, a term is a straight line: the logit itself, half of it with the focal loss's share, or 1 for Dice.
    lines = {"bce": (1, 0), "dice": (0, 1), "bce_dice": (1, 1), "focal": (0.5, 0), "focal_dice": (10, 1)}
    slope, constant = lines[name]
    reached = slope * wrong_N1HW.abs().float().mean().item() + constant
    assert loss.item() == pytest.approx(reached, rel=1e-2)
    loss.backward()
    assert wrong_N1HW.grad is not None
    assert wrong_N1HW.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_nobody_there_and_nobody_predicted_costs_next_to_nothing(name):
    empty_N1HW = torch.zeros(SHAPE, dtype=torch.uint8)
    assert LOSSES[name](torch.full(SHAPE, -30.0), empty_N1HW, empty_N1HW).item() < 1e-6


def test_pooling_keeps_an_empty_image_from_outweighing_the_others():
    """One false pixel in an image without a person, beside an image that is all person and right."""
    person_N1HW = torch.zeros((2, 1, 16, 16), dtype=torch.uint8)
    person_N1HW[0] = 1
    logits_N1HW = 40 * (2 * person_N1HW.float() - 1)
    logits_N1HW[1, 0, 0, 0] = 40
    assert LOSSES["dice"](logits_N1HW, person_N1HW, torch.zeros_like(person_N1HW)).item() < 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_fp32_whatever_autocast_says(name, dtype):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    half_N1HW = logits_N1HW.detach().to(dtype)
    expected = LOSSES[name](half_N1HW.float(), person_N1HW, ignore_N1HW)
    with torch.autocast("cpu", dtype):
        loss = LOSSES[name](half_N1HW, person_N1HW, ignore_N1HW)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_to_broadcast(name):
    logits_N1HW, person_N1HW, ignore_N1HW = batch()
    with pytest.raises(AssertionError, match="broadcast"):
        LOSSES[name](logits_N1HW, person_N1HW[:1], ignore_N1HW)
    with pytest.raises(AssertionError, match="broadcast"):
        LOSSES[name](logits_N1HW, person_N1HW, ignore_N1HW[:, 0])


@pytest.mark.parametrize("name", NAMES)
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
