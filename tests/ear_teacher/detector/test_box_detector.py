"""Places, which of them answers for which ear, and which boxes remain, each against a slow loop or torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from ear_teacher.backbones import ConvBackbone
from ear_teacher.detector.box_detector import (
    LEAST,
    MOST,
    PRIOR,
    RADIUS,
    STRIDES,
    BoxDetector,
    assign,
    places_of,
    suppress,
)

SIDES = (64, 96, 320, 512)  # 96 and 320 are no multiples of the coarsest strides


def grids_of(image_size: int) -> list[int]:
    return [math.ceil(image_size / stride) for stride in STRIDES]


def levels_of(image_size: int) -> tuple[Tensor, Tensor, list[int]]:
    """Places, strides and level sizes, as `assign` takes them."""
    grids = grids_of(image_size)
    return *places_of(image_size, grids), [grid * grid for grid in grids]


def random_ears(image_size: int, count: int, seed: int) -> Tensor:
    """(count, 4) corners, 3 pixels to the whole picture wide, every size as likely as the next one twice as large."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(math.log(3) + torch.rand(count, 2, generator=generator) * math.log(image_size / 3))
    sides[::3, 1] = sides[::3, 0]
    low = torch.rand(count, 2, generator=generator) * (image_size - sides)
    return torch.cat([low, low + sides], dim=1)


def answers_by_loop(boxes: Tensor, places: Tensor, strides: Tensor) -> list[int]:
    """`assign` as its description reads: each ear claims places, and each place takes its smallest claim."""
    levels = sorted(set(strides.tolist()))
    claims: list[list[tuple[float, int]]] = [[] for _ in places]
    for ear, (x1, y1, x2, y2) in enumerate(boxes.double().tolist()):
        side = math.sqrt((x2 - x1) * (y2 - y1))
        for stride in levels:
            low = -1.0 if stride == levels[0] else LEAST * stride
            high = math.inf if stride == levels[-1] else MOST * stride
            if not low <= side < high:
                continue
            here = [index for index, each in enumerate(strides.tolist()) if each == stride]
            offsets = {}
            for index in here:
                x, y = places[index].tolist()
                offsets[index] = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
                if x1 <= x <= x2 and y1 <= y <= y2 and offsets[index] <= RADIUS * stride:
                    claims[index].append((side, ear))
            nearest = min(offsets.values())
            for index in here:
                if abs(offsets[index] - nearest) < 1e-4 and (side, ear) not in claims[index]:
                    claims[index].append((side, ear))
    return [min(each)[1] if each else -1 for each in claims]


@pytest.mark.parametrize("image_size", SIDES)
def test_places_are_the_centres_of_the_cells_of_each_level(image_size: int) -> None:
    places, strides = places_of(image_size, grids_of(image_size))
    wanted = []
    for grid in grids_of(image_size):
        for row in range(grid):
            for column in range(grid):
                left, right = column * image_size / grid, (column + 1) * image_size / grid
                top, bottom = row * image_size / grid, (row + 1) * image_size / grid
                wanted.append(((left + right) / 2, (top + bottom) / 2, right - left))
    torch.testing.assert_close(torch.cat([places, strides[:, None]], dim=1), torch.tensor(wanted))


@pytest.mark.parametrize("image_size", SIDES[:3])
def test_ears_of_every_size_have_the_places_of_the_loop(image_size: int) -> None:
    levels = levels_of(image_size)
    pictures = [random_ears(image_size, 1 + 3 * seed, seed) for seed in range(4)]
    answers = assign(pad_sequence(pictures, batch_first=True, padding_value=torch.nan), *levels)
    assert answers.tolist() == [answers_by_loop(ears, *levels[:2]) for ears in pictures]


@pytest.mark.parametrize("image_size", SIDES)
def test_every_ear_has_a_place_on_each_of_its_levels(image_size: int) -> None:
    """Alone in the picture: a smaller one may take every place of a larger."""
    places, strides, sizes = levels_of(image_size)
    for ear in (*random_ears(image_size, 60, 0), torch.tensor([0.0, 0, image_size, image_size])):
        answers = assign(ear[None, None], places, strides, sizes)[0] == 0
        side = float((ear[2:] - ear[:2]).prod().sqrt())
        levels = set(strides[answers].tolist())
        assert 1 <= len(levels) <= 3
        inner = [level for level in strides.unique().tolist() if LEAST * level * 1.01 < side < MOST * level * 0.99]
        assert levels >= set(inner)


def test_the_smaller_of_two_ears_has_the_place_whatever_their_order() -> None:
    levels = levels_of(320)
    large, small = torch.tensor([40.0, 40, 200, 200]), torch.tensor([90.0, 90, 150, 150])
    for ears, smaller in ((torch.stack([large, small]), 1), (torch.stack([small, large]), 0)):
        answers, alone = assign(ears[None], *levels)[0], assign(small[None, None], *levels)[0] == 0
        assert (answers[alone] == smaller).all()
        assert (answers == 1 - smaller).any()


def test_no_ears_have_no_places() -> None:
    assert (assign(torch.full((2, 3, 4), torch.nan), *levels_of(96)) == -1).all()


