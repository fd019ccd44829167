"""Synthetic faces: known identities and factors, landmarks in place, and a set that depends on its seed alone."""

from __future__ import annotations

import csv
import dataclasses
import errno
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.feature import hog
from skimage.transform import SimilarityTransform

from earface.core.errors import InputError
from earface.data.multipie import CAMERA_YAW, MultiPieName
from earface.synthetic import face_anatomy, face_hair, face_parts, face_skin
from earface.synthetic.draw_faces import main
from earface.synthetic.face_anatomy import FACE_LANDMARKS, Expression, Face
from earface.synthetic.face_factors import (
    FACTOR_GROUPS,
    GALLERY,
    RANGES,
    FaceShape,
    FaceView,
    ViewCode,
    flash_direction,
    sample_shape,
    sample_view,
)
from earface.synthetic.face_raster import EMPTY, grid_triangles, rasterise
from earface.synthetic.face_rendering import background, draw_face
from earface.synthetic.face_set import FaceSet, synthesize_faces, view_codes, write_face_set
from tests.support.output import refusal, run

TEMPLATE = np.array(  # ArcFace's, for 112 pixels
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
LIT = FaceView(noise=0, blur=0, flash=0.6, flash_elevation=0, ambient=0.3)
BALD = FaceShape(hair_length=0)
TINY = FaceSet(subjects=4, images_per_subject=3, image_size=32, seed=7)


def landmark(name: str) -> int:
    return FACE_LANDMARKS.index(name)


def changed(shape: FaceShape, view: FaceView, name: str, size: int = 128) -> np.ndarray:
    """(H, W): how much a factor of either at its two ends makes of the picture."""
    images = []
    for value in RANGES[name]:
        owner, other = (shape, view) if name in {f.name for f in dataclasses.fields(FaceShape)} else (view, shape)
        pair = (dataclasses.replace(owner, **{name: value}), other)
        images.append(draw_face(*(pair if owner is shape else pair[::-1]), size).image.astype(int))
    return np.abs(images[0] - images[1]).max(axis=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "set"
    write_face_set(out, TINY)
    return out


def test_a_picture_is_the_same_alone_and_in_any_order():
    pairs = [(1, GALLERY), (2, ViewCode("02", "03", "080", "00")), (1, ViewCode(camera="190")), (3, GALLERY)]

    def draw(subject: int, code: ViewCode) -> np.ndarray:
        return draw_face(sample_shape(5, subject), sample_view(5, subject, code), 64).image

    first = {pair: draw(*pair) for pair in pairs}
    for cached in (
        face_anatomy.resting_relief, face_anatomy.smiling_relief, face_hair.shell, face_parts.ears,
        face_skin._resting_skin,
    ):  # fmt: skip
        cached.cache_clear()
    for pair in reversed(pairs):
        assert np.array_equal(draw(*pair), first[pair])


def test_seed_subject_and_code_each_make_a_difference():
    assert sample_shape(5, 1) == sample_shape(5, 1)
    assert len({sample_shape(seed, subject) for seed in (5, 6) for subject in range(20)}) == 40
    codes = [GALLERY, *(ViewCode(**{name: "02"}) for name in ("session", "recording", "illumination"))]
    codes.append(ViewCode(camera="050"))
    assert len({sample_view(seed, s, code) for seed in (5, 6) for s in range(4) for code in codes}) == 40


def test_sampled_factors_use_their_range():
    shapes = [dataclasses.asdict(sample_shape(1, subject)) for subject in range(200)]
    for name in FACTOR_GROUPS["shape"]:
        low, high = RANGES[name]
        assert np.ptp([shape[name] for shape in shapes]) > 0.75 * (high - low), name


def test_every_factor_belongs_to_one_group():
    names = [name for group in FACTOR_GROUPS.values() for name in group]
    fields = [field.name for owner in (FaceShape, FaceView) for field in dataclasses.fields(owner)]
    assert sorted(names) == sorted(fields)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("size", [32, 47, 128, 512])
def test_picture_form_at_every_size(size: int):
    picture = draw_face(FaceShape(), FaceView(), size)
    assert (picture.image.shape, picture.image.dtype) == ((size, size, 3), np.uint8)
    assert (picture.landmarks.shape, picture.landmarks.dtype) == ((5, 2), np.float32)
    assert (picture.visibility.shape, picture.visibility.dtype) == ((5,), np.uint8)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_pictures_of_other_sizes_show_the_same(size: int):
    view = dataclasses.replace(LIT, yaw=20)
    reference, other = draw_face(FaceShape(), view, 128), draw_face(FaceShape(), view, size)
    np.testing.assert_allclose(other.landmarks * 128 / size, reference.landmarks, atol=0.05)
    to_other = np.diag([size / 128, size / 128, 1])[:2]  # as the landmarks, whole numbers being pixel centres
    moved = cv2.warpAffine(other.image, to_other, (128, 128), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    blurred = [cv2.GaussianBlur(image.astype(float), (0, 0), 4)[8:-8, 8:-8] for image in (moved, reference.image)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 1.5


@pytest.mark.parametrize("yaw", [-90.0, -45.0, 0.0, 30.0, 90.0])
def test_aligning_a_picture_again_by_its_landmarks_leaves_it_where_it_is(yaw: float):
    for subject in range(3):
        view = dataclasses.replace(sample_view(3, subject), yaw=yaw, roll=20.0)
        points = draw_face(sample_shape(3, subject), view, 64).landmarks
        again = SimilarityTransform.from_estimate(points.astype(float), TEMPLATE * (64 / 112))
        np.testing.assert_allclose(again.params, np.eye(3), atol=2e-3 * 64)
        assert again.scale == pytest.approx(1, abs=1e-3)
        assert again.rotation == pytest.approx(0, abs=1e-3)


def test_frontal_landmarks_are_near_the_template():
    for subject in range(12):
        points = draw_face(sample_shape(3, subject), sample_view(3, subject), 32).landmarks * 128 / 32
        assert np.sqrt(((points - TEMPLATE * 128 / 112) ** 2).sum(1).mean()) < 6


@pytest.mark.parametrize("yaw", [-30.0, 0.0, 30.0])
def test_an_iris_is_around_each_eye_landmark(yaw: float):
    view = dataclasses.replace(LIT, yaw=yaw)
    shape = dataclasses.replace(BALD, eye_opening=1.0)
    weight = changed(shape, view, "eye_colour").astype(float)
    points = draw_face(shape, view).landmarks
    rows, columns = np.mgrid[:128, :128]
    for name in ("eye_left", "eye_right"):
        x, y = points[landmark(name)]
        near = weight * (np.hypot(columns - x, rows - y) < 8)
        found = np.array([(near * columns).sum(), (near * rows).sum()]) / near.sum()
        np.testing.assert_allclose(found, (x, y), atol=0.9)


def test_the_pupil_is_black_at_the_eye_landmarks_of_a_frontal_view():
    for subject in range(6):
        shape = dataclasses.replace(sample_shape(8, subject), eye_colour=1.0, eye_opening=0.5, fringe=0.0)
        picture = draw_face(shape, LIT)
        for x, y in picture.landmarks[:2].tolist():
            pupil, *iris = (
                cv2.getRectSubPix(picture.image, (1, 1), (x + aside, y)).mean() for aside in (0.0, -2.7, 2.7)
            )
            assert pupil < 65
            assert pupil < 0.7 * min(iris)


@pytest.mark.parametrize(("yaw", "smile"), [(0.0, 0.0), (0.0, 1.0), (-25.0, 0.5)])
def test_the_lips_end_at_the_mouth_landmarks(yaw: float, smile: float):
    view = dataclasses.replace(LIT, yaw=yaw, smile=smile)
    lips = changed(BALD, view, "lip_colour") > 8
    points = draw_face(BALD, view).landmarks
    left, right = np.flatnonzero(lips.any(axis=0))[[0, -1]]
    assert left == pytest.approx(points[landmark("mouth_left"), 0], abs=2)
    assert right == pytest.approx(points[landmark("mouth_right"), 0], abs=2)
    for name, column in (("mouth_left", left), ("mouth_right", right)):
        assert np.flatnonzero(lips[:, column]).mean() == pytest.approx(points[landmark(name), 1], abs=3)


@pytest.mark.parametrize("yaw", [-90.0, 90.0])
def test_in_profile_the_nose_landmark_is_where_the_face_ends(yaw: float):
    view = dataclasses.replace(LIT, yaw=yaw)
    shown = changed(BALD, view, "background_value")
    face = shown < 0.5 * shown.max()
    x, y = draw_face(BALD, view).landmarks[landmark("nose_tip")]
    columns = np.flatnonzero(face[round(float(y)) - 3 : round(float(y)) + 4].any(axis=0))
    assert (columns.max() if yaw > 0 else columns.min()) == pytest.approx(x, abs=1.5)


def test_the_nose_moves_with_yaw():
    offsets = []
    for yaw in range(-75, 76, 15):  # beyond, the alignment shrinks the face
        points = draw_face(FaceShape(), dataclasses.replace(LIT, yaw=float(yaw)), 32).landmarks
        offsets.append(points[landmark("nose_tip"), 0] - points[:2, 0].mean())
    assert (np.diff(offsets) > 0).all()
    assert offsets[5] == pytest.approx(0, abs=0.1)


def test_a_turned_head_hides_its_far_side():
    assert (draw_face(FaceShape(), LIT, 64).visibility == 2).all()
    right = draw_face(BALD, dataclasses.replace(LIT, yaw=80.0), 64).visibility
    left = draw_face(BALD, dataclasses.replace(LIT, yaw=-80.0), 64).visibility
    assert right.tolist() == [2, 1, 2, 2, 1]
    assert left.tolist() == [1, 2, 2, 1, 2]


def test_a_mirrored_view_is_the_mirror_image():
    view = dataclasses.replace(LIT, yaw=25.0, flash_azimuth=40.0, roll=10.0, gaze_x=0.4)
    mirrored = dataclasses.replace(view, yaw=-25.0, flash_azimuth=-40.0, roll=-10.0, gaze_x=-0.4)
    skin = dataclasses.replace(BALD, moles=0)
    difference = np.abs(draw_face(skin, view).image[:, ::-1].astype(int) - draw_face(skin, mirrored).image)
    face = changed(skin, mirrored, "background_value") < 8
    assert np.median(difference[face]) <= 3  # blotches, and the template itself, are not symmetric
    assert difference[face].mean() < 8


@pytest.mark.parametrize("azimuth", [30.0, 60.0, 90.0])
def test_light_from_one_side_brightens_that_side(azimuth: float):
    shape = dataclasses.replace(sample_shape(4, 2), hair_length=0.3)
    for sign in (-1, 1):
        view = dataclasses.replace(LIT, flash_azimuth=sign * azimuth)
        grey = draw_face(shape, view).image.mean(axis=2)
        left, right = grey[70:95, 24:50].mean(), grey[70:95, 78:104].mean()
        assert sign * (right - left) > 10


def test_the_nose_casts_a_shadow():
    cheek = []
    for azimuth in (-70.0, 70.0):
        view = dataclasses.replace(LIT, flash_azimuth=azimuth, ambient=0.2)
        cheek.append(draw_face(FaceShape(nose_height=1.0), view).image[74:86, 72:80].mean())
    assert cheek[0] < 0.8 * cheek[1]


def test_without_a_flash_its_place_does_not_matter():
    views = [FaceView(flash=0, flash_azimuth=azimuth, flash_elevation=azimuth / 5) for azimuth in (-90.0, 90.0)]
    assert np.array_equal(*(draw_face(FaceShape(), view, 64).image for view in views))


def test_a_smile_widens_and_lifts_the_mouth_and_surprise_opens_it():
    neutral, smile, surprise = (Face(FaceShape(), Expression(*e)) for e in ((0, 0), (1, 0), (0, 1)))
    right = [face.landmarks[landmark("mouth_right")] for face in (neutral, smile, surprise)]
    assert right[1][0] > right[0][0] + 4
    assert right[1][1] < right[0][1] - 4
    assert right[2][0] < right[0][0] - 2
    assert surprise.mouth.gap > 10
    closed, opened = (draw_face(BALD, dataclasses.replace(LIT, surprise=value)).image for value in (0.0, 1.0))
    assert opened[106:112, 60:68].mean() < 0.7 * closed[106:112, 60:68].mean()
    eyes = [face.landmarks[:2] for face in (neutral, smile, surprise)]
    np.testing.assert_allclose(eyes[1], eyes[0], atol=0.5)
    np.testing.assert_allclose(eyes[2], eyes[0], atol=0.5)


@pytest.mark.parametrize("group", ["skin", "hair", "light", "occlusion", "background", "camera"])
def test_nuisance_moves_no_landmark_but_changes_pixels(group: str):
    pictures = []
    for end in (0, 1):
        values = {name: RANGES[name][end] for name in FACTOR_GROUPS[group]}
        shape, view = (
            owner(**{f.name: values[f.name] for f in dataclasses.fields(owner) if f.name in values})
            for owner in (FaceShape, FaceView)
        )
        pictures.append(draw_face(shape, view, 96))
    assert np.array_equal(pictures[0].landmarks, pictures[1].landmarks)
    assert np.abs(pictures[0].image.astype(int) - pictures[1].image).mean() > 0.5


@pytest.mark.parametrize("name", [*FACTOR_GROUPS["shape"], *FACTOR_GROUPS["pose"], *FACTOR_GROUPS["expression"]])
def test_each_factor_of_shape_pose_and_expression_changes_the_picture(name: str):
    shape = FaceShape(hair_length=0.25, brow_thickness=0.7, age=0.5)
    view = dataclasses.replace(LIT, yaw=0.0 if "ear" in name else 25.0, flash_azimuth=-40.0)
    assert changed(shape, view, name, 96).max() > 20


@pytest.mark.parametrize("name", [n for n in (*FACTOR_GROUPS["skin"], *FACTOR_GROUPS["hair"]) if "pattern" not in n])
def test_each_colour_and_hair_factor_changes_the_picture(name: str):
    shape = FaceShape(hair_length=0.6, fringe=0.5, beard=0.6, moustache=0.6, hair_greyness=0.0, hair_tone=0.6)
    assert changed(shape, dataclasses.replace(LIT, yaw=10.0), name, 96).max() > 8


def test_extreme_people_in_extreme_views_are_rendered_with_their_landmarks_in_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(24):
        shape, view = (
            owner(**{f.name: RANGES[f.name][int(rng.integers(2))] for f in dataclasses.fields(owner)})
            for owner in (FaceShape, FaceView)
        )
        picture = draw_face(shape, dataclasses.replace(view, yaw=float(rng.uniform(-95, 95))), 32)
        assert (picture.landmarks > 0).all()
        assert (picture.landmarks < 31).all()
        assert np.ptp(picture.image) > 20


def test_the_background_stays_outside_the_head():
    for yaw in (0.0, 45.0):
        view = dataclasses.replace(LIT, yaw=yaw)
        behind = changed(FaceShape(), view, "background_value") > 2
        assert behind.mean() > 0.05
        picture = draw_face(FaceShape(), view)
        at = np.rint(picture.landmarks[picture.visibility == 2]).astype(int)
        assert not behind[at[:, 1], at[:, 0]].any()


def test_glasses_cover_no_landmark_but_frame_the_eyes():
    rims = np.abs(
        draw_face(BALD, LIT).image.astype(int) - draw_face(BALD, dataclasses.replace(LIT, glasses=0.3)).image
    ).max(axis=2)
    points = draw_face(BALD, LIT).landmarks
    assert all((rims[:, round(float(x))] > 40).any() for x, _ in points[:2])
    assert all(rims[round(float(y)), round(float(x))] < 40 for x, y in points[:2])
    assert rims[100:].max() < 40


def recognised(features: np.ndarray, subjects: np.ndarray) -> float:
    """Share of rows whose nearest other row is the same subject's."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return float((subjects[alike.argmax(1)] == subjects).mean())


def test_a_subject_is_recognisable_across_views():
    images, names = synthesize_faces(FaceSet(subjects=20, images_per_subject=4, image_size=64, max_yaw=30, seed=11))
    subjects = np.array([MultiPieName.parse(name).subject for name in names])
    features = np.stack([hog(image[..., 1], pixels_per_cell=(8, 8)) for image in images])
    assert recognised(features, subjects) > 6 * 3 / 79


def test_nuisance_is_independent_of_the_subject():
    """Nearest neighbours by every nuisance factor, and by the background's pixels, find the subject by chance alone."""
    faces = FaceSet(subjects=150, images_per_subject=9)
    pairs = [(s, code) for s in range(1, 151) for code in view_codes(faces, s)[1:]]
    subjects = np.array([subject for subject, _ in pairs])
    views = [sample_view(faces.seed, *pair) for pair in pairs]
    names = [name for name in RANGES if name in {f.name for f in dataclasses.fields(FaceView)}]
    factors = np.array([[getattr(view, name) for name in names] for view in views])
    factors = (factors - factors.mean(0)) / factors.std(0)
    pixels = np.stack([background(view, 8).ravel() for view in views])
    chance = 7 / (len(pairs) - 1)
    spread = np.sqrt(chance / len(pairs))
    for features in (factors, pixels - pixels.mean(0)):
        assert recognised(features, subjects) < chance + 4 * spread
    # No factor's mean over a subject's pictures varies more than means of as many independent samples do.
    means = factors.reshape(150, 8, -1).mean(1)
    assert (means.var(0) * 8 < 1.6).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: FaceShape(age=2.0),
        lambda: FaceShape(nose_width=float("nan")),
        lambda: FaceView(yaw=120.0),
        lambda: ViewCode(camera="052"),
        lambda: ViewCode(recording="1"),
        lambda: sample_shape(-1, 0),
        lambda: sample_view(1, 2**40),
        lambda: draw_face(FaceShape(), FaceView(), 16),
        lambda: FaceSet(subjects=1000),
        lambda: FaceSet(images_per_subject=241, max_yaw=0),
    ],
)
def test_values_out_of_range_are_input_errors(make):
    with pytest.raises(InputError, match="must"):
        make()


def test_a_sampled_view_is_what_its_code_says():
    for subject in range(5):
        for camera, yaw in CAMERA_YAW.items():
            view = sample_view(2, subject, ViewCode(camera=camera))
            assert view.yaw == pytest.approx(yaw, abs=9)
            assert view.flash > 0.4
        smile, surprise = (sample_view(2, subject, ViewCode(recording=recording)) for recording in ("02", "03"))
        assert smile.smile > 0.5 > smile.surprise
        assert surprise.surprise > 0.5 > surprise.smile
        left, right = (sample_view(2, subject, ViewCode(illumination=flash)) for flash in ("03", "11"))
        assert left.flash_azimuth < -40
        assert right.flash_azimuth > 40
        assert sample_view(2, subject, ViewCode(illumination="00")).flash == 0
    assert flash_direction("07")[0] == 0
    assert flash_direction("19") is None


def test_multi_pie_names_say_what_they_were_made_of():
    name = MultiPieName("017", "02", "03", "140", "09")
    assert str(name) == "017_02_03_140_09_crop_128.png"
    assert MultiPieName.parse(str(name)) == name
    assert name.yaw == -15
    assert MultiPieName.parse("017_02_03_191_09.png") == MultiPieName("017", "02", "03", "191", "09", None)
    assert MultiPieName.parse("017_02_03_191_09.png").yaw is None
    for other in ("17_02_03_140_09.png", "017_02_03_140.png", "George_0001.jpg", "017_02_03_140_09_crop_128"):
        assert MultiPieName.parse(other) is None


def test_a_subjects_pictures_are_distinct_and_begin_with_the_gallery():
    faces = FaceSet(images_per_subject=40)
    codes = view_codes(faces, 3)
    assert codes[0] == GALLERY
    assert len(set(codes)) == 40
    assert {code.camera for code in codes} == {"080", "130", "140", "051", "050", "041", "190"}
    assert view_codes(dataclasses.replace(faces, images_per_subject=7), 3) == codes[:7]
    assert view_codes(faces, 4) != codes
    everything = FaceSet(images_per_subject=240, max_yaw=0)
    assert len(set(view_codes(everything, 1))) == 240
    assert {CAMERA_YAW[code.camera] for code in FaceSet(max_yaw=90).codes} == set(range(-90, 91, 15))


def test_set_on_disk_is_whole_and_consistent(tiny: Path):
    images, names = synthesize_faces(TINY)
    rows = list(csv.DictReader((tiny / "index.csv").open(encoding="utf-8")))
    assert [Path(row["file"]).name for row in rows] == names
    assert sorted(path.name for path in (tiny / "images").iterdir()) == sorted(names)
    assert not list(tiny.rglob("*.tmp"))
    for row, image, name in zip(rows, images, names, strict=True):
        assert np.array_equal(cv2.cvtColor(cv2.imread(str(tiny / row["file"])), cv2.COLOR_BGR2RGB), image)
        parsed = MultiPieName.parse(name)
        assert (parsed.subject, parsed.session, parsed.recording, parsed.camera, parsed.illumination, parsed.size) == (
            *(row[key] for key in ("subject", "session", "recording", "camera", "illumination")),
            32,
        )


def test_identity_factors_are_one_subjects_in_all_its_rows(tiny: Path):
    rows = list(csv.DictReader((tiny / "index.csv").open(encoding="utf-8")))
    shapes = {(row["subject"], *(row[f.name] for f in dataclasses.fields(FaceShape))) for row in rows}
    assert len(shapes) == TINY.subjects
    views = {tuple(row[f.name] for f in dataclasses.fields(FaceView)) for row in rows}
    assert len(views) == len(rows)


def test_the_index_gives_the_picture_again(tiny: Path):
    row = list(csv.DictReader((tiny / "index.csv").open(encoding="utf-8")))[4]
    shape, view = (
        owner(**{f.name: type(f.default)(row[f.name]) for f in dataclasses.fields(owner)})
        for owner in (FaceShape, FaceView)
    )
    picture = draw_face(shape, view, 32)
    assert np.array_equal(picture.image, synthesize_faces(TINY)[0][4])
    written = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in FACE_LANDMARKS]
    np.testing.assert_allclose(written, picture.landmarks, atol=1e-3)
    assert [int(row[f"{name}_visible"]) for name in FACE_LANDMARKS] == picture.visibility.tolist()


@pytest.mark.runs
def test_files_do_not_depend_on_workers_nor_pictures_on_the_layout(tiny: Path, tmp_path: Path):
    write_face_set(tmp_path / "two", TINY, num_workers=2)
    for path in sorted(p for p in tiny.rglob("*") if p.is_file()):
        assert (tmp_path / "two" / path.relative_to(tiny)).read_bytes() == path.read_bytes(), path.name
    write_face_set(tmp_path / "folders", TINY, layout="folders")
    for path in (tiny / "images").iterdir():
        subject = path.name[:3]
        assert (tmp_path / "folders" / "images" / subject / path.name).read_bytes() == path.read_bytes()


def test_the_command_writes_a_set_and_an_image_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ("--subjects", 2, "--images-per-subject", 2, "--image-size", 32, "--max-yaw", 0, "--num-workers", 1)
    out, grid = tmp_path / "set", tmp_path / "grid.png"
    code, said, _ = run(main, capsys, "--out", out, *small, "--image-grid", grid, "--layout", "folders")
    assert code == 0
    assert cv2.imread(str(grid)).shape == (64, 64, 3)
    assert all(word in said for word in ("images", "index.csv", "grid.png"))
    code, _, refused = run(main, capsys, "--out", out, *small)
    assert code == 2
    assert "--overwrite" in refused
    (out / "images" / "009_01_01_051_07_crop_64.png").write_bytes(b"of an earlier, larger set")
    (out / "images" / "001" / "mine.txt").write_text("stays")
    assert run(main, capsys, "--out", out, *small, "--overwrite")[0] == 0
    assert len(list((out / "images").glob("*.png"))) == 4
    assert [path.name for path in (out / "images").iterdir() if path.is_dir()] == ["001"]
    assert (out / "images" / "001" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--subjects", 0), "--subjects 0: must be at least 1"),
        (("--subjects", 1000), "--subjects 1000: must be at least 1 and at most 999"),
        (("--images-per-subject", 5000), "--images-per-subject 5000: must be at most 1680, the number"),
        (("--image-size", 20), "--image-size 20: must be at least 32"),
        (("--max-yaw", 100), "--max-yaw 100: must be at least 0 and at most 90"),
        (("--layout", "lfw"), "--layout"),
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


def test_a_full_disk_leaves_no_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    small = ("--subjects", 1, "--images-per-subject", 1, "--image-size", 32, "--num-workers", 1)
    code, _, said = run(main, capsys, "--out", tmp_path / "set", *small)
    assert code == 2
    assert "No space left" in said
    assert not (tmp_path / "set" / "index.csv").exists()


def slow_raster(vertices: np.ndarray, triangles: np.ndarray, size: int) -> np.ndarray:
    """Pixel by pixel and triangle by triangle: depth, u and v of the nearest that shows its front."""
    seen = np.zeros((3, size, size))
    seen[0] = EMPTY
    for corners in triangles.T:
        (ax, bx, cx), (ay, by, cy) = vertices[:2, corners]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area <= 0:
            continue
        for row in range(size):
            for column in range(size):
                one = ((column - ax) * (cy - ay) - (cx - ax) * (row - ay)) / area
                two = ((bx - ax) * (row - ay) - (column - ax) * (by - ay)) / area
                if min(one, two, 1 - one - two) >= 0:
                    found = vertices[2:, corners] @ [1 - one - two, one, two]
                    if found[0] > seen[0, row, column]:
                        seen[:, row, column] = found
    return seen


def test_triangles_are_rasterised_as_by_the_obvious_loop():
    rng = np.random.default_rng(0)
    vertices = rng.uniform(-6, 30, (5, 36)).astype(np.float32)
    vertices[2] = np.repeat(rng.permutation(12), 3)  # flat ones: which is nearer is beyond dispute
    triangles = np.arange(36).reshape(12, 3).T
    found = np.stack(rasterise(vertices, triangles, 24))
    expected = slow_raster(vertices.astype(float), triangles, 24)
    agree = (found[0] == EMPTY) == (expected[0] == EMPTY)
    assert agree.mean() > 0.995  # but for pixels on an edge
    np.testing.assert_allclose(found[:, agree], expected[:, agree], atol=0.05)


def test_a_grid_has_no_gaps_and_its_back_is_rasterised_apart():
    y, x = np.mgrid[:5, :6] * 4.7 + 1.3
    vertices = np.stack([x, y, 0 * x, x, y]).reshape(5, -1).astype(np.float32)
    depth, u, v = rasterise(vertices, grid_triangles(5, 6), 32)
    rows, columns = np.mgrid[:32, :32]
    inside = (columns >= 1.3) & (columns <= x.max()) & (rows >= 1.3) & (rows <= y.max())
    assert np.array_equal(depth > EMPTY, inside)
    np.testing.assert_allclose(u[inside], columns[inside], atol=1e-3)
    np.testing.assert_allclose(v[inside], rows[inside], atol=1e-3)
    assert (rasterise(vertices, grid_triangles(5, 6), 32, front=False)[0] == EMPTY).all()
