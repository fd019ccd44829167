"""Each loss against a slow oracle, and a recogniser that teaches without learning or being kept."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsr.config import DSRTrainingConfig
from dsr.losses import (
    DSRLoss,
    DSRLossWeights,
    feature_matching_loss,
    identity_loss,
    l1_loss,
    moved,
    random_similarity,
    total_variation,
)
from dsr.module import DSRLightning, ValidationFaces
from earface.nn.frozen import FrozenRecognizer
from facial_rec.contract import FaceContract

SHAPE = (2, 3, 5, 7)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def faces(count: int = 2, seed: int = 0) -> Tensor:
    """Smooth ones (count, 3, 128, 128)."""
    coarse = random(count, 3, 9, 9, seed=seed).float()
    return nn.functional.interpolate(coarse, (128, 128), mode="bicubic").clamp(-1, 1)


# Per-element oracles


def slow_l1(sr: np.ndarray, hr: np.ndarray) -> float:
    """Of pixels in [0, 1]."""
    total = 0.0
    for place in np.ndindex(sr.shape):
        total += abs((sr[place] + 1) / 2 - (hr[place] + 1) / 2)
    return total / sr.size


def slow_tv(images: np.ndarray, _: np.ndarray) -> float:
    batch, channels, height, width = images.shape
    total = 0.0
    for b, c, y, x in itertools.product(range(batch), range(channels), range(height), range(width)):
        pixel = (images[b, c, y, x] + 1) / 2
        if y + 1 < height:
            total += abs((images[b, c, y + 1, x] + 1) / 2 - pixel)
        if x + 1 < width:
            total += abs((images[b, c, y, x + 1] + 1) / 2 - pixel)
    return total / batch


def slow_identity(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for one, other in zip(first.reshape(len(first), -1), second.reshape(len(second), -1), strict=True):
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        total += 1 - dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return total / len(first)


ORACLES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[np.ndarray, np.ndarray], float]]] = {
    "l1": (l1_loss, slow_l1),
    "identity": (lambda a, b: identity_loss(a.flatten(1), b.flatten(1)), slow_identity),
    "tv": (lambda a, _: total_variation(a), slow_tv),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ORACLES)
def test_each_term_is_its_oracles_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    """Half precision goes in rounded and is worked on in float32."""
    fast, slow = ORACLES[name]
    sr, hr = random(*SHAPE).to(dtype), random(*SHAPE, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(sr, hr)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(found) == pytest.approx(slow(sr.double().numpy(), hr.double().numpy()), rel=1e-5)


def test_feature_matching_weighs_each_stage_alike() -> None:
    found = [random(2, 3, 4, 5), random(2, 7, 2, 2)]
    wanted = [random(2, 3, 4, 5, seed=1) * 3, random(2, 7, 2, 2, seed=1)]
    stages = []
    for one, other in zip(found, wanted, strict=True):
        distances = [abs(float(one[place] - other[place])) for place in np.ndindex(one.shape)]
        stages.append(sum(distances) / len(distances))
    assert float(feature_matching_loss(found, wanted)) == pytest.approx(sum(stages) / 2, rel=1e-9)
    half = feature_matching_loss([each.half() for each in found], [each.half() for each in wanted])
    assert half.dtype == torch.float32


def test_the_loss_is_the_weighted_sum_of_its_terms(recognizer: FrozenRecognizer) -> None:
    def perceptual(sr: Tensor, hr: Tensor) -> Tensor:  # [0, 1] images -> (B,)
        return (sr - hr).square().mean(dim=(1, 2, 3))

    sr, hr = faces(), faces(seed=1)
    weights = DSRLossWeights(perceptual=0.25, identity=0.5, feature_match=0.125, tv=2e-6)
    result = DSRLoss(weights, recognizer, perceptual)(sr, hr)
    maps, embeddings = recognizer(sr)
    truth_maps, truth = recognizer(hr)
    expected = {
        "l1": l1_loss(sr, hr),
        "identity": identity_loss(embeddings, truth),
        "feature_match": feature_matching_loss(maps, truth_maps),
        "perceptual": ((sr - hr) / 2).square().mean(),
        "tv": total_variation(sr),
    }
    assert result.terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(result.terms[name]) == pytest.approx(float(value), rel=1e-4), name
        assert float(value) > 0
    total = sum(getattr(weights, name, 1.0) * float(value) for name, value in expected.items())
    assert float(result.total) == pytest.approx(total, rel=1e-4)
    assert result.embedding is not None
    torch.testing.assert_close(result.embedding.norm(dim=1), torch.ones(2))


def test_a_term_of_weight_0_is_not_computed_but_identity_is_measured_in_validation(
    recognizer: FrozenRecognizer,
) -> None:
    loss, sr, hr = DSRLoss(DSRLossWeights(), recognizer), faces(1), faces(1, seed=1)
    assert loss(sr, hr).terms.keys() == {"l1"}
    with torch.no_grad():
        measured = loss(sr, hr)
    assert measured.terms.keys() == {"l1", "identity", "feature_match"}
    assert float(measured.total) == float(measured.terms["l1"])


@pytest.mark.parametrize(
    "weights", [DSRLossWeights(identity=0.1), DSRLossWeights(feature_match=0.1), DSRLossWeights(perceptual=1)]
)
def test_a_weight_without_its_network_is_refused(weights: DSRLossWeights) -> None:
    with pytest.raises(ValueError, match="need"):
        DSRLoss(weights)


# The recogniser


def test_the_picture_gets_gradients_and_the_recogniser_keeps_none(recognizer: FrozenRecognizer) -> None:
    sr = faces().requires_grad_()
    loss = DSRLoss(DSRLossWeights(identity=1.0, feature_match=1.0), recognizer)
    terms = loss(sr, faces(seed=1)).terms
    for name in ("identity", "feature_match"):
        (gradient,) = torch.autograd.grad(terms[name], sr, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()
    terms["identity"].backward()
    network = recognizer.network
    assert isinstance(network, nn.Module)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_a_step_against_the_identity_gradient_brings_the_faces_nearer(recognizer: FrozenRecognizer) -> None:
    sr, hr = faces().requires_grad_(), faces(seed=1)
    loss = DSRLoss(DSRLossWeights(identity=1.0), recognizer)
    before = loss(sr, hr).terms["identity"]
    (gradient,) = torch.autograd.grad(before, sr)
    after = loss(sr - 0.05 * gradient / gradient.norm(), hr).terms["identity"]
    assert after.item() < before.item()


def test_the_recogniser_is_no_part_of_the_module_that_uses_it(recognizer: FrozenRecognizer) -> None:
    config = DSRTrainingConfig(base_channels=8, residual_blocks=1, vlr_size="16", lambda_perceptual=0.0)
    module = DSRLightning(config, recognizer, recognizer)
    assert {name.split(".")[0] for name in module.state_dict()} == {"model"}
    own = {id(parameter) for parameter in module.parameters()}
    network = recognizer.network
    assert isinstance(network, nn.Module)
    assert own.isdisjoint(id(parameter) for parameter in network.parameters())
    assert sum(p.numel() for group in module.parameter_groups() for p in group["params"]) == sum(
        p.numel() for p in module.model.parameters()
    )
    module.train()
    assert not network.training
    assert copy.deepcopy(module).loss.recognizer is recognizer


def test_the_recogniser_sees_what_the_contract_makes_of_the_faces(recognizer: FrozenRecognizer) -> None:
    network = recognizer.network
    assert isinstance(network, nn.Module)
    with torch.no_grad():
        wanted = network(FaceContract("arcface")(faces()))
        maps, found = recognizer(faces())
    torch.testing.assert_close(found, wanted / wanted.norm(dim=1, keepdim=True))
    assert [each.shape[-1] for each in maps] == [28, 14, 7, 3]


# Both faces moved before the recogniser


def test_no_jitter_leaves_faces_loss_and_chance_alone(recognizer: FrozenRecognizer) -> None:
    sr, hr = faces(), faces(seed=1)
    assert moved(sr, None) is sr
    torch.testing.assert_close(moved(sr, random_similarity(sr, 0.0)), sr, atol=1e-5, rtol=0)
    loss = DSRLoss(DSRLossWeights(identity=1.0), recognizer)
    state = torch.get_rng_state()
    assert torch.equal(loss(sr, hr, 0.0).total, loss(sr, hr).total)
    assert torch.equal(torch.get_rng_state(), state)


def test_both_faces_of_a_pair_are_moved_alike(recognizer: FrozenRecognizer) -> None:
    """A face and itself stay at distance 0 wherever they are moved; moved apart, they would not."""
    loss, hr = DSRLoss(DSRLossWeights(identity=1.0, feature_match=1.0), recognizer), faces()
    torch.manual_seed(0)
    terms = loss(hr.clone(), hr, 0.2).terms
    assert float(terms["identity"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["feature_match"]) == 0
    with torch.no_grad():
        apart = identity_loss(*(recognizer(moved(hr, random_similarity(hr, 0.2)))[1] for _ in range(2)))
    assert float(apart) > 1e-4


def test_jitter_is_drawn_anew_for_each_face_and_step(recognizer: FrozenRecognizer) -> None:
    loss, sr, hr = DSRLoss(DSRLossWeights(identity=1.0), recognizer), faces(), faces(seed=1)
    torch.manual_seed(0)
    first, second = (float(loss(sr, hr, 0.1).total) for _ in range(2))
    torch.manual_seed(0)
    assert float(loss(sr, hr, 0.1).total) == first != second


@pytest.mark.parametrize("amount", [0.06, 0.5])
def test_the_grids_are_similarities_within_the_stated_amounts(amount: float) -> None:
    """Turn, zoom and shift worked out again from the grid's points, in half sides."""
    torch.manual_seed(1)
    grids = random_similarity(torch.zeros(200, 1, 8, 8), amount).double()
    side = (torch.arange(8, dtype=torch.float64) + 0.5) / 4 - 1
    y, x = torch.meshgrid(side, side, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    affine = torch.linalg.lstsq(points.expand(200, -1, -1), grids.reshape(200, -1, 2)).solution.mT  # (200, 2, 3)
    a, b, right = affine[:, 0].T
    c, d, down = affine[:, 1].T
    torch.testing.assert_close(a, d, atol=1e-5, rtol=0)
    torch.testing.assert_close(b, -c, atol=1e-5, rtol=0)
    zoom, turn = torch.hypot(a, c) - 1, torch.atan2(c, a)
    for values in (zoom, turn, right, down):
        assert values.abs().max() <= amount + 1e-5
        assert values.min() < -0.9 * amount  # 200 draws: .95^200 = 4e-5 of missing either end
        assert values.max() > 0.9 * amount
    assert abs(float(np.corrcoef(zoom, turn)[0, 1])) < 0.3


def test_the_grids_are_as_exact_in_half_precision() -> None:
    """Eight bits would move a pixel at the border by a quarter."""
    faces_of_zero, grids = torch.zeros(4, 3, 128, 128), []
    for half in (False, True):
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            grids.append(random_similarity(faces_of_zero, 0.06))
    assert torch.equal(*grids)


# What validation remembers of faces


def embeddings_of(recognizer: FrozenRecognizer, images: Tensor) -> Tensor:
    with torch.no_grad():
        return recognizer(images)[1]


def test_hr_faces_are_embedded_in_the_first_whole_epoch_only(recognizer: FrozenRecognizer) -> None:
    """Four faces of two people; an epoch of which only half was seen is no whole one."""
    network, passes = recognizer.network, []
    assert isinstance(network, nn.Module)
    hr, identities = faces(4), np.array([0, 0, 1, 1])
    memory, found = ValidationFaces(recognizer, None), []
    hook = network.get_submodule("model.stem").register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        for seed, batches in ((1, 1), (2, 2), (3, 2)):
            sr = faces(4, seed)
            memory.begin(4)
            for index in torch.arange(4).split(2)[:batches]:
                memory.add(index, sr[index], hr[index], None)
            if memory.count == 4:
                found.append(memory.metrics(identities, lambda table: table))
    hook.remove()
    assert len(passes) == 2 + 4 + 2
    for seed, row in zip((2, 3), found, strict=True):
        cosines = (embeddings_of(recognizer, faces(4, seed)) * embeddings_of(recognizer, hr)).sum(dim=1)
        assert row["val/cosine"] == pytest.approx(float(cosines.mean()), abs=1e-5)
        assert 0 <= row["val/rank1"] <= 1
