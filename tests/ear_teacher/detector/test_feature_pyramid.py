"""Any encoder's maps become levels of the wanted grids, and no part of a network goes without gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ear_teacher.backbones import Backbone
from ear_teacher.config import EarVAEConfig
from ear_teacher.detector.box_detector import STRIDES, BoxDetector
from ear_teacher.detector.feature_pyramid import FeaturePyramid, _resized
from ear_teacher.detector.landmarker import Landmarker
from ear_teacher.encoders import build_backbone

# the maps of each family at 512 pixels, as their authors describe them: channels and sides
FAMILIES: dict[str, tuple[list[int], list[int]]] = {
    "conv": ([64, 128, 256, 512], [256, 128, 64, 32]),
    "resnet18": ([64, 128, 256, 512], [128, 64, 32, 16]),
    "timm:edgenext_xx_small": ([24, 48, 88, 168], [128, 64, 32, 16]),
    "dinov2": ([384] * 4, [36] * 4),  # 504 / 14
    "sam": ([768, 768, 768, 256], [32] * 4),
}
GRIDS = [512 // stride for stride in STRIDES]
BUILT = ["conv", "resnet18", "timm:edgenext_xx_small", "timm:test_vit", "dinov2"]


def backbone_of(encoder: str, image_size: int) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(EarVAEConfig(encoder=encoder, image_size=image_size, base_channels=4))


def maps_of(channels: list[int], grids: list[int]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, width, grid, grid) for width, grid in zip(channels, grids, strict=True)]


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("grids", [GRIDS, [10, 7, 3]], ids=["powers of two", "others"])
def test_every_family_gives_the_wanted_levels(encoder: str, grids: list[int]) -> None:
    channels, sides = FAMILIES[encoder]
    levels = FeaturePyramid(channels, sides, grids, 8)(maps_of(channels, sides))
    assert [tuple(level.shape) for level in levels] == [(1, 8, grid, grid) for grid in grids]
    assert all(level.isfinite().all() for level in levels)


@pytest.mark.parametrize("encoder", BUILT[:4])
def test_the_backbones_own_channels_and_grids_are_those_of_its_maps(encoder: str) -> None:
    backbone = backbone_of(encoder, 160).eval()
    maps = backbone(torch.zeros(1, 3, 160, 160))
    assert [each.shape[1] for each in maps] == backbone.channels
    assert [tuple(each.shape[2:]) for each in maps] == [(grid, grid) for grid in backbone.grids]


def test_the_stated_maps_of_the_families_are_the_real_ones() -> None:
    for encoder in ("conv", "resnet18", "timm:edgenext_xx_small"):
        backbone = build_backbone(EarVAEConfig(encoder=encoder, image_size=512))
        assert (backbone.channels, backbone.grids) == FAMILIES[encoder]


@pytest.mark.parametrize(
    ("encoder", "grids", "feeds"),
    [
        # level by level the map that it is taken from; None: from the level before
        ("conv", GRIDS, [1, 2, 3, None, None]),
        ("resnet18", GRIDS, [0, 1, 2, 3, None]),
        ("dinov2", GRIDS, [0, 2, 3, None, None]),  # a vision transformer's earliest map for the finest level
        ("sam", GRIDS, [0, 2, 3, None, None]),
        ("dinov2", [48, 40, 36, 30, 24], [0, 1, 2, 3, 3]),
        ("dinov2", [128, 8], [3, None]),
    ],
)
def test_a_level_depends_on_its_map_and_on_those_of_coarser_levels(
    encoder: str, grids: list[int], feeds: list[int | None]
) -> None:
    channels, sides = FAMILIES[encoder]
    pyramid = FeaturePyramid(channels, sides, grids, 8)
    maps = [each.requires_grad_() for each in maps_of(channels, sides)]
    last = max(index for index, source in enumerate(feeds) if source is not None)
    for level, output in enumerate(pyramid(maps)):
        gradients = torch.autograd.grad(output.square().sum(), maps, retain_graph=True, allow_unused=True)
        found = {index for index, gradient in enumerate(gradients) if gradient is not None and gradient.any()}
        assert found == {source for source in feeds[min(level, last) :] if source is not None}


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("grids", [GRIDS, GRIDS[:4], [40, 20, 10, 5, 3]])
def test_the_deepest_map_is_always_used(encoder: str, grids: list[int]) -> None:
    """Else the last layers of an encoder would neither be trained nor used."""
    channels, sides = FAMILIES[encoder]
    sources = FeaturePyramid(channels, sides, grids, 8).sources
    assert len(sides) - 1 in sources
    taken = [source for source in sources if source is not None]
    assert taken == sorted(taken)


@pytest.mark.parametrize("encoder", BUILT)
@pytest.mark.parametrize("network", [BoxDetector, Landmarker])
def test_gradients_reach_every_parameter(encoder: str, network: Any) -> None:
    """Distributed training waits for each."""
    size = 160 if encoder == "timm:test_vit" else 64
    backbone = backbone_of(encoder, size)
    net: nn.Module = network(backbone, size, 8, *([3] if network is Landmarker else [])).train()
    outputs = net(torch.rand(2, 3, size, size) * 2 - 1)
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("before", "after"), [(9, 32), (8, 32), (9, 8), (32, 8), (5, 5), (3, 4)])
def test_resizing_keeps_constants_and_favours_no_side(before: int, after: int) -> None:
    assert torch.allclose(_resized(torch.full((1, 2, before, before), 3.0), after), torch.tensor(3.0))
    maps = torch.randn(1, 2, before, before, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_resized(maps.flip(-1), after), _resized(maps, after).flip(-1))
    ramp = torch.linspace(-1, 1, before).expand(1, 1, before, before)
    middle = _resized(ramp, after)[0, 0, 0]
    assert (middle.diff() >= 0).all()
    assert math.isclose(float(middle.mean()), 0, abs_tol=1e-6)
