"""Synthetic ears: known factors, landmarks on what is rendered, and a set that depends on its seed alone."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data.npy import read_teacher_npy
from earface.synthetic import ear_rendering
from earface.synthetic.draw_ears import main
from earface.synthetic.ear_anatomy import EAR_LANDMARKS, relief
from earface.synthetic.ear_factors import FACTOR_GROUPS, RANGES, EarShape, EarView, sample_shape, sample_view
from earface.synthetic.ear_rendering import draw_ear
from earface.synthetic.ear_set import EarSet, synthesize_ears, write_ear_set
from tests.support.output import refusal, run

BARE = EarView(hair_cover=0, hair_length=0, head_extent=1, noise=0, blur=0)
TINY = EarSet(subjects=4, images_per_subject=2, image_size=32, seed=7)


def landmark(name: str) -> int:
    return EAR_LANDMARKS.index(name)


def extreme(owner: type, group: str, high: bool, **fixed: object) -> dict[str, object]:
    """Every factor of a group at one end of its range."""
    names = {field.name for field in dataclasses.fields(owner)}
    return {name: RANGES[name][high] for name in FACTOR_GROUPS[group] if name in names and name in RANGES} | fixed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ears") / "set"
    write_ear_set(out, TINY, val_fraction=0.25)
    return out


def test_a_picture_is_the_same_alone_and_in_any_order():
    pairs = [(1, 0), (2, 1), (1, 1), (3, 0)]
    draw = {pair: draw_ear(sample_shape(5, pair[0]), sample_view(5, *pair), 64).image for pair in pairs}
    ear_rendering._layers.cache_clear()
    relief.cache_clear()
    for pair in reversed(pairs):
        assert np.array_equal(draw_ear(sample_shape(5, pair[0]), sample_view(5, *pair), 64).image, draw[pair])


def test_seed_subject_and_picture_each_make_a_difference():
    assert sample_shape(5, 1) == sample_shape(5, 1)
    assert len({sample_shape(seed, subject) for seed in (5, 6) for subject in range(20)}) == 40
    assert len({sample_view(seed, s, i) for seed in (5, 6) for s in range(4) for i in range(5)}) == 40
    assert {sample_view(5, 1, i).side for i in range(20)} == {"l", "r"}


def test_sampled_factors_use_their_range():
    shapes = [dataclasses.asdict(sample_shape(1, subject)) for subject in range(200)]
    for name in FACTOR_GROUPS["shape"]:
        low, high = RANGES[name]
        values = np.array([shape[name] for shape in shapes])
        assert np.ptp(values) > 0.75 * (high - low), name


def test_every_factor_belongs_to_one_group():
    names = [name for group in FACTOR_GROUPS.values() for name in group]
    fields = [field.name for owner in (EarShape, EarView) for field in dataclasses.fields(owner)]
    assert sorted(names) == sorted(fields)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("size", [32, 47, 128, 512])
def test_picture_form_at_every_size(size: int):
    picture = draw_ear(EarShape(), EarView(), size)
    assert picture.image.shape == (size, size, 3)
    assert picture.image.dtype == np.uint8
    assert (picture.landmarks.shape, picture.landmarks.dtype) == ((17, 2), np.float32)
    assert (picture.visibility.shape, picture.visibility.dtype) == ((17,), np.uint8)
    assert (picture.bbox.shape, picture.bbox.dtype) == ((4,), np.float32)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_labels_scale_with_the_size(size: int):
    reference, other = draw_ear(EarShape(), EarView(yaw=15), 128), draw_ear(EarShape(), EarView(yaw=15), size)
    scale = 128 / size
    np.testing.assert_allclose((other.landmarks + 0.5) * scale - 0.5, reference.landmarks, atol=0.5)
    np.testing.assert_allclose(other.bbox[2:] * scale, reference.bbox[2:], atol=0.5)


def test_landmarks_lie_in_the_box_and_the_box_in_the_picture():
    rng = np.random.default_rng(0)
    for subject in range(60):
        pose = {name: RANGES[name][int(rng.integers(2))] for name in FACTOR_GROUPS["pose"] if name != "side"}
        shape = {name: RANGES[name][int(rng.integers(2))] for name in FACTOR_GROUPS["shape"]}
        view = dataclasses.replace(sample_view(3, subject, 0), **pose)
        picture = draw_ear(EarShape(**shape), view, 32)
        low, high = picture.bbox[:2], picture.bbox[:2] + picture.bbox[2:]
        assert (picture.landmarks >= low - 1e-3).all()
        assert (picture.landmarks <= high + 1e-3).all()
        assert (low >= -0.5).all()
        assert (high <= 31.5).all()


@pytest.mark.parametrize("side", ["l", "r"])
@pytest.mark.parametrize("rotation", [-30.0, 0.0, 25.0])
def test_box_is_that_of_the_silhouette(side: str, rotation: float):
    """Without yaw and pitch: every grid point inside the silhouette, moved by hand."""
    shape = sample_shape(2, 3)
    ear = relief(shape, 200)
    rows, columns = np.nonzero(ear.silhouette > 0)
    x, y = columns / 200 - 0.52, rows / 200 - 0.62
    turn = np.radians(rotation)
    px = 128 * 0.7 * (np.cos(turn) * x - np.sin(turn) * y) + 128 * 0.02
    py = 63.5 + 128 * 0.7 * (np.sin(turn) * x + np.cos(turn) * y)
    px = 63.5 + px if side == "l" else 63.5 - px
    view = EarView(side=side, rotation=rotation, scale=0.7, shift_x=0.02)
    x0, y0, width, height = draw_ear(shape, view, 128).bbox
    expected = (px.min(), py.min(), np.ptp(px), np.ptp(py))
    np.testing.assert_allclose((x0, y0, width, height), expected, atol=1.0)


@pytest.mark.parametrize("yaw", [-35.0, 0.0, 35.0])
def test_box_is_where_the_picture_shows_the_rim(yaw: float):
    """Blood reddens rim and lobe alone: where two pictures differ, the ear's back, top and bottom end."""
    view = dataclasses.replace(BARE, yaw=yaw, pitch=10.0)
    shape = EarShape(lobe_attachment=0, skin_tone=0.8)
    picture = draw_ear(shape, dataclasses.replace(view, flush=0), 256)
    flushed = draw_ear(shape, dataclasses.replace(view, flush=1), 256)
    rows, columns = np.nonzero(np.abs(picture.image.astype(int) - flushed.image).max(axis=2) > 6)
    x, y, width, height = picture.bbox
    assert columns.max() == pytest.approx(x + width, abs=2)
    assert rows.min() == pytest.approx(y, abs=2)
    assert rows.max() == pytest.approx(y + height, abs=3)


