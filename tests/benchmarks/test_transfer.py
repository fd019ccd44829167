"""What a start is worth: who is tested, what is chosen by what, and a table that fills cell by cell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.transfer.__main__ import main
from benchmarks.transfer.few_shot import HELD_OUT, mean_shape, split_people, split_points
from benchmarks.transfer.identification import draw, identify, nearest_class
from benchmarks.transfer.options import COLUMNS, Cell, TransferBenchmark
from benchmarks.transfer.starts import NOTHING, starts_of
from ear_teacher import EarVAE
from earface.core.errors import InputError
from earface.data.annotations import Annotations, Photograph, write_pts
from earface.data.coco import read_coco
from earface.data.ear_alignment import mean_ear
from earface.data.tables import write_csv
from tests.conftest import only_line
from tests.ear_teacher.detector.test_transfer import written

pytestmark = pytest.mark.runs
SUBJECTS = [f"{person:03d}" for person in range(1, 7) for _ in range(10)]
TRAGUS_OF_17 = 8


def photographs(subjects: list[str]) -> Annotations:
    empty = np.zeros((0, 4), np.float32), np.zeros((0, 0, 3), np.float32)
    each = [Photograph(Path(f"{row}.jpg"), (9, 9), *empty, subject=name) for row, name in enumerate(subjects)]
    return Annotations(Path("boxes.csv"), each)


def files(annotations: Annotations) -> set[str]:
    return {photograph.path.name for photograph in annotations.photographs}


def test_nobody_who_is_tested_is_trained_on() -> None:
    people = frozenset(("002", "005"))
    for shots, count in ((7, 7), (None, 40)):
        train, test = split_people(photographs(SUBJECTS), people, shots, seed=3)
        assert len(train) == count
        assert {each.subject for each in test.photographs} == people
        assert len(test) == 20
        assert not {each.subject for each in train.photographs} & people
    assert files(split_people(photographs(SUBJECTS), people, 7, 3)[0]) != files(
        split_people(photographs(SUBJECTS), people, 7, 4)[0]
    )


def test_photographs_whose_person_is_unknown_are_on_neither_side() -> None:
    train, test = split_people(photographs(["", "001", "002", ""]), frozenset(["002"]), None, 0)
    assert (files(train), files(test)) == ({"1.jpg"}, {"2.jpg"})


@pytest.mark.parametrize("people", [frozenset(["x"]), frozenset(SUBJECTS)])
def test_photographs_that_cannot_be_split_are_refused(people: frozenset[str]) -> None:
    with pytest.raises(InputError, match=r"boxes\.csv: \d+ photographs of the test people and \d+ of others"):
        split_people(photographs(SUBJECTS), people, 5, 0)


def test_held_out_points_are_the_same_for_every_seed_and_number_of_shots() -> None:
    annotations = photographs([""] * 21)
    held_out = set()
    for shots in (5, 16):
        for seed in (0, 1):
            train, test = split_points(annotations, shots, seed)
            assert (len(train), len(test)) == (shots, HELD_OUT)
            assert not files(train) & files(test)
            held_out.add(frozenset(files(test)))
    assert len(held_out) == 1
    with pytest.raises(InputError, match="21 photographs with points: 5 are held out, so 17"):
        split_points(annotations, 17, 0)


def test_mean_shape_of_one_ear_is_that_ear_and_mirrored_on_the_other_side() -> None:
    points = mean_ear(17).astype(np.float32) * 100 + 200
    low, high = points.min(axis=0), points.max(axis=0)
    box = np.array([*low, *(high - low)], np.float32)
    keypoints = np.column_stack([points, np.full(17, 2)])[None].astype(np.float32)
    train = Annotations(Path("ears"), [Photograph(Path("a.png"), (400, 400), box[None], keypoints)])
    picture = np.zeros((400, 400, 3), np.uint8)
    about = 2 * (low[0] + high[0]) / 2
    mirrored = points * (-1, 1) + (about, 0)
    given, unknown = (mean_shape(train, side_given=each) for each in (True, False))
    np.testing.assert_allclose(given(picture, box, "r"), points, atol=1e-3)
    np.testing.assert_allclose(given(picture, box, "l"), mirrored, atol=1e-3)
    np.testing.assert_allclose(given(picture, box * (1, 1, 0.5, 0.5), "r") - low, (points - low) / 2, atol=1e-3)
    np.testing.assert_allclose(unknown(picture, box, "l"), (points + mirrored) / 2, atol=1e-3)


def test_probes_are_the_same_for_two_and_for_eight_pictures() -> None:
    few, probes = draw(SUBJECTS, 2, (0, 1))
    many, same = draw(SUBJECTS, 8, (0, 1))
    assert probes.tolist() == same.tolist()
    assert set(few) < set(many)
    assert sorted([*many, *probes]) == list(range(60))
    for rows, count in ((few, 2), (many, 8), (probes, 2)):
        assert np.unique(np.array(SUBJECTS)[rows], return_counts=True)[1].tolist() == [count] * 6
    assert draw(SUBJECTS, 2, (0, 2))[1].tolist() != probes.tolist()


def test_person_with_three_pictures_is_refused() -> None:
    with pytest.raises(InputError, match="a has 3 pictures: identification needs 4"):
        draw(["a"] * 3 + ["b"] * 9, 2, (0, 0))


@pytest.mark.parametrize("shrinkage", [0.1, 0.6, 1.0])
def test_classifier_is_scikit_learns_shrunk_discriminant_analysis(shrinkage: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 4)
    mixing = rng.normal(size=(6, 6))
    train, test = (rng.normal(size=(20, 6)) @ mixing + labels[:, None] for _ in range(2))
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(5, 0.2))
    wanted = oracle.fit(train, labels).predict(test)
    assert nearest_class(train, labels, test, [shrinkage])[0].tolist() == wanted.tolist()


def test_depth_is_chosen_without_the_probes() -> None:
    """Of two depths one knows the gallery's people, the other the probes' alone."""
    gallery, probes = draw(SUBJECTS, 8, (0, 0))
    rng = np.random.default_rng(0)
    codes = np.eye(6)[np.repeat(np.arange(6), 10)]
    noise = rng.normal(size=(2, 60, 6))
    honest, peeking = (codes + 0.3 * noise[0]), noise[1].copy()
    peeking[probes] = codes[probes]
    peeking[gallery[:2]] = codes[gallery[:2]]
    found = identify({"peeking": peeking, "honest": honest}, SUBJECTS, 8, seed=0, draws=1)
    assert found["depth"] == "honest"
    assert found["rank1"] == found["depths"]["honest"] > 0.8


def test_starts_are_nothing_teachers_and_the_random_weights_of_other_networks(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, image_size=64)
    options = TransferBenchmark(teacher=(f"first={checkpoint}", checkpoint), weights=("resnet18=pretrained",))
    with pytest.raises(InputError, match="resnet18"):  # nothing is downloaded in a test
        starts_of(options)
    first, second, third = starts_of(TransferBenchmark(teacher=(f"first={checkpoint}", checkpoint)))
    assert [first.name, second.name, third.name] == [NOTHING, "first", "teacher"]
    assert first.network == second.network
    assert first.network["base_channels"] == 4
    with pytest.raises(InputError, match="two starts are called teacher"):
        starts_of(TransferBenchmark(teacher=(checkpoint, checkpoint)))


def test_features_of_a_teacher_are_its_maps_in_cells_its_latents_and_who_it_is(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, image_size=64, identity_dim=2)  # of four latents
    start = starts_of(TransferBenchmark(teacher=(checkpoint,)))[1]
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = start.features(images, seed=0)
    vae = EarVAE.load(checkpoint)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        mu, maps = vae.encode(batch), vae.features(batch)
    np.testing.assert_allclose(found["mu"], mu, atol=1e-5)
    np.testing.assert_allclose(found["identity part"], mu[:, 2:], atol=1e-5)
    np.testing.assert_allclose(found["map 4, 1x1"], maps[3].mean(dim=(2, 3)), atol=1e-4)
    quarters = maps[0].unflatten(3, (4, -1)).unflatten(2, (4, -1)).mean(dim=(3, 5)).flatten(1)
    np.testing.assert_allclose(found["map 1, 4x4"], quarters, atol=1e-4)
    assert not [depth for depth in found if depth.startswith("map 4, 8")]  # a map of 4x4


@pytest.fixture(scope="module")
def data(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Options of the data: 17 points instead of 55."""
    folder = tmp_path_factory.mktemp("transfer")
    annotations = read_coco(ear_set / "landmarks.json").photographs
    for photograph in annotations[:9]:
        shutil.copy(photograph.path, folder)
        write_pts(folder / f"{photograph.path.stem}.pts", photograph.keypoints[0])
    rows = []
    for photograph in annotations:
        x, y = photograph.keypoints[0, TRAGUS_OF_17, :2].tolist()
        rows.append((str(photograph.path.relative_to(ear_set)), photograph.subject, "r", str(x), str(y)))
    crops = tmp_path_factory.mktemp("crops")
    shutil.copytree(ear_set / "images", crops / "images")
    write_csv(crops / "index.csv", ("file", "subject", "side", "tragus_x", "tragus_y"), rows)
    return {"ears": str(ear_set / "val_teacher.npy"), "ibug": str(folder), "crops": str(crops)}


