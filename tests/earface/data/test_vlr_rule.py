"""VLR faces of several sizes, degradations and misalignments, each a function of its key alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from earface.core.errors import InputError
from earface.data.degradation import MIXED, area, bicubic, mixed, realistic
from earface.data.face_dataset import FaceDataset
from earface.data.face_rows import read_faces
from earface.data.face_sizes import VLRRange, VLRSize, parse_vlr_size, parse_vlr_sizes
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range, to_uint8
from earface.data.vlr_rule import NOT_SQUARE, TURN, ZOOM, Movement, VLRRule, misaligned

KEYS = [(7, epoch, index) for epoch in range(1, 21) for index in range(200)]


def test_a_range_takes_the_sizes_within_it_on_both_axes() -> None:
    sizes = parse_vlr_sizes(" 14-32 ")
    assert sizes == VLRRange(14, 32)
    assert str(sizes) == "14-32"
    for text, inside in (("14", True), ("32", True), ("14x32", True), ("13x20", False), ("20x33", False)):
        assert sizes.takes(parse_vlr_size(text)) == inside, text
    assert [sizes.takes(VLRRange(*ends)) for ends in ((14, 32), (16, 24), (13, 32), (14, 33))] == [True] * 2 + [
        False
    ] * 2
    assert [str(VLRSize(14, 16).takes(other)) for other in (VLRSize(14, 16), VLRSize(16, 14), VLRRange(14, 16))] == [
        *("True", "False", "False")
    ]
    assert VLRSize(14, 32) != VLRRange(14, 32)
    assert isinstance(sizes, VLRRange)
    assert sizes.nearest(8, 200) == VLRSize(14, 32)
    assert [str(each) for each in sizes.examples] == ["16", "24", "32"]
    assert [str(each) for each in VLRRange(9, 13).examples] == ["9", "13"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("32-14", "from the smaller to the larger, such as 14-32"),
        ("16-16", "from the smaller to the larger"),
        ("7-32", "out of range: 8 to 64"),
        ("14-65", "out of range: 8 to 64"),
        ("14-", "32, 24, 16 or 14x16"),
        ("14x16-32", "32, 24, 16 or 14x16"),
    ],
)
def test_what_is_no_range_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse_vlr_sizes(text)
    assert "\n" not in str(refused.value)


def test_sizes_fill_the_range_evenly_by_their_logarithm_and_some_are_not_square() -> None:
    sizes = [VLRRule("bicubic", VLRRange(14, 32)).size_of(key) for key in KEYS]
    for axis in range(2):
        sides = np.array([size[axis] for size in sizes])
        assert (sides.min(), sides.max()) == (14, 32)
        for limit in (16, 20, 26):
            share = math.log((limit + 1) / 14) / math.log(33 / 14)
            assert np.mean(sides <= limit) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(KEYS)))
    chance = np.log(np.arange(15, 34) / np.arange(14, 33)) / math.log(33 / 14)
    unequal = NOT_SQUARE * (1 - (chance**2).sum())
    assert np.mean([size.width != size.height for size in sizes]) == pytest.approx(unequal, abs=0.03)


def dots_moved(move: Callable[[Pixels], Pixels]) -> list[float]:
    """What `move` does to a face, seen by two dots: right, down, turn (radians) and zoom."""
    y, x = np.mgrid[:128, :128]
    ends = []
    for side in (-30, 30):
        dot = np.round(255 * np.exp(-((x - 63.5 - side) ** 2 + (y - 63.5) ** 2) / 18)).astype(np.uint8)
        weight = move(np.repeat(dot[..., None], 3, axis=2))[..., 0].astype(float)
        ends.append(np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() - 63.5)
    across = ends[1] - ends[0]
    return [*(ends[0] + ends[1]) / 2, math.atan2(across[1], across[0]), np.hypot(*across) / 60 - 1]


def test_a_misaligned_face_is_shifted_turned_and_zoomed_within_its_bounds_and_up_to_them() -> None:
    found = [dots_moved(partial(misaligned, size=VLRSize(16, 32), amount=0.5, key=key)) for key in KEYS[:300]]
    bounds = np.array([0.5 * 128 / 16, 0.5 * 128 / 32, 0.5 * TURN, 0.5 * ZOOM])
    reached = np.abs(found).max(axis=0) / bounds
    assert (reached < 1.02).all()
    assert (reached > 0.95).all()
    assert (np.abs(np.mean(found, axis=0)) < 0.15 * bounds).all()


def test_a_movement_is_of_its_kind_alone_and_as_large_for_every_face_in_all_ways() -> None:
    size = VLRSize(16, 16)
    amounts = {"shift": 1.5, "turn": 10.0, "zoom": 0.15}
    found = {
        kind: np.array([dots_moved(partial(Movement(kind, amount), key=key, size=size)) for key in KEYS[:60]])
        for kind, amount in amounts.items()
    }
    assert np.hypot(*found["shift"][:, :2].T) == pytest.approx(1.5 * 128 / 16, abs=0.1)
    assert np.histogram(np.arctan2(*found["shift"][:, :2].T), 4, (-math.pi, math.pi))[0].min() > 4
    assert np.abs(found["turn"][:, 2]) == pytest.approx(math.radians(10.0), abs=2e-3)
    assert np.abs(found["zoom"][:, 3]) == pytest.approx(0.15, abs=2e-3)
    for kind, own in (("turn", 2), ("zoom", 3)):
        assert 15 < (found[kind][:, own] > 0).sum() < 45
    for kind, none in (("shift", [2, 3]), ("turn", [0, 1, 3]), ("zoom", [0, 1, 2])):
        assert np.abs(found[kind][:, none]).max() < 0.1


def faces(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic").clamp(-1, 1)


def test_mixed_is_one_of_its_degradations_by_their_shares() -> None:
    size, keys = VLRSize(12, 14), KEYS[:240]
    hr = faces(8)[torch.arange(240) % 8]
    made = mixed(hr, size, keys)
    kinds = {"bicubic": bicubic(hr, size), "area": area(hr, size), "realistic": realistic(hr, size, keys)}
    for kind, wanted in kinds.items():
        share = (made == wanted).flatten(1).all(1).double().mean()
        assert share == pytest.approx(MIXED[kind], abs=0.1), kind
    assert torch.stack([(made == each).flatten(1).all(1) for each in kinds.values()]).any(0).all()


def test_area_is_the_mean_of_the_pixels_under_a_vlr_pixel() -> None:
    hr = faces(2)
    levels = ((hr.double() + 1) * 127.5).round()
    wanted = levels.reshape(2, 3, 16, 8, 32, 4).mean(dim=(3, 5)).round()
    assert torch.equal(to_uint8(area(hr, VLRSize(32, 16))).movedim(-1, 1).double(), wanted)


def first_face(root: object) -> Pixels:
    return read_image(read_faces(root, ("val",))[0].path)  # type: ignore[arg-type]


def test_a_rule_gives_the_same_bytes_for_a_key_and_others_for_another(face_set: object) -> None:
    hr, rule = first_face(face_set), VLRRule("mixed", VLRRange(14, 32), 0.5)
    made = [rule(hr, key) for key in KEYS[:30]]
    again = [rule(hr, key) for key in KEYS[29::-1]][::-1]
    assert all(torch.equal(one, other) for one, other in zip(made, again, strict=True))
    assert len({one.numpy().tobytes() for one in made}) == 30
    assert {tuple(one.shape[:2])[::-1] for one in made} == {tuple(rule.size_of(key)) for key in KEYS[:30]}


def test_without_chance_a_rule_is_the_plain_resize(face_set: object) -> None:
    hr, size = first_face(face_set), VLRSize(14, 16)
    wanted = bicubic(to_model_range(torch.from_numpy(hr)[None]), size)[0]
    assert torch.equal(VLRRule("bicubic", size)(hr, (1, 2, 3)), to_uint8(wanted))
    chance = [("bicubic", size, 0.0), ("area", size, 0.0), ("realistic", size, 0.0), ("mixed", size, 0.0)]
    chance += [("bicubic", size, 0.5), ("bicubic", VLRRange(14, 16), 0.0)]
    assert [VLRRule(*each).by_chance for each in chance] == [False, False, True, True, True, True]


def test_a_rule_moves_the_vlr_face_alone_and_each_draw_is_another(face_set: object) -> None:
    rows = read_faces(face_set, ("val",))  # type: ignore[arg-type]
    rule = VLRRule("bicubic", VLRSize(16, 16), 1.0)
    views = [FaceDataset(rows, seed=1, rule=rule, draw=draw)[0] for draw in range(3)]
    plain = FaceDataset(rows, seed=1)[0]
    for view in views:
        assert torch.equal(view["hr_pixels"], plain["hr_pixels"])
    assert len({view["vlr_pixels"].numpy().tobytes() for view in views}) == 3
    assert plain["key"].tolist() == views[0]["key"].tolist() != views[1]["key"].tolist()
    moved = misaligned(read_image(rows[0].path), VLRSize(16, 16), 1.0, views[0]["key"].tolist())
    wanted = bicubic(to_model_range(torch.from_numpy(moved)[None]), VLRSize(16, 16))[0]
    assert torch.equal(views[0]["vlr_pixels"], to_uint8(wanted))