def test_a_right_ear_mirrors_a_left_one():
    view = dataclasses.replace(BARE, rotation=12.0, yaw=10.0, shift_x=0.03, light_azimuth=-60.0)
    left = draw_ear(EarShape(), view, 128)
    right = draw_ear(EarShape(), dataclasses.replace(view, side="r", light_azimuth=-120.0), 128)
    np.testing.assert_allclose(right.landmarks[:, 0], 127 - left.landmarks[:, 0], atol=1e-3)
    np.testing.assert_allclose(right.landmarks[:, 1], left.landmarks[:, 1], atol=1e-3)
    difference = np.abs(right.image[:, ::-1].astype(int) - left.image)
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 6


def test_a_left_ear_has_the_face_on_the_images_left():
    picture = draw_ear(EarShape(), BARE, 128)
    assert picture.landmarks[landmark("tragus"), 0] < picture.landmarks[landmark("helix_posterior"), 0] - 20


@pytest.mark.parametrize("yaw", [-35.0, 20.0, 35.0])
def test_pixels_and_landmarks_agree_on_where_the_ear_is(yaw: float):
    """The pixel at a landmark looks up the landmark's own place on the ear, parallax included."""
    ear = relief(EarShape(protrusion=1.0, concha_depth=1.0), 96)
    pose = ear_rendering.Pose(EarView(yaw=yaw, pitch=-12.0, rotation=10.0), ear, 128)
    x, y = pose.unproject(ear, 128)
    at = np.rint(pose.project(ear, ear.landmarks)).astype(int)
    error = np.hypot(x[at[:, 1], at[:, 0]] - ear.landmarks[:, 0], y[at[:, 1], at[:, 0]] - ear.landmarks[:, 1])
    assert error.max() * pose.pixels_per_height < 1.5


