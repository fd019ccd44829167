"""What components are called, and the pose that they contain: landmarks moved by hand, and synthetic ears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import siegelslopes

from ear_teacher.eigenears.movements import NOTHING, REGIONS, WHOLE, measures, movements, named, relit, repeated_medians
from ear_teacher.eigenears.pose import landmark_pose, pose_by_index, pose_by_landmarks
from ear_teacher.loading import Ears
from earface.data.ear_alignment import EAR_HEIGHT, FRAME_WIDTH, mean_ear, unwidened
from earface.data.ear_contract import EarAligner
from earface.data.ear_networks import EarLandmarker
from earface.data.tables import write_csv
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.ear_rendering import draw_ear


@pytest.fixture(scope="module")
def aligner() -> EarAligner:
    return EarAligner("canonical", EarLandmarker())


def shape(count: int) -> np.ndarray:
    """Landmarks in ear heights."""
    return mean_ear(count) / EAR_HEIGHT


def turned(degrees: float) -> np.ndarray:
    """Clockwise, in pictures, whose y runs down."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("count", [17, 55])
def test_regions_hold_every_landmark_once(count: int) -> None:
    assert sorted(place for members in REGIONS[count].values() for place in members) == [*range(count)]


@pytest.mark.parametrize("count", [17, 55])
def test_a_part_that_moves_alone_is_the_name(count: int) -> None:
    first = shape(count)
    lobe, rim, concha = (np.array(REGIONS[count][part]) for part in ("lobe", "outer helix", "concha"))
    for members, moved, name in (
        (lobe, (0, 0.05), "lobe longer, 5.0%"),
        (lobe, (0, -0.03), "lobe shorter, 3.0%"),
        (concha, (-0.04, 0), "concha further back, 4.0%"),
    ):
        last = first.copy()
        last[members] += moved
        assert named([measures(first, last)], {}) == name
    last = first.copy()
    last[rim, 0] += 0.2 * (first[rim, 0] - first[rim, 0].mean())
    assert named([measures(first, last)], {}) == f"outer helix wider, {0.2 * np.ptp(first[rim, 0]):.1%}"


@pytest.mark.parametrize("count", [17, 55])
def test_what_all_landmarks_do_is_the_whole_ears(count: int) -> None:
    first = shape(count)
    middle = first.mean(axis=0)
    for last, name in (
        (first + np.array([0.05, 0]), f"{WHOLE} further forward, 5.0%"),
        (first + np.array([0, -0.05]), f"{WHOLE} higher, 5.0%"),
        ((first - middle) * 1.1 + middle, f"{WHOLE} larger, 10.0%"),
        ((first - middle) @ turned(8).T + middle, f"{WHOLE} leaning forward, 8.0 degrees"),
        (first, NOTHING),
    ):
        assert named([measures(first, last)], {}) == name
    narrower = named([measures(first, (first - middle) * [0.8, 1] + middle)], {})
    assert narrower.startswith(f"{WHOLE} narrower")
    both = (first - middle) @ turned(8).T + middle
    both[np.array(REGIONS[count]["lobe"])] += [0, 0.04]
    assert named([measures(first, both)], {}) == f"{WHOLE} leaning forward, 8.0 degrees; lobe longer, 4.0%"


def test_what_light_or_chance_does_as_well_is_no_name() -> None:
    first, last = shape(55), shape(55)
    last[np.array(REGIONS[55]["lobe"])] += [0, 0.03]
    found = measures(first, last)
    assert named([found], {("lobe", "y"): 0.02}) == "lobe longer, 3.0%"
    assert named([found], {("lobe", "y"): 0.04}) == NOTHING
    back = measures(last, first)
    assert named([found, back, found, back], {}) == NOTHING  # as often shorter as longer


def test_the_slope_is_scipys_repeated_medians() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=31), rng.normal(size=31)
    assert repeated_medians(x, y) == pytest.approx(siegelslopes(y, x).slope)


def synthetic(view: EarView, **factors: float) -> np.ndarray:
    return draw_ear(EarShape(**factors), view, 128).image  # type: ignore[arg-type]


