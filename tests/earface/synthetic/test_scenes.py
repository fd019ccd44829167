"""Synthetic photographs: labels lie on what is rendered, and a set depends on its seed alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from earface.data.coco import read_coco
from earface.data.convert_annotations import main as convert
from earface.data.convert_annotations import split_paths
from earface.data.images import image_size
from earface.synthetic import ear_rendering
from earface.synthetic.canvas import Canvas, Frame
from earface.synthetic.draw_scenes import main
from earface.synthetic.ear_anatomy import EAR_LANDMARKS, relief
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.ear_rendering import draw_ear
from earface.synthetic.heads import PaintedEar, Person, paint_ear
from earface.synthetic.scene_rendering import SCENES_PER_GROUP, DrawnScene, draw_scene, photographed, visible_ears
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.support.output import refusal, run

BARE = EarView(hair_cover=0, hair_length=0)
TINY = SceneSet(photographs=10, width=96, height=64, seed=3)


@pytest.fixture(scope="module")
def scenes() -> list[DrawnScene]:
    return [draw_scene(5, index, 480, 360) for index in range(96)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "set"
    write_scene_set(out, TINY)
    return out


def bare_person(ear_height: float) -> Person:
    return Person(np.random.default_rng(0), EarShape(), BARE, ear_height, frontal=False)


def painted(unit: float, mirrored: bool = False) -> tuple[Canvas, PaintedEar]:
    """One ear alone on grey, 200x200."""
    canvas = Canvas(np.full((200, 200, 3), 90, np.float32))
    ear = paint_ear(canvas, bare_person(unit), Frame((97.3, 101.8), unit, 0.2, 0.8, mirrored), 1, alone=True)
    return canvas, ear


def test_a_scene_is_the_same_alone_and_in_any_order():
    first = {index: draw_scene(5, index, 120, 90) for index in (3, 4, 17)}
    ear_rendering._layers.cache_clear()
    relief.cache_clear()
    for index in (17, 4, 3):
        again = draw_scene(5, index, 120, 90)
        assert np.array_equal(again.image, first[index].image)
        assert np.array_equal(again.keypoints, first[index].keypoints)
    assert not np.array_equal(draw_scene(6, 3, 120, 90).image, first[3].image)


def test_scenes_hold_ears_of_all_sizes_sides_and_numbers(scenes: list[DrawnScene]):
    heights = np.concatenate([scene.boxes[:, 3] for scene in scenes])
    assert heights.min() < 14
    assert heights.max() > 150
    assert {len(scene.boxes) for scene in scenes} >= {0, 1, 2}
    assert {side for scene in scenes for side in scene.sides} == {"l", "r"}
    assert {v for scene in scenes for v in scene.keypoints[..., 2].ravel()} == {0, 1, 2}


def test_boxes_and_labelled_landmarks_lie_in_the_picture_and_together(scenes: list[DrawnScene]):
    for scene in scenes:
        assert scene.image.shape == (360, 480, 3)
        assert scene.keypoints.shape == (len(scene.boxes), len(EAR_LANDMARKS), 3)
        for (x, y, width, height), points in zip(scene.boxes, scene.keypoints, strict=True):
            assert min(x, y) >= 0
            assert x + width <= 480 + 1e-3
            assert y + height <= 360 + 1e-3
            assert min(width, height) > 1
            seen = points[points[:, 2] == 2, :2] + 0.5
            assert (seen >= np.array([x, y]) - 1.5).all()
            assert (seen <= np.array([x + width, y + height]) + 1.5).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("unit", [30.0, 60.0, 130.0])
@pytest.mark.parametrize("name", ["tragus", "darwin_point", "cavum_concha"])
def test_what_belongs_to_a_landmark_is_painted_where_the_landmark_is(unit: float, mirrored: bool, name: str):
    canvas, person = Canvas(np.zeros((200, 200, 3))), bare_person(unit)
    number, size = EAR_LANDMARKS.index(name), len(person.ear.image)
    y, x = np.mgrid[:size, :size]
    at = person.ear.landmarks[number]
    dot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * (0.03 * size) ** 2))
    person.ear = dataclasses.replace(
        person.ear,
        image=np.repeat(dot.astype(np.uint8)[..., None], 3, axis=2),
        auricle=np.ones((size, size), np.float32),
    )
    ear = paint_ear(canvas, person, Frame((97.3, 101.8), unit, 0.2, 0.8, mirrored), 1, alone=True)
    weight = np.clip(canvas.image[..., 0] - 20, 0, None)
    y, x = np.mgrid[:200, :200]
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    np.testing.assert_allclose(found, ear.landmarks[number], atol=0.2)
    assert ear.side == ("r" if mirrored else "l")


@pytest.mark.parametrize("unit", [20.0, 60.0, 130.0])
def test_the_box_is_that_of_the_pixels_which_the_ear_changes(unit: float):
    canvas, ear = painted(unit)
    changed = np.abs(canvas.image - 90).max(axis=2) > 8
    (x, y, width, height), *_ = visible_ears(canvas, [ear])[0]
    columns, rows = np.flatnonzero(changed.any(axis=0)), np.flatnonzero(changed.any(axis=1))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    np.testing.assert_allclose((x, y, x + width, y + height), edges, atol=1.6)


def test_what_covers_an_ear_hides_its_landmarks_and_cuts_its_box():
    canvas, ear = painted(120.0)
    (x, _, width, _), *_ = visible_ears(canvas, [ear])[0]
    assert (visible_ears(canvas, [ear])[1][..., 2] == 2).all()
    edge = round(x + 0.6 * width)
    canvas.shape(
        np.array([[edge, 0], [199, 0], [199, 199], [edge, 199]], np.float32), np.array([0, 200, 0], np.float32)
    )
    boxes, keypoints, _ = visible_ears(canvas, [ear])
    assert boxes[0, 0] == x
    assert boxes[0, 0] + boxes[0, 2] == pytest.approx(edge, abs=1)
    behind = keypoints[0, :, 0] > edge + 2
    before = keypoints[0, :, 0] < edge - 2
    assert behind.any()
    assert before.any()
    assert (keypoints[0, behind, 2] == 1).all()
    assert (keypoints[0, before, 2] == 2).all()
    canvas.shape(np.array([[x + 8, 0], [199, 0], [199, 199], [x + 8, 199]], np.float32), np.zeros(3, np.float32))
    assert len(visible_ears(canvas, [ear])[0]) == 0


def test_an_ear_cut_by_the_border_keeps_what_is_inside():
    canvas = Canvas(np.full((100, 100, 3), 90, np.float32))
    ear = paint_ear(canvas, bare_person(80.0), Frame((5.0, 50.0), 80.0), 1, alone=True)
    boxes, keypoints, _ = visible_ears(canvas, [ear])
    assert boxes[0, 0] == 0
    assert boxes[0, 2] == pytest.approx(ear.outline[:, 0].max() + 0.5, abs=1e-3)
    outside = ear.landmarks[:, 0] < -0.5
    assert outside.any()
    assert (keypoints[0, outside] == 0).all()
    assert (keypoints[0, ~outside, 2] > 0).all()


def test_the_auricle_of_a_synthetic_ear_is_what_its_outline_encloses():
    for size in (40, 128):
        ear = draw_ear(EarShape(), BARE, size)
        cells = [(x, y) for y in range(size) for x in range(size)]
        enclosed = np.array([cv2.pointPolygonTest(ear.outline, cell, False) >= 0 for cell in cells]).reshape(size, size)
        covered = ear.auricle > 0.5
        assert (covered & enclosed).sum() > 0.97 * (covered | enclosed).sum()


def test_noise_reaches_beyond_its_tile():
    picture = photographed(np.full((40, 1100, 3), 128, np.float32), np.random.default_rng(0))
    assert picture.shape == (40, 1100, 3)


def test_set_on_disk_reads_back(tiny: Path):
    annotations = read_coco(tiny / "annotations.json")
    assert annotations.landmark_names == EAR_LANDMARKS
    assert len(annotations) == 10
    for index, photograph in enumerate(annotations.photographs):
        scene = draw_scene(3, index, 96, 64)
        assert image_size(photograph.path) == photograph.size == (96, 64)
        np.testing.assert_allclose(photograph.boxes, scene.boxes, atol=1e-3)
        np.testing.assert_allclose(photograph.keypoints, scene.keypoints, atol=1e-3)
        assert photograph.subject == f"G{index // SCENES_PER_GROUP:06d}"
        assert photograph.sides == scene.sides


@pytest.mark.runs
def test_files_do_not_depend_on_workers(tiny: Path, tmp_path: Path):
    write_scene_set(tmp_path, TINY, num_workers=2)
    for path in sorted(path for path in tiny.rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(tiny)).read_bytes() == path.read_bytes(), path.name


def test_a_set_splits_by_subject(tiny: Path, tmp_path: Path):
    out = tmp_path / "split.json"
    given = ("--coco", str(tiny / "annotations.json"), "--out", str(out), "--split-by", "subject")
    assert convert([*given, "--val-fraction", "0.5"]) == 0
    assert {len(read_coco(path)) for path in split_paths(out)} == {SCENES_PER_GROUP, 10 - SCENES_PER_GROUP}


def test_the_command_writes_a_set_and_an_image_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ("--photographs", 5, "--width", 80, "--height", 64, "--num-workers", 1)
    out, grid = tmp_path / "set", tmp_path / "grid.png"
    code, said, _ = run(main, capsys, "--out", out, *small, "--image-grid", grid)
    assert code == 0
    assert "photographs per second" in said
    assert image_size(grid) == (320, 128)
    code, _, refused = run(main, capsys, "--out", out, *small)
    assert code == 2
    assert "--overwrite" in refused
    (out / "images" / "000009.jpg").write_bytes(b"of an earlier, larger set")
    (out / "mine.txt").write_text("stays")
    assert run(main, capsys, "--out", out, *small, "--overwrite")[0] == 0
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"{index:06d}.jpg" for index in range(5)]
    assert (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--photographs", 0), "--photographs 0: must be at least 1"),
        (("--width", 20), "--width 20: must be at least 64"),
        (("--height", 9000), "--height 9000: must be at least 64 and at most 2048"),
        (("--seed", -1), "--seed -1: must be a whole number from 0"),
        (("--workers", 0), "--num-workers 0: must be at least 1"),  # earlier spellings
        (("--sheet", "grid.txt"), "--image-grid grid.txt: give a name that ends in .png"),
        (("--ears", 3), "--ears"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[object, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert named in refusal(main, capsys, "--out", tmp_path / "set", *arguments)
    assert not (tmp_path / "set").exists()