@pytest.mark.parametrize("subject", range(8))
def test_landmarks_sit_on_their_structures(subject: int):
    ear = relief(sample_shape(9, subject), 128)
    height = dict(zip(EAR_LANDMARKS, ear.height_at(ear.landmarks), strict=True))
    for hollow in ("cymba_concha", "cavum_concha", "intertragic_notch"):
        for ridge in ("antihelix_body", "antihelix_bifurcation", "tragus", "antitragus"):
            assert height[hollow] < height[ridge]
    assert height["triangular_fossa"] < height["antihelix_bifurcation"]
    assert height["cavum_concha"] < height["helix_crus"]
    place = dict(zip(EAR_LANDMARKS, ear.landmarks, strict=True))
    assert place["helix_superior"][1] < place["antihelix_bifurcation"][1] < place["antitragus"][1]
    assert place["antitragus"][1] < place["lobule_inferior"][1]
    assert place["tragus"][0] < place["cavum_concha"][0] < place["antihelix_body"][0] < place["helix_posterior"][0]


@pytest.mark.parametrize("name", ["helix_superior", "darwin_point", "helix_posterior", "antihelix_body"])
def test_ridge_landmarks_are_higher_than_both_sides(name: str):
    ear = relief(EarShape(), 200)
    at = ear.landmarks[landmark(name)]
    outward = at / np.linalg.norm(at)
    inner, top, outer = ear.height_at(np.stack([at - 0.06 * outward, at, at + 0.06 * outward]).astype(np.float32))
    assert top > inner
    assert top > outer


def test_the_concha_is_darker_than_the_antihelix():
    for subject in range(5):
        picture = draw_ear(sample_shape(4, subject), dataclasses.replace(BARE, light_elevation=80.0), 128)
        at = np.rint(picture.landmarks).astype(int)
        grey = picture.image.mean(axis=2)[at[:, 1], at[:, 0]]
        assert grey[landmark("cavum_concha")] < 0.85 * grey[landmark("antihelix_body")]


@pytest.mark.parametrize("group", ["light", "skin", "hair", "occlusion", "background", "camera"])
def test_nuisance_moves_no_landmark_but_changes_pixels(group: str):
    low = draw_ear(EarShape(**extreme(EarShape, group, False)), EarView(**extreme(EarView, group, False)), 96)
    high = draw_ear(EarShape(**extreme(EarShape, group, True)), EarView(**extreme(EarView, group, True)), 96)
    assert np.array_equal(low.landmarks, high.landmarks)
    assert np.array_equal(low.bbox, high.bbox)
    assert np.abs(low.image.astype(int) - high.image).mean() > 1


@pytest.mark.parametrize("name", [n for n in (*FACTOR_GROUPS["shape"], *FACTOR_GROUPS["pose"]) if n != "side"])
def test_each_factor_of_shape_and_pose_changes_the_picture(name: str):
    owner = EarShape if name in FACTOR_GROUPS["shape"] else EarView
    images = []
    for value in RANGES[name]:
        shape = EarShape(**{name: value}) if owner is EarShape else EarShape()
        view = dataclasses.replace(BARE, **{name: value}) if owner is EarView else BARE
        images.append(draw_ear(shape, view, 96).image.astype(int))
    assert np.abs(images[0] - images[1]).max() > 20