def arguments(data: dict[str, str], out: Path, *more: str) -> list[str]:
    small = ("--steps", "4", "--ear-size", "32", "--draws", "2", "--rates", "0")
    given = [word for name, value in data.items() for word in (f"--{name}", value)]
    return [*given, *small, "--out", str(out), *more]


def test_table_fills_cell_by_cell_and_names_what_is_missing(
    data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ("--only", "landmarks:4", "identification:2", "detection:25")
    assert main(arguments(data, tmp_path, *columns, "--starts", "HOG")) == 0
    first = capsys.readouterr().out
    assert "- nothing: landmarks:4 (1 to run), identification:2 (1 to run), detection:25 (1 to run)" in first
    assert "detection: give its data by --photographs" in first.replace("`photographs`", "--photographs")
    hog = tmp_path / Cell("identification", 2, "HOG", None, 0).file
    kept = hog.stat().st_mtime_ns

    assert main(arguments(data, tmp_path, *columns)) == 0
    second = capsys.readouterr().out
    assert hog.stat().st_mtime_ns == kept
    assert "- nothing: detection:25 (1 to run)\n" in second
    content = json.loads((tmp_path / Cell("landmarks", 4, NOTHING, 0.0, 0).file).read_text())
    assert set(content["metrics"]) == {"nme", "tragus", "tragus_90"}
    assert f"| nothing | frozen | {content['metrics']['nme']:.3f} |" in second
    assert (tmp_path / "results.md").read_text() in second
    assert not list(tmp_path.glob("work*"))

    more_steps = [*arguments(data, tmp_path, *columns, "--starts", "HOG"), "--steps", "8"]
    assert main(more_steps) == 0
    assert "- nothing: landmarks:4 (1 to run), detection:25" in capsys.readouterr().out


def test_time_that_is_over_starts_no_cell(
    data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(data, tmp_path, "--only", "identification:2", "--minutes", "1e-9")) == 0
    assert "- HOG: identification:2 (1 to run)" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "reading"], "reading: give landmarks:5"),
        (["--only", "detection:some"], "detection:some"),
        (["--only", "identification:1"], "two pictures are the fewest"),
        (["--starts", "nobody"], "nobody: choose from nothing, mean shape, mean shape, side given, HOG, pixel PCA"),
        (["--teacher", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--weights", "resnet50"], "resnet50: give the encoder and its file"),
        (["--weights", "resnet50=nowhere.pth"], "nowhere.pth"),
        (["--weights", "vgg=nowhere.pth"], "vgg: choose one of"),
        (["--ears", "nowhere.npy"], "nowhere.npy"),
        (["--rates"], "give one or more"),
        (["--only", "landmarks:4", "--ibug", "nowhere"], "nowhere"),
        (["--only", "landmarks:4", "--crops", "nowhere"], "nowhere/index.csv"),
        (["--only", "landmarks:6"], "9 photographs with points: 5 are held out, so 6"),
        (["--only", "detection:25", "--photographs", "nowhere"], "nowhere/boxes.csv"),
    ],
)
def test_bad_input_is_one_line(
    data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(data, tmp_path, *more)) == 2
    assert message in only_line(capsys)


def test_damaged_cell_is_one_line(data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / Cell("identification", 2, "HOG", None, 0).file
    path.write_text("{")
    assert main(arguments(data, tmp_path, "--only", "identification:2")) == 2
    assert f"{path}: not a finished cell of this benchmark" in only_line(capsys)


def test_default_columns_are_cells_of_their_own() -> None:
    options = TransferBenchmark()
    assert [f"{task}:{shots or 'all'}" for task, shots in options.columns] == list(COLUMNS)
    assert TransferBenchmark(only=("identification", "identification:2")).columns == [
        ("identification", 2),
        ("identification", 8),
    ]