def test_drawn_ears_that_differ_in_one_factor_are_called_by_it(aligner: EarAligner) -> None:
    views = [EarView(side="r", rotation=turn, light_azimuth=light) for turn, light in ((0, -110), (5, -60), (-5, -150))]
    pairs = [
        ({"lobe_length": -1.0}, {"lobe_length": 1.0}),
        ({"lobe_length": 1.0}, {"lobe_length": -1.0}),
        ({"aspect": 0.70}, {"aspect": 0.54}),
        ({"skin_tone": 0.6}, {"skin_tone": 0.8}),
    ]
    ends = [[(synthetic(view, **first), synthetic(view, **last)) for view in views] for first, last in pairs]
    found, noise = movements([synthetic(view) for view in views], ends, aligner)
    for movement, words in zip(found, ("lobe longer", "lobe shorter", f"{WHOLE} narrower", NOTHING), strict=True):
        assert words in movement.name
        assert movement.landmarks is not None
    assert 0 < noise < 0.01
    assert found[3].landmarks < 0.01 < min(each.landmarks for each in found[:3])


def test_ends_that_show_no_ear_are_not_named(aligner: EarAligner) -> None:
    ear, nothing = synthetic(EarView(side="r")), np.full((128, 128, 3), 90, np.uint8)
    found, _ = movements([ear, ear], [[(nothing, ear)] * 2], aligner)
    assert found[0].name.startswith("not named, the ends show no ear: ")
    assert found[0].landmarks is None


def test_light_changes_brightness_and_gradients_alone() -> None:
    plain = np.full((32, 20, 3), 100, np.uint8)
    darker, brighter, *gradients = relit(plain)
    assert (darker == 90).all()
    assert (brighter == 110).all()
    assert [(int(lit[0, 0, 0]), int(lit[0, -1, 0]), int(lit[-1, 0, 0])) for lit in gradients] == [
        (110, 90, 110),
        (90, 110, 90),
        (110, 110, 90),
        (90, 90, 110),
    ]


@pytest.mark.parametrize("count", [17, 55])
def test_pose_is_that_of_landmarks_that_were_turned_and_foreshortened(count: int) -> None:
    foreshortened = np.array([[np.cos(np.radians(30)), 0.1], [0, 1]])
    points = 80 * mean_ear(count) @ (turned(12) @ foreshortened).T + [7, -3]
    np.testing.assert_allclose(landmark_pose(points), [12, np.log(np.cos(np.radians(30))), 0.1], atol=1e-9)


def test_a_score_of_the_heads_turn_is_pose_and_one_of_chance_is_not(aligner: EarAligner) -> None:
    rng = np.random.default_rng(0)
    turns = np.linspace(-25, 25, 60)
    images = np.stack([synthetic(EarView(side="lr"[row % 2], rotation=turn)) for row, turn in enumerate(turns)])
    in_picture = np.where(np.arange(60) % 2, turns, -turns)  # clockwise; a left ear's counts mirrored
    ears = Ears("", images, [str(row) for row in range(60)], None, 0)
    found, count = pose_by_landmarks(np.stack([turns, in_picture, rng.normal(size=60)], axis=1), ears, aligner)
    assert count >= 55
    assert found is not None
    assert found[0] > 0.9
    assert max(found[1:]) < 0.3


def test_poses_are_read_from_the_index_beside_the_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    yaw, chance = rng.integers(-2, 3, 200), rng.normal(size=200)
    rows = [(f"a/{row}.png", value) for row, value in enumerate(yaw.tolist())]
    write_csv(tmp_path / "index.csv", ("file", "yaw"), rows)
    names = [str(tmp_path / file) for file, _ in rows]
    ears = Ears(str(tmp_path / "x.npy"), np.zeros((200, 1, 1, 3), np.uint8), names, None, 0)
    found = pose_by_index(np.stack([np.abs(yaw) ** 2.0, chance], axis=1), ears)
    assert found is not None
    assert found[0] == pytest.approx(1.0)
    assert found[1] < 0.1
    write_csv(tmp_path / "index.csv", ("file", "jaw"), rows)
    assert pose_by_index(chance[:, None], ears) is None


def test_a_canonical_square_gets_its_proportions_back() -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[:, 32:] = 200
    frame = unwidened(square)
    assert frame.shape == (64, 64 * FRAME_WIDTH, 3)
    assert (frame[:, :19] == 0).all()
    assert (frame[:, 21:] == 200).all()