def test_the_background_stays_outside_the_ear():
    view = dataclasses.replace(BARE, head_extent=0.0, yaw=10.0)
    pictures = [draw_ear(EarShape(), dataclasses.replace(view, background_value=v), 128) for v in (0.1, 0.9)]
    changed = np.abs(pictures[0].image.astype(int) - pictures[1].image).max(axis=2) > 2
    assert changed.mean() > 0.1
    at = np.rint(pictures[0].landmarks).astype(int)
    interior = [i for i, name in enumerate(EAR_LANDMARKS) if name != "lobule_inferior"]
    assert not changed[at[interior, 1], at[interior, 0]].any()


def test_what_covers_a_landmark_marks_it_occluded():
    assert (draw_ear(EarShape(), BARE, 128).visibility == 2).all()
    combed = draw_ear(EarShape(), dataclasses.replace(BARE, hair_cover=1.0), 128).visibility
    assert combed[landmark("helix_superior")] == 1
    assert combed[landmark("lobule_inferior")] == 2
    plugged = draw_ear(EarShape(), dataclasses.replace(BARE, earbud=0.3), 128).visibility
    assert plugged[landmark("cavum_concha")] == 1
    assert plugged[landmark("helix_superior")] == 2
    assert draw_ear(EarShape(), dataclasses.replace(BARE, earring=0.9), 128).visibility.min() >= 1
    assert draw_ear(EarShape(), dataclasses.replace(BARE, temple=1.0), 128).visibility.min() >= 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarShape(aspect=2.0),
        lambda: EarShape(helix_curl=float("nan")),
        lambda: EarView(side="left"),
        lambda: EarView(yaw=90.0),
        lambda: sample_shape(-1, 0),
        lambda: sample_view(1, 2, 2**40),
        lambda: draw_ear(EarShape(), EarView(), 16),
        lambda: EarSet(subjects=0),
    ],
)
def test_values_out_of_range_are_input_errors(make):
    with pytest.raises(InputError, match="must"):
        make()


def test_set_on_disk_is_whole_and_consistent(tiny: Path):
    images, subjects = synthesize_ears(TINY)
    rows = list(csv.DictReader((tiny / "index.csv").open(encoding="utf-8")))
    assert [row["subject"] for row in rows] == subjects
    assert len(list((tiny / "images").iterdir())) == len(rows) == len(images) == 8
    for row, image in zip(rows, images, strict=True):
        assert np.array_equal(cv2.cvtColor(cv2.imread(str(tiny / row["file"])), cv2.COLOR_BGR2RGB), image)
        assert set(FACTOR_GROUPS["shape"]) | set(FACTOR_GROUPS["light"]) <= set(row)
    same = [tuple(row[name] for name in FACTOR_GROUPS["shape"]) for row in rows if row["subject"] == "S0002"]
    assert len(same) == 2
    assert len(set(same)) == 1


def test_factors_in_the_index_give_the_picture_again(tiny: Path):
    row = next(csv.DictReader((tiny / "index.csv").open(encoding="utf-8")))

    def read(owner: type) -> object:
        return owner(
            **{
                f.name: row[f.name] if f.name == "side" else type(f.default)(row[f.name])
                for f in dataclasses.fields(owner)
            }
        )

    assert np.array_equal(draw_ear(read(EarShape), read(EarView), 32).image, synthesize_ears(TINY)[0][0])


def test_teacher_files_are_subject_disjoint_and_read_back(tiny: Path):
    train, val = (read_teacher_npy(tiny / name) for name in ("train_teacher.npy", "val_teacher.npy"))
    assert not set(train.subjects) & set(val.subjects)
    assert set(train.subjects) | set(val.subjects) == {"S0001", "S0002", "S0003", "S0004"}
    for data in (train, val):
        assert all(path.is_file() for path in data.image_paths)
        assert data.bboxes.shape == (len(data.image_paths), 4)
        assert data.landmarks.shape == (len(data.image_paths), 17, 2)
        assert [path.name[:5] for path in data.image_paths] == list(data.subjects)


