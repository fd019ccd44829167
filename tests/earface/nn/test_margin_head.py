"""The margin heads against slow, obvious, per-element oracles, in each dtype."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from earface.nn.margin_head import MarginHead, added_angle, margin_loss

MARGIN, SCALE, SMOOTHING = 0.45, 64.0, 0.08
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def arcface_logit(cosine: float, z: float) -> float:
    theta = math.acos(cosine)
    return math.cos(theta + MARGIN) if theta < math.pi - MARGIN else cosine + math.cos(MARGIN) - 1.0


def cosface_logit(cosine: float, z: float) -> float:
    return cosine - MARGIN


def adaface_logit(cosine: float, z: float) -> float:
    angle = min(max(math.acos(cosine) - MARGIN * z, 0.0), math.pi)
    return math.cos(angle) - (MARGIN * z + MARGIN)


ORACLES = {"arcface": arcface_logit, "cosface": cosface_logit, "adaface": adaface_logit}


def slow_logits(head: MarginHead, embeddings: Tensor, labels: Tensor) -> list[list[float]]:
    """Element by element, in Python floats."""
    rows = []
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in embedding))
        z = 0.0
        if head.kind == "adaface":
            z = (min(max(length, 0.001), 100.0) - float(head.norm_mean)) / (float(head.norm_std) + 1e-3) * 0.333
            z = min(max(z, -1.0), 1.0)
        cosines = []
        for centre in head.weight.tolist():
            size = math.sqrt(sum(w * w for w in centre))
            cosine = sum(x * w for x, w in zip(embedding, centre, strict=True)) / length / size
            cosines.append(min(max(cosine, -1.0), 1.0))
        row = []
        for number in range(len(cosines) // head.sub_centers):
            cosine = max(cosines[number * head.sub_centers : (number + 1) * head.sub_centers])
            row.append(SCALE * (ORACLES[head.kind](cosine, z) if number == label else cosine))
        rows.append(row)
    return rows


def slow_loss(logits: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(value - top) for value in row))
        for number, value in enumerate(row):
            target = (1.0 - SMOOTHING) * (number == label) + SMOOTHING / len(row)
            total += target * (log_sum - value)
    return total / len(labels)


def example(kind: str, dtype: torch.dtype, sub_centers: int = 1) -> tuple[MarginHead, Tensor, Tensor]:
    """Seven faces of five classes, one of them opposite to its centre, where the margin leaves the cosine's range."""
    generator = torch.Generator().manual_seed(1)
    head = MarginHead(16, 5, kind, MARGIN, SCALE, sub_centers)
    head = head.to(torch.float64 if dtype == torch.float64 else torch.float32).eval()
    embeddings = torch.randn(7, 16, generator=generator).to(dtype) * 4
    labels = torch.tensor([0, 4, 1, 1, 3, 2, 0])
    with torch.no_grad():
        embeddings[0] = -head.weight[0].to(dtype) * 300
        embeddings[1] = head.weight[4 * sub_centers].to(dtype) * 300
    return head, embeddings, labels


@pytest.mark.parametrize("sub_centers", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", list(ORACLES))
def test_logits_and_loss_are_those_of_the_slow_loop(kind: str, dtype: torch.dtype, sub_centers: int) -> None:
    head, embeddings, labels = example(kind, dtype, sub_centers)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(embeddings, labels)
        loss = margin_loss(logits, labels, SMOOTHING)
    wanted = slow_logits(head, embeddings, labels)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert logits.dtype == loss.dtype == expected
    exact = 1e-5 if dtype == torch.float64 else 5e-2  # an angle near zero has half of float32's digits, times 64
    assert torch.allclose(logits.double(), torch.tensor(wanted, dtype=torch.float64), atol=exact, rtol=0)
    assert loss.item() == pytest.approx(slow_loss(wanted, labels.tolist()), abs=exact)


@pytest.mark.parametrize("kind", list(ORACLES))
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    head, embeddings, labels = example(kind, torch.float64)
    kept = slice(2, None)  # the first two lie at the ends, where only one side has a difference
    given, weight = embeddings[kept].requires_grad_(), head.weight

    def loss(faces: Tensor, centres: Tensor) -> Tensor:
        logits = torch.func.functional_call(head, {"weight": centres}, (faces, labels[kept]))
        return margin_loss(logits, labels[kept], SMOOTHING)

    if kind == "adaface":  # its z is a constant to the gradient, by the paper
        with torch.no_grad():
            lengths = given.norm(dim=1, keepdim=True)
        assert torch.autograd.gradcheck(
            lambda faces, centres: loss(faces / faces.norm(dim=1, keepdim=True) * lengths, centres), (given, weight)
        )
    else:
        assert torch.autograd.gradcheck(loss, (given, weight))


@pytest.mark.parametrize("kind", list(ORACLES))
def test_gradients_are_finite_at_the_ends(kind: str) -> None:
    """A face on its class centre, or opposite to it, where the sine's derivative is infinite."""
    head, embeddings, labels = example(kind, torch.float32)
    given = embeddings.requires_grad_()
    margin_loss(head(given, labels), labels, SMOOTHING).backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize("margin", [0.1, 0.45, 0.5, 1.5])
def test_arcface_falls_in_theta_from_zero_to_pi_without_a_jump(margin: float) -> None:
    theta = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    logits = added_angle(theta.cos(), margin)
    steps = logits.diff()
    assert (steps < 0).all()
    assert steps.abs().max() < 2 * math.pi / 20000
    below = theta < math.pi - margin - 1e-9
    assert torch.allclose(logits[below], torch.cos(theta + margin)[below], atol=1e-9)


def test_adaface_presses_long_embeddings_more_and_keeps_statistics_while_training() -> None:
    head = MarginHead(8, 3, "adaface", MARGIN, SCALE).eval()
    head.norm_mean.fill_(10.0)
    head.norm_std.fill_(2.0)
    directions = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    direction = directions / directions.norm(dim=1, keepdim=True)
    labels = torch.tensor([0, 1, 2])
    plain = head(direction)
    drops = [(plain - head(direction * length, labels)).diagonal() for length in (4.0, 10.0, 16.0)]
    with torch.no_grad():
        theta = torch.acos(plain.diagonal() / SCALE)
    assert torch.allclose(drops[1], torch.full((3,), SCALE * MARGIN), atol=1e-3)  # z = 0: cos(theta) - margin
    z = 6 / (2 + 1e-3) * 0.333
    harder = torch.cos(theta - MARGIN * z) - MARGIN * (1 + z)
    assert torch.allclose(drops[2], SCALE * (theta.cos() - harder), atol=1e-3)
    before = head.norm_mean.clone()
    head(direction * 16.0, labels)
    assert head.norm_mean == before
    head.train()(direction * 16.0, labels)
    assert float(head.norm_mean) == pytest.approx(10.0 * 0.99 + 16.0 * 0.01)


def test_without_labels_no_logit_is_harder_and_a_label_that_is_no_class_is_refused() -> None:
    head, embeddings, labels = example("arcface", torch.float32)
    plain, hard = head(embeddings), head(embeddings, labels)
    own = torch.zeros_like(plain, dtype=torch.bool).scatter(1, labels[:, None], True)
    assert torch.equal(plain[~own], hard[~own])
    assert (hard[own] < plain[own]).all()
    with pytest.raises(ValueError, match="labels from 0 to 5 for 5 classes"):
        head(embeddings, torch.tensor([0, 5, 1, 1, 3, 2, 0]))
