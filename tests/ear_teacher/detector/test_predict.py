"""Ears found in folders of photographs, and the files that say where."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ear_teacher import EarVAE
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.predict import main
from ear_teacher.detector.prediction import storable
from earface.data.annotations import Annotations
from earface.data.coco import read_coco, write_coco
from earface.data.folders import list_images
from earface.data.images import read_image, write_image
from earface.data.prepare_ears import main as prepare_ears
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON
from earface.synthetic.scene_set import SceneSet, write_scene_set

pytestmark = pytest.mark.runs

SHAPE = {"encoder": "conv", "base_channels": 4, "image_size": 64, "crop_size": 32, "pyramid_width": 16}


@dataclass(frozen=True)
class Trial:
    """A detector of random weights, and photographs in all but one of which it finds ears."""

    checkpoint: Path
    photographs: Path  # a/0.jpg to a/3.jpg, and others of the same names in b
    threshold: float
    empty: Path  # the one


def save(model: EarDetector, path: Path) -> Path:
    """As training does."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"detector": asdict(model.config)}}, path)
    return path


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("trial")
    scenes = write_scene_set(folder / "scenes", SceneSet(8, 96, 72, seed=5))
    for number, photograph in enumerate(scenes.photographs):
        name = folder / "photographs" / "ab"[number // 4] / f"{number % 4}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photograph.path, name)
    paths = list_images(folder / "photographs")
    pictures = [read_image(path) for path in paths]
    for seed in range(30):
        model = random_detector(seed)
        scores = [found["scores"].numpy() for found in model.predict(pictures)]
        best = [score.max() for score in scores]
        threshold = float(sum(sorted(best)[:2]) / 2)
        if sum(np.count_nonzero(score > threshold) for score in scores) > len(paths):  # two in some photograph
            break
    checkpoint = save(model, folder / "random.ckpt")
    return Trial(checkpoint, folder / "photographs", threshold, paths[int(np.argmin(best))])


def random_detector(seed: int) -> EarDetector:
    torch.manual_seed(seed)
    model = EarDetector(num_landmarks=17, landmark_names=EAR_LANDMARKS, skeleton=tuple(EAR_SKELETON), **SHAPE).eval()
    torch.nn.init.normal_(model.boxes.score.weight, std=1.0)  # scores that differ
    torch.nn.init.normal_(model.landmarks.visibility, std=1.0)  # type: ignore[union-attr]
    return model


def predict(trial: Trial, photographs: Path, out: Path, *arguments: object) -> int:
    flags = (
        "--checkpoint",
        trial.checkpoint,
        "--input",
        photographs,
        "--out",
        out,
        "--score-threshold",
        trial.threshold,
    )
    return main([*map(str, flags), "--overwrite", *map(str, arguments)])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output for the trial's photographs, crops too."""
    out = tmp_path_factory.mktemp("written") / "out"
    assert predict(trial, trial.photographs, out, "--crops") == 0
    return out


# What is written


def test_the_json_reads_back_as_what_the_model_finds(trial: Trial, written: Path) -> None:
    found = read_coco(written / "detections.json")
    paths = list_images(trial.photographs)
    assert [photograph.path for photograph in found.photographs] == paths
    assert (found.landmark_names, found.skeleton) == (EAR_LANDMARKS, tuple(EAR_SKELETON))
    model = EarDetector.load_from_checkpoint(str(trial.checkpoint))
    model.score_threshold = trial.threshold
    ears = 0
    for photograph, ear in zip(found.photographs, model.predict([read_image(path) for path in paths]), strict=True):
        corners = np.concatenate([photograph.boxes[:, :2], photograph.boxes[:, :2] + photograph.boxes[:, 2:]], axis=1)
        assert corners == pytest.approx(ear["boxes"].numpy(), abs=2e-3)
        points, labelled = ear["keypoints"].numpy(), photograph.keypoints[..., 2] > 0
        assert photograph.keypoints[labelled][:, :2] == pytest.approx(points[labelled][:, :2], abs=0.501)
        assert np.array_equal(photograph.keypoints[labelled][:, 2] == 2, points[labelled][:, 2] == 1)
        outside = (
            (points[~labelled][:, :2] < -0.5) | (points[~labelled][:, :2] > np.array(photograph.size) - 0.5)
        ).any(1)
        assert outside.all()
        ears += len(corners)
    assert ears == found.num_ears > 8


def test_results_have_the_ids_of_the_json_and_the_scores(trial: Trial, written: Path) -> None:
    content = json.loads((written / "detections.json").read_text())
    results = json.loads((written / "results.json").read_text())
    for ear, result in zip(content["annotations"], results, strict=True):
        assert all(ear[name] == result[name] for name in ("id", "image_id", "category_id", "bbox", "keypoints"))
        assert len(result["keypoints_scores"]) == 17
        visible = {place for place, score in enumerate(result["keypoints_scores"]) if score > 0.5}
        assert {place for place, v in enumerate(ear["keypoints"][2::3]) if v == 2} <= visible
    for image in content["images"]:
        scores = [result["score"] for result in results if result["image_id"] == image["id"]]
        assert scores == sorted(scores, reverse=True)
        assert all(trial.threshold - 1e-4 <= score <= 1 for score in scores)


def test_both_files_load_in_pycocotools(written: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(written / "detections.json")
    results = coco.loadRes(str(written / "results.json"))
    assert len(results.getAnnIds()) == len(coco.getAnnIds()) > 8


def test_a_photograph_without_ears_is_an_image_without_annotations(trial: Trial, written: Path) -> None:
    counts = {
        photograph.path: len(photograph.boxes) for photograph in read_coco(written / "detections.json").photographs
    }
    assert [path for path, count in counts.items() if not count] == [trial.empty]
    assert not list((written / "crops").glob(f"*/{trial.empty.parent.name}/{trial.empty.name}_*"))


def test_photographs_of_equal_names_keep_their_folders(trial: Trial, written: Path) -> None:
    names = [path.relative_to(trial.photographs) for path in list_images(trial.photographs)]
    assert [path.relative_to(written / "overlays") for path in list_images(written / "overlays")] == names
    assert (written / "overlays/a/1.jpg").read_bytes() != (written / "overlays/b/1.jpg").read_bytes()
    assert read_image(written / "overlays/a/1.jpg").shape == (720, 960, 3)  # enlarged


def test_a_second_run_writes_the_same_bytes(trial: Trial, written: Path, tmp_path: Path) -> None:
    before = files_of(written)
    assert predict(trial, trial.photographs, tmp_path / "again", "--crops") == 0
    assert files_of(tmp_path / "again") == before
    assert predict(trial, trial.photographs, written, "--crops") == 0
    assert files_of(written) == before


def test_ears_do_not_depend_on_the_batch(trial: Trial, written: Path, tmp_path: Path) -> None:
    wanted = read_coco(written / "detections.json")
    assert predict(trial, trial.photographs, tmp_path, "--batch-size", 3, "--no-overlays") == 0
    found = read_coco(tmp_path / "detections.json")
    for ours, theirs in zip(found.photographs, wanted.photographs, strict=True):
        assert ours.boxes == pytest.approx(theirs.boxes, abs=1.1e-3)  # written to three decimals
        assert ours.keypoints == pytest.approx(theirs.keypoints, abs=1.1e-3)
    scores = [
        [result["score"] for result in json.loads((out / "results.json").read_text())] for out in (tmp_path, written)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert not (tmp_path / "overlays").exists()


def test_crops_are_the_boxes_of_the_photographs(trial: Trial, written: Path) -> None:
    for photograph in read_coco(written / "detections.json").photographs:
        picture = read_image(photograph.path)
        for number, (x, y, w, h) in enumerate(photograph.boxes.astype(float), 1):
            crop = written / "crops" / photograph.path.parent.name / f"{photograph.path.name}_{number}.png"
            (left, right), (top, bottom) = np.rint([x, x + w]).astype(int), np.rint([y, y + h]).astype(int)
            assert np.array_equal(read_image(crop), picture[top:bottom, left:right])


def test_prepare_ears_takes_crops_with_their_subjects(trial: Trial, written: Path, tmp_path: Path) -> None:
    flags = (
        "--images",
        written / "crops",
        "--out",
        tmp_path,
        "--min-size",
        "1",
        "--duplicates",
        "drop",
        "--fit",
        "stretch",
    )
    assert prepare_ears([*map(str, flags)]) == 0
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    assert {report["train"]["subjects"][0], report["val"]["subjects"][0]} == {"a", "b"}


def test_crops_of_an_earlier_run_are_deleted(trial: Trial, tmp_path: Path) -> None:
    assert predict(trial, trial.photographs, tmp_path, "--crops", "--no-overlays") == 0
    first = len(list_images(tmp_path / "crops"))
    scores = sorted(result["score"] for result in json.loads((tmp_path / "results.json").read_text()))
    assert predict(trial, trial.photographs, tmp_path, "--crops", "--no-overlays", "--score-threshold", scores[-3]) == 0
    assert len(list_images(tmp_path / "crops")) == read_coco(tmp_path / "detections.json").num_ears < first


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (40, 30)])
def test_whatever_is_found_can_be_read_back(tmp_path: Path, size: tuple[int, int]) -> None:
    nan, far, (width, height) = float("nan"), 1e9, size
    boxes = [
        [-far, -far, far, far],
        [nan, 0, 2, 2],
        [width, 0, far, 1],
        [-5, -5, 0.0004, 3],
        [0, 0, 1, 1],
        [1, 1, 0, 0],
    ]
    points = [[[0.2, 0.3, 1], [0.4, 0, 0]], [[nan, 0, 1], [0, 0, 1]]] + [
        [[-far, 0, 1], [width - 0.6, height - 0.9, 0]]
    ] * 4
    found = {"boxes": torch.tensor(boxes), "keypoints": torch.tensor(points)}
    path = tmp_path / "picture.png"
    write_image(path, np.zeros((height, width, 3), np.uint8))
    photograph, kept = storable(path, size, found)
    assert kept == ([] if size == (1, 1) else [0])
    write_coco(tmp_path / "a.json", Annotations(tmp_path / "a.json", [photograph], ("one", "two")))
    again = read_coco(tmp_path / "a.json").photographs[0]
    assert np.array_equal(again.boxes, photograph.boxes)
    assert np.array_equal(again.keypoints, photograph.keypoints)
    if kept:
        assert again.boxes.tolist() == [[0, 0, width, height]]


def test_landmarks_outside_the_picture_are_not_labelled(tmp_path: Path) -> None:
    points = torch.tensor([[[-0.4, 5, 1], [39.4, 29.4, 0], [-0.6, 5, 1], [5, 29.6, 1]]])
    photograph, _ = storable(tmp_path, (40, 30), {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "keypoints": points})
    assert photograph.keypoints[0].tolist() == [[0, 5, 2], [39, 29, 1], [0, 0, 0], [0, 0, 0]]


# Photographs of every kind


def test_pictures_of_every_kind_and_size(trial: Trial, tmp_path: Path) -> None:
    folder, noise = tmp_path / "in", np.random.default_rng(0).integers(0, 256, (60, 80, 4), np.uint8)
    folder.mkdir()
    Image.fromarray(noise[..., 0]).save(folder / "grey.png")
    Image.fromarray(noise).save(folder / "clear.png")
    Image.fromarray(noise[:1, :1, :3]).save(folder / "pixel.png")
    Image.fromarray(noise[:10, :10, :3]).save(folder / "tiny.BMP")
    Image.fromarray(noise[:3, :, :3].repeat(30, axis=1)).save(folder / "wide.tif")
    Image.fromarray(np.tile(noise[..., :3], (50, 50, 1))).save(folder / "huge.jpg")  # 12 megapixels
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(folder / "turned.webp", exif=turned)
    assert predict(trial, folder, tmp_path / "out", "--score-threshold", 0) == 0
    found = {
        photograph.path.name: photograph for photograph in read_coco(tmp_path / "out" / "detections.json").photographs
    }
    assert found["turned.webp"].size == (60, 80)
    assert found["huge.jpg"].size == (4000, 3000)
    assert all(len(photograph.boxes) for name, photograph in found.items() if name != "pixel.png")
    overlays = {path.name: read_image(path).shape for path in list_images(tmp_path / "out" / "overlays")}
    assert overlays.keys() == found.keys()
    assert (overlays["huge.jpg"], overlays["turned.webp"]) == ((3000, 4000, 3), (960, 720, 3))


def test_a_single_photograph_and_a_detector_without_landmarks(trial: Trial, tmp_path: Path) -> None:
    checkpoint = save(EarDetector(num_landmarks=0, **{**SHAPE, "in_channels": 1}), tmp_path / "boxes.ckpt")
    flags = ("--checkpoint", checkpoint, "--input", trial.empty, "--out", tmp_path / "out", "--score-threshold", 0)
    assert main([*map(str, flags)]) == 0
    found = read_coco(tmp_path / "out" / "detections.json")
    assert ([photograph.path for photograph in found.photographs], found.landmark_names) == ([trial.empty], ())
    assert found.num_ears > 0
    assert {"keypoints", "keypoints_scores"}.isdisjoint(json.loads((tmp_path / "out/results.json").read_text())[0])
    assert (tmp_path / "out" / "overlays" / trial.empty.name).is_file()


def test_landmarks_without_names_get_numbers(trial: Trial, tmp_path: Path) -> None:
    checkpoint = save(EarDetector(num_landmarks=3, **SHAPE), tmp_path / "unnamed.ckpt")
    flags = (
        "--checkpoint",
        checkpoint,
        "--input",
        trial.photographs,
        "--out",
        tmp_path / "out",
        "--score-threshold",
        0,
    )
    assert main([*map(str, flags), "--no-overlays"]) == 0
    assert read_coco(tmp_path / "out" / "detections.json").landmark_names == ("point_01", "point_02", "point_03")


def test_a_pattern_of_checkpoints_is_its_newest_match(trial: Trial, written: Path, tmp_path: Path) -> None:
    pattern = trial.checkpoint.with_name("*.ckpt")
    assert predict(trial, trial.photographs, tmp_path, "--checkpoint", pattern, "--crops") == 0
    assert files_of(tmp_path) == files_of(written)


# What cannot be used


def test_broken_files_are_left_out_and_listed(
    trial: Trial, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(trial.photographs, folder)
    cut = next(name for name in (Path("a/1.jpg"), Path("a/2.jpg")) if trial.photographs / name != trial.empty)
    (folder / cut).write_bytes((folder / cut).read_bytes()[:500])
    (folder / "b" / "notes.png").write_text("not a picture")
    assert predict(trial, folder, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "2 of 9 pictures cannot be read and are left out:" in printed
    assert f"  {folder / cut}: " in printed
    assert f"  {folder / 'b' / 'notes.png'}: not a picture that can be read" in printed
    found = read_coco(tmp_path / "out" / "detections.json")
    assert f"photographs 9, ears {found.num_ears}, without ears 1, unreadable 2 (" in printed.splitlines()[-1]
    wanted = {
        p.path.relative_to(trial.photographs): p.boxes for p in read_coco(written / "detections.json").photographs
    }
    del wanted[cut]
    assert {photograph.path.relative_to(folder) for photograph in found.photographs} == wanted.keys()
    for photograph in found.photographs:
        assert photograph.boxes == pytest.approx(wanted[photograph.path.relative_to(folder)], abs=1.1e-3)


def test_nothing_but_broken_files_is_an_error(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert predict(trial, tmp_path / "in", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/in/a.jpg: empty file (and 1 more: none of the 2 pictures can be read)\n"
    )
    assert not (tmp_path / "out" / "detections.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--input: give a photograph, or a folder of them"),
        (["--input", "{tmp}/none.jpg"], "none.jpg: no such file or folder"),
        (["--input", "{tmp}/empty"], "empty: holds no pictures (.bmp, "),
        (["--input", "{tmp}/notes.txt"], "notes.txt: neither a picture (.bmp, "),
        (
            ["--input", "{photos}", "--score-threshold", "1.5"],
            "--score-threshold 1.5: must be at least 0 and at most 1",
        ),
        (["--input", "{photos}", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--input", "{photos}", "--out", "{tmp}/notes.txt"], "notes.txt: is a file; give a folder"),
        (["--input", "{photos}", "--out", "{tmp}/notes.txt/out"], "notes.txt is a file; give a folder"),
        (["--input", "{photos}", "--out", "{photos}"], "the next run would read its pictures as photographs"),
        (["--input", "{photos}", "--out", "{photos}/../photographs/out"], "would read its pictures as photographs"),
        (["--input", "{tmp}/overlays", "--out", "{tmp}"], "lies in its overlays/ and would be replaced"),
        (["--input", "{tmp}/overlays/a.jpg", "--out", "{tmp}"], "lies in its overlays/ and would be replaced"),
        (["--input", "{photos}", "--checkpoint", "{tmp}/none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--input", "{photos}", "--checkpoint", "{tmp}/empty"], "empty: holds no config.json"),
        (["--input", "{photos}", "--checkpoint", "{tmp}/vae.ckpt"], "vae.ckpt: this checkpoint holds no ear detector"),
        (["--input", "{photos}", "--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
    ],
)
def test_a_mistake_is_one_line(
    trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "overlays").mkdir()
    shutil.copy(trial.empty, tmp_path / "overlays" / "a.jpg")
    vae = EarVAE(encoder="conv", base_channels=4, image_size=32, latent_dim=4, linear_path_size=0)
    stored = {"model": asdict(vae.config), "options": {}}
    torch.save({"state_dict": vae.state_dict(), "hyper_parameters": stored}, tmp_path / "vae.ckpt")
    filled = [flag.format(tmp=tmp_path, photos=trial.photographs) for flag in flags]
    given = {"--checkpoint": str(trial.checkpoint), "--out": str(tmp_path / "out")}
    defaults = [part for name, value in given.items() if name not in filled for part in (name, value)]
    before = files_of(tmp_path)
    assert main([*filled, *defaults]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert files_of(tmp_path) == before