def test_neighbouring_ears_keep_to_themselves() -> None:
    places, strides, sizes = levels_of(320)
    ears = torch.tensor([[20.0, 20, 80, 110], [200.0, 180, 260, 270]])
    answers = assign(ears[None], places, strides, sizes)[0]
    for ear, (x1, y1, x2, y2) in enumerate(ears.tolist()):
        x, y = places[answers == ear].T
        assert len(x)
        assert ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)).all()


# The network


@pytest.mark.parametrize("image_size", [64, 96])
def test_a_new_network_predicts_the_prior_and_boxes_around_their_places(image_size: int) -> None:
    torch.manual_seed(0)
    net = BoxDetector(ConvBackbone(3, 4, image_size), image_size, 16).eval()
    torch.nn.init.zeros_(net.score.weight)
    torch.nn.init.zeros_(net.distances.weight)
    logits, boxes = net(torch.rand(2, 3, image_size, image_size) * 2 - 1)
    assert logits.shape == (2, len(net.places))
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, PRIOR))
    reach = math.log1p(math.exp(LEAST)) * net.strides[:, None]  # softplus
    around = torch.cat([net.places - reach, net.places + reach], dim=1)
    torch.testing.assert_close(boxes, around.expand_as(boxes), rtol=1e-5, atol=1e-4)


def test_the_four_distances_are_left_top_right_bottom() -> None:
    torch.manual_seed(0)
    net = BoxDetector(ConvBackbone(3, 4, 64), 64, 16).eval()
    torch.nn.init.zeros_(net.distances.weight)
    with torch.no_grad():
        net.distances.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))  # type: ignore[union-attr]
        _, boxes = net(torch.zeros(1, 3, 64, 64))
    sides = torch.cat([net.places - boxes[0, :, :2], boxes[0, :, 2:] - net.places], dim=1) / net.strides[:, None]
    wanted = [math.log1p(math.exp(value)) for value in (1, 2, 3, 4)]
    torch.testing.assert_close(sides, torch.tensor(wanted).expand_as(sides), rtol=1e-4, atol=1e-4)


def test_a_frozen_network_has_no_gradient_and_stays_in_evaluation_mode() -> None:
    net = BoxDetector(ConvBackbone(3, 4, 64), 64, 16)
    net.freeze()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    holder = nn.ModuleList([net]).train()
    net(torch.rand(2, 3, 64, 64))
    assert holder.training
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Suppression


def crowd(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes of which many overlap, and scores that differ."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    return boxes, torch.randperm(count, generator=generator) / count


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_without_containment_it_is_torchvisions_suppression(iou: float) -> None:
    remaining = []
    for seed in range(20):
        boxes, scores = crowd(40, seed)
        kept = suppress(boxes, scores, iou=iou, containment=1)
        assert kept.tolist() == nms(boxes, scores, iou).tolist()
        remaining.append(len(kept))
    assert min(remaining) < 40


@pytest.mark.parametrize("better", [0, 1])
def test_of_nested_boxes_the_better_one_survives(better: int) -> None:
    """Their IoU is .09: only containment decides."""
    boxes = torch.tensor([[0.0, 0, 100, 100], [40.0, 40, 70, 70]])
    scores = torch.tensor([0.4, 0.4])
    scores[better] = 0.9
    assert suppress(boxes, scores, iou=0.5, containment=0.8).tolist() == [better]
    assert suppress(boxes, scores, iou=0.5, containment=1).tolist() == [better, 1 - better]


def test_a_box_that_hangs_out_by_more_than_the_rule_stays() -> None:
    large = torch.tensor([0.0, 0, 100, 100])
    for inside, remaining in ((15, 2), (17, 1)):  # .75 and .85 of the smaller, which is 20 wide
        small = torch.tensor([100.0 - inside, 0, 120 - inside, 20])
        boxes, scores = torch.stack([large, small]), torch.tensor([0.9, 0.5])
        assert len(suppress(boxes, scores, iou=0.5, containment=0.8)) == remaining


def test_of_equals_the_first_survives() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50.0, 50, 60, 60], [0.0, 0, 10, 10], [51.0, 51, 59, 59]])
    assert suppress(boxes, torch.full((4,), 0.5), iou=0.5, containment=0.8).tolist() == [0, 1]


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [4.0, 0, 14, 10], [8.0, 0, 18, 10]])  # each overlaps the next by 3/7
    assert suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), iou=0.4, containment=1).tolist() == [0, 2]


def test_both_rules_can_be_switched_off() -> None:
    boxes, scores = crowd(30, 0)
    boxes = torch.cat([boxes, boxes[:5], torch.tensor([[0.0, 0, 200, 200]])])
    scores = torch.cat([scores, scores[:5], torch.tensor([0.5])])
    order = scores.argsort(descending=True, stable=True)
    assert torch.equal(suppress(boxes, scores, iou=1, containment=1), order)


def test_nothing_remains_of_nothing() -> None:
    kept = suppress(torch.empty(0, 4), torch.empty(0), iou=0.5, containment=0.8)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64