def test_coco_file_holds_the_keypoints(tiny: Path):
    coco = json.loads((tiny / "landmarks.json").read_text(encoding="utf-8"))
    assert coco["categories"][0]["keypoints"] == list(EAR_LANDMARKS)
    assert len(coco["images"]) == len(coco["annotations"]) == 8
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    subjects = {image["id"]: image["subject"] for image in coco["images"]}
    for annotation in coco["annotations"]:
        subject, index = (int(part) for part in files[annotation["image_id"]][8:-4].split("_"))
        picture = draw_ear(sample_shape(7, subject), sample_view(7, subject, index), 32)
        points = np.array(annotation["keypoints"]).reshape(17, 3)
        np.testing.assert_allclose(points[:, :2], picture.landmarks, atol=1e-3)
        assert points[:, 2].tolist() == picture.visibility.tolist()
        np.testing.assert_allclose(annotation["bbox"], np.add(picture.bbox, [0.5, 0.5, 0, 0]), atol=1e-3)
        assert annotation["side"] == sample_view(7, subject, index).side
        assert subjects[annotation["image_id"]] == f"S{subject:04d}"


@pytest.mark.runs
def test_files_do_not_depend_on_workers(tiny: Path, tmp_path: Path):
    write_ear_set(tmp_path, TINY, val_fraction=0.25, num_workers=2)
    for path in sorted(p for p in tiny.rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(tiny)).read_bytes() == path.read_bytes(), path.name


def test_the_command_writes_a_set_and_an_image_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ("--subjects", 2, "--images-per-subject", 1, "--image-size", 32, "--val-fraction", 0.5, "--num-workers", 1)
    out, grid = tmp_path / "set", tmp_path / "grid.png"
    code, said, _ = run(main, capsys, "--out", out, *small, "--image-grid", grid)
    assert code == 0
    assert grid.read_bytes().startswith(b"\x89PNG")
    for name in ("images", "index.csv", "landmarks.json", "train_teacher.npy", "val_teacher.npy", "grid.png"):
        assert name in said
    assert run(main, capsys, "--out", out, *small)[0] == 2
    (out / "images" / "S0009_000.png").write_bytes(b"of an earlier, larger set")
    (out / "mine.txt").write_text("stays")
    assert run(main, capsys, "--out", out, *small, "--overwrite")[0] == 0
    assert sorted(path.name for path in (out / "images").iterdir()) == ["S0001_000.png", "S0002_000.png"]
    assert (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--subjects", 0), "--subjects 0: must be at least 1"),
        (("--image-size", 20), "--image-size 20: must be at least 32"),
        (("--val-fraction", 1.5), "--val-fraction 1.5: must be above 0"),
        (("--workers", 0), "--num-workers 0: must be at least 1"),  # earlier spellings
        (("--sheet", "grid.txt"), "--image-grid grid.txt: give a name that ends in .png"),
        (("--seed", -1), "--seed -1: must be a whole number from 0"),
        (("--subjects", "many"), "--subjects"),
        (("--size", 64), "--size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[object, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert named in refusal(main, capsys, "--out", tmp_path / "set", *arguments)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_leaves_no_teacher_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, text: str, **_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    small = ("--subjects", 2, "--images-per-subject", 1, "--image-size", 32, "--val-fraction", 0.5, "--num-workers", 1)
    code, _, said = run(main, capsys, "--out", tmp_path / "set", *small)
    assert code == 2
    assert "No space left" in said
    assert not list((tmp_path / "set").glob("*.npy"))
    assert not (tmp_path / "set" / "landmarks.json").exists()
