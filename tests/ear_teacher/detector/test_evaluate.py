"""`python -m ear_teacher.detector.evaluate`: a short real run for the command, an oracle detector for the metrics."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from ear_teacher.detector import train
from ear_teacher.detector.evaluate import main
from ear_teacher.detector.evaluation import EarDetectorEvaluationOptions, evaluate
from ear_teacher.detector.metrics.evaluation_set import open_source
from ear_teacher.detector.model import EarDetector
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import read_coco, write_coco
from earface.data.images import Pixels, read_image
from earface.synthetic.scene_set import SceneSet, write_scene_set

pytestmark = pytest.mark.runs

SHAPE = {"encoder": "conv", "base_channels": 4, "image_size": 64, "crop_size": 32, "pyramid_width": 16}
FILES = ("detections.json", "metrics.json", "per_ear.csv", "per_landmark.csv")
PICTURES = ("cumulative_error.png", "precision_recall.png", "scores.png")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 synthetic photographs, train/ and val/ with 8 and 16, each with annotations.json."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scene_set(folder / "train", SceneSet(8, 160, 120, seed=1))
    write_scene_set(folder / "val", SceneSet(16, 200, 150, seed=2))
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path) -> Path:
    """last.ckpt of an epoch of training on train/, validated on val/."""
    shape = [text for name, value in SHAPE.items() for text in (f"--{name}", str(value))]
    places = ["--checkpoint-dir", f"{scenes}/run/checkpoints", "--log-dir", f"{scenes}/run/logs"]
    data = ["--train-json", f"{scenes}/train/annotations.json", "--val-json", f"{scenes}/val/annotations.json"]
    short = "--epochs 1 --batch-size 4 --num-workers 0 --precision 32 --progress none --encoder-weights none"
    assert train.main([*data, *shape, *places, *short.split(), "--grid-images", "1", "--ema-decay", "0.5"]) == 0
    return scenes / "run" / "checkpoints" / "last.ckpt"


class Knowing(EarDetector):
    """Knows the ears of some photographs, and is wrong in known ways.

    It misses every third ear, places landmarks 3 px to the right in annotated boxes and 4 px in its own, calls every
    second landmark hidden, and sees an ear in each photograph's corner with score .95 or .2.
    """

    def __init__(self, annotations: Annotations) -> None:
        super().__init__(num_landmarks=17, landmark_names=annotations.landmark_names, **SHAPE)
        self.known = {read_image(each.path).tobytes(): each for each in annotations.photographs}
        numbers = iter(range(annotations.num_ears))
        self.missed = {each.path: [next(numbers) % 3 == 2 for _ in each.boxes] for each in annotations.photographs}
        self.alarm = {each.path: 0.95 if number % 2 else 0.2 for number, each in enumerate(annotations.photographs)}

    def predict(self, photographs: Sequence[Pixels]) -> list[dict[str, Tensor]]:
        found = []
        for picture in photographs:
            known = self.known[picture.tobytes()]
            kept = ~np.array(self.missed[known.path], bool)
            boxes = known.boxes[kept] * np.float32([1, 1, 1, 0.92])  # IoU .92
            boxes = np.concatenate([boxes, [[0, 0, 9, 9]]]).astype(np.float32)
            scores = np.append(np.linspace(0.9, 0.4, len(boxes) - 1), self.alarm[known.path])
            points = np.concatenate([shifted(known.keypoints[kept], 4), np.zeros((1, 17, 3), np.float32)])
            order = np.argsort(-scores, kind="stable")
            boxes[:, 2:] += boxes[:, :2]
            answer = {"boxes": boxes[order], "scores": scores[order].astype(np.float32), "keypoints": points[order]}
            found.append({name: torch.from_numpy(values) for name, values in answer.items()})
        return found

    def place_landmarks(self, photographs: Sequence[Pixels], boxes: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        known = [self.known[picture.tobytes()] for picture in photographs]
        for each, given in zip(known, boxes, strict=True):
            np.testing.assert_allclose(given[:, 2:] - given[:, :2], each.boxes[:, 2:], rtol=1e-4)
        points = [torch.from_numpy(shifted(each.keypoints, 3)) for each in known]
        return [{"keypoints": each, "keypoints_scores": 0.25 + 0.5 * each[..., 2]} for each in points]


def shifted(keypoints: np.ndarray, pixels: float) -> np.ndarray:
    """To the right; called visible, hidden, visible, ..."""
    moved = keypoints + np.float32([pixels, 0, 0])
    moved[..., 2] = (np.arange(keypoints.shape[1]) + 1) % 2
    return moved


def measured(annotations: Path, out: Path, images: Path | None = None, **options: Any) -> dict[str, Any]:
    source = open_source(str(annotations), images and str(images))
    out.mkdir()
    return evaluate(Knowing(source.annotations), source, out, EarDetectorEvaluationOptions(**options))


@pytest.fixture(scope="module")
def known(scenes: Path) -> tuple[dict[str, Any], Path, Annotations]:
    """Metrics and folder of the oracle detector, at a score threshold of .5."""
    annotations = read_coco(scenes / "val" / "annotations.json")
    return measured(annotations.source, scenes / "known"), scenes / "known", annotations


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def all_ears(annotations: Annotations) -> list[tuple[Photograph, int, bool]]:
    """Photograph, number of the ear in it, whether `Knowing` misses it."""
    ears = [(each, number) for each in annotations.photographs for number in range(len(each.boxes))]
    return [(*ear, count % 3 == 2) for count, ear in enumerate(ears)]


def landmark_box(points: np.ndarray) -> float:
    labelled = points[points[:, 2] > 0]
    return math.dist(labelled[:, :2].min(0), labelled[:, :2].max(0))


def edited(annotations: Annotations, path: Path, **changes: Any) -> Path:
    write_coco(path, dataclasses.replace(annotations, **changes))
    return path


def test_detections_json_gives_the_same_metrics_in_pycocotools(known):
    metrics, out, annotations = known
    truth = COCO(str(annotations.source))
    evaluation = COCOeval(truth, truth.loadRes(str(out / "detections.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    boxes = metrics["detection"]
    found = [boxes["ap"], boxes["ap50"], boxes["ap75"], boxes["average_recall"]]
    np.testing.assert_allclose(found, evaluation.stats[[0, 1, 2, 8]], atol=1e-6)
    assert 0.1 < boxes["ap"] < boxes["ap50"] < 0.9


def test_detections_json_names_files_and_holds_cocos_visibility(known):
    _, out, annotations = known
    entries = json.loads((out / "detections.json").read_text())
    names = {image["id"]: image["file_name"] for image in json.loads(annotations.source.read_text())["images"]}
    assert {entry["image_id"] for entry in entries} == set(names)
    assert all(entry["file_name"] == names[entry["image_id"]] for entry in entries)
    assert {value for entry in entries for value in entry["keypoints"][2::3]} == {1.0, 2.0}


def test_the_operating_point_counts_what_is_missed_and_what_is_wrong(known):
    metrics, _, annotations = known
    ears, point = all_ears(annotations), metrics["detection"]["operating_point"]
    hits = 0
    for photograph in annotations.photographs:
        kept = sum(not missed for each, _, missed in ears if each is photograph)
        hits += sum(score >= 0.5 for score in np.linspace(0.9, 0.4, kept))
    alarms = len(annotations) // 2
    assert metrics["detection"]["photographs"] == len(annotations) == 16
    assert any(not len(photograph.boxes) for photograph in annotations.photographs)
    assert point["detections"] == hits + alarms
    assert point["recall"] == pytest.approx(hits / len(ears))
    assert point["precision"] == pytest.approx(hits / (hits + alarms))
    assert point["false_positives_per_photograph"] == 0.5
    by_threshold = {each["threshold"]: each for each in metrics["detection"]["by_threshold"]}
    assert list(by_threshold) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert by_threshold[0.5] == point
    assert by_threshold[0.1]["detections"] == sum(not missed for _, _, missed in ears) + 16


def test_landmarks_are_measured_in_annotated_boxes_and_end_to_end(known):
    metrics, _, annotations = known
    ears = all_ears(annotations)
    lengths = np.array([landmark_box(photograph.keypoints[number]) for photograph, number, _ in ears])
    placed, own = metrics["landmarks"]["annotated_boxes"], metrics["landmarks"]["end_to_end"]
    assert placed["ears"] == own["ears"] == len(ears)
    assert placed["nme"] == pytest.approx((3 / lengths).mean(), rel=1e-4)
    assert placed["unmatched"] == 0.0
    recall = metrics["detection"]["operating_point"]["recall"]
    assert own["unmatched"] == pytest.approx(1 - recall)
    assert 0.3 < recall < 0.7
    seen = metrics["landmarks"]["visibility"]
    labelled = np.concatenate([photograph.keypoints[number, :, 2] for photograph, number, _ in ears])
    called = np.tile((np.arange(17) + 1) % 2, len(ears))
    assert seen["accuracy"] == pytest.approx(((labelled == 2) == called)[labelled > 0].mean())


def test_end_to_end_only_ears_found_at_the_threshold_have_an_error(known):
    metrics, out, annotations = known
    errors = []
    for row, (photograph, number, missed) in zip(table(out / "per_ear.csv"), all_ears(annotations), strict=True):
        length = landmark_box(photograph.keypoints[number])
        assert float(row["nme"]) == pytest.approx(3 / length, rel=1e-3)
        assert float(row["best_iou"]) == pytest.approx(0.92, abs=1e-3) or missed
        assert (row["score"] == "") == missed
        assert (row["nme_end_to_end"] != "") == (row["score"] != "" and float(row["score"]) >= 0.5)
        if row["nme_end_to_end"]:
            assert float(row["nme_end_to_end"]) == pytest.approx(4 / length, rel=1e-3)
            errors.append(4 / length)
    assert metrics["landmarks"]["end_to_end"]["nme"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_one_row_per_ear_and_one_per_landmark_and_protocol(known):
    _, out, annotations = known
    rows = table(out / "per_ear.csv")
    names = [
        photograph.path.relative_to(annotations.source.parent).as_posix() for photograph, _, _ in all_ears(annotations)
    ]
    assert [row["file"] for row in rows] == names
    assert [int(row["ear"]) for row in rows] == [number + 1 for _, number, _ in all_ears(annotations)]
    for row, (photograph, number, _) in zip(rows, all_ears(annotations), strict=True):
        box = [float(row[name]) for name in ("x", "y", "width", "height")]
        np.testing.assert_allclose(box, photograph.boxes[number], rtol=1e-5)
    landmarks = table(out / "per_landmark.csv")
    assert [row["landmark"] for row in landmarks] == list(annotations.landmark_names) * 2
    assert [row["protocol"] for row in landmarks] == ["annotated_boxes"] * 17 + ["end_to_end"] * 17
    counts = np.sum([photograph.keypoints[number, :, 2] > 0 for photograph, number, _ in all_ears(annotations)], axis=0)
    assert [int(row["count"]) for row in landmarks[:17]] == counts.tolist()
    assert {path.name for path in out.iterdir()} >= {*PICTURES, *FILES} - {"metrics.json"}


def test_the_worst_errors_are_shown_and_image_grids_of_an_earlier_evaluation_are_deleted(known, scenes, tmp_path):
    _, out, annotations = known
    for name in ("missed", "false_alarms", "worst_landmarks"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300
    source = open_source(str(annotations.source), None)
    (tmp_path / "missed.png").write_bytes(b"of an earlier evaluation")
    perfect = Knowing(source.annotations)
    perfect.missed = {path: [False] * len(ears) for path, ears in perfect.missed.items()}
    metrics = evaluate(perfect, source, tmp_path, EarDetectorEvaluationOptions(score_threshold=0.0))
    assert metrics["landmarks"]["end_to_end"]["unmatched"] == 0.0
    assert not (tmp_path / "missed.png").exists()


def test_without_pictures_no_ear_is_shown_nor_left_of_an_earlier_evaluation(known, tmp_path):
    _, out, annotations = known
    source = open_source(str(annotations.source), None)
    (tmp_path / "missed.png").write_bytes(b"of an earlier evaluation")
    options = EarDetectorEvaluationOptions(pictures=False)
    evaluate(Knowing(source.annotations), source, tmp_path, options)
    shown = {"missed.png", "false_alarms.png", "worst_landmarks.png"}
    wanted = {path.name for path in out.iterdir()} - shown - {"metrics.json"}
    assert {path.name for path in tmp_path.iterdir()} == wanted


def test_the_normaliser_and_the_limit_are_those_given(known, tmp_path):
    _, _, annotations = known
    options = {"normaliser": "ear-box", "ced_limit": 0.5, "score_threshold": 0.0, "batch_size": 3}
    metrics = measured(annotations.source, tmp_path / "out", **options)["landmarks"]
    errors = np.array([3 / math.hypot(*photograph.boxes[ear, 2:]) for photograph, ear, _ in all_ears(annotations)])
    assert (metrics["normaliser"], metrics["limit"]) == ("ear-box", 0.5)
    assert metrics["annotated_boxes"]["nme"] == pytest.approx(errors.mean(), rel=1e-4)
    assert metrics["annotated_boxes"]["auc"] == pytest.approx(np.maximum(0, 1 - errors / 0.5).mean(), rel=1e-4)


def test_photographs_whose_boxes_only_enclose_landmarks_are_not_in_box_metrics(known, tmp_path):
    metrics, _, annotations = known
    photographs = [
        dataclasses.replace(each, has_boxes=number % 2 == 0) for number, each in enumerate(annotations.photographs)
    ]
    path = edited(annotations, tmp_path / "half.json", photographs=photographs)
    source = open_source(str(path), None)
    detector = Knowing(annotations)
    detector.place_landmarks = lambda pictures, boxes: Knowing(source.annotations).place_landmarks(pictures, boxes)
    (tmp_path / "out").mkdir()
    half = evaluate(detector, source, tmp_path / "out", EarDetectorEvaluationOptions())
    left_out = sum(bool(len(each.boxes)) for each in photographs[1::2])  # one without ears has none that is unmarked
    assert half["detection"]["photographs"] == 16 - left_out < 16
    assert half["detection"]["ears"] == sum(len(each.boxes) for each in photographs[::2])
    assert half["landmarks"]["annotated_boxes"] == metrics["landmarks"]["annotated_boxes"]
    assert any(f"{left_out} photographs are left out" in note for note in half["notes"])


def test_only_boxes_are_evaluated_if_the_file_has_no_landmarks(known, tmp_path):
    _, out, annotations = known
    empty = [dataclasses.replace(each, keypoints=each.keypoints[:, :0]) for each in annotations.photographs]
    path = edited(annotations, tmp_path / "boxes.json", photographs=empty, landmark_names=(), skeleton=())
    detector, source = Knowing(annotations), open_source(str(path), None)
    shutil.copytree(out, tmp_path / "out")  # of an evaluation with landmarks
    found = evaluate(detector, source, tmp_path / "out", EarDetectorEvaluationOptions())
    assert found["landmarks"] is None
    assert found["detection"]["ap"] > 0.1
    assert any("the file has none" in note for note in found["notes"])
    for name in ("per_landmark.csv", "cumulative_error.png", "worst_landmarks.png"):
        assert (out / name).exists()
        assert not (tmp_path / "out" / name).exists()
    assert {row["nme"] for row in table(tmp_path / "out" / "per_ear.csv")} == {""}
    entries, same = (json.loads((folder / "detections.json").read_text()) for folder in (tmp_path / "out", out))
    assert [entry["keypoints"] for entry in entries] == [entry["keypoints"] for entry in same]


def test_notes_name_what_could_mislead(known, scenes, tmp_path):
    metrics, _, annotations = known
    assert any("insufficient data" in note for note in metrics["notes"])
    photographs = [dataclasses.replace(each, keypoints=each.keypoints.copy()) for each in annotations.photographs]
    for photograph in photographs:
        photograph.keypoints[..., 2] = 2
        photograph.keypoints[:, 5:] = 0
    names = ("chin", *annotations.landmark_names[1:])
    path = edited(annotations, tmp_path / "few.json", photographs=photographs, landmark_names=names)
    source = open_source(str(path), None)
    detector = Knowing(annotations)
    (tmp_path / "out").mkdir()
    found = evaluate(detector, source, tmp_path / "out", EarDetectorEvaluationOptions(score_threshold=0.01))
    notes = " ".join(found["notes"])
    for words in ("fewer than half", "hidden: visibility cannot", "'chin' here", "scores below 0.05"):
        assert words in notes
    assert found["landmarks"]["visibility"]["accuracy"] is None


def test_an_unreadable_photograph_is_left_out_and_named(known, scenes, tmp_path):
    _, _, annotations = known
    many = Annotations(tmp_path / "many.json", [], annotations.landmark_names, annotations.skeleton)
    for copy in range(2):  # 32 photographs, of which one is 3 %
        shutil.copytree(scenes / "val" / "images", tmp_path / f"images{copy}")
        moved = [
            dataclasses.replace(each, path=tmp_path / f"images{copy}" / each.path.name)
            for each in annotations.photographs
        ]
        many.photographs.extend(moved)
    write_coco(tmp_path / "many.json", many)
    detector, path = Knowing(annotations), tmp_path / "images0" / "000003.jpg"
    path.write_bytes(path.read_bytes()[:1500])  # the header still has its size
    source = open_source(str(tmp_path / "many.json"), None)
    (tmp_path / "out").mkdir()
    found = evaluate(detector, source, tmp_path / "out", EarDetectorEvaluationOptions())
    assert found["photographs"] == 31
    assert len(found["unreadable"]) == 1
    assert "images0/000003.jpg" in found["unreadable"][0]
    assert any("1 unreadable" in note for note in found["notes"])
    assert "images0/000003.jpg" not in {row["file"] for row in table(tmp_path / "out" / "per_ear.csv")}


def test_the_command_evaluates_on_the_runs_validation_photographs(run, scenes, capsys):
    assert main(["--checkpoint", str(run)]) == 0
    printed = capsys.readouterr().out
    out = scenes / "run" / "evaluation" / "last"
    metrics = json.loads((out / "metrics.json").read_text())
    assert {path.name for path in out.iterdir()} >= {*FILES, *PICTURES}
    assert metrics["json"] == f"{scenes}/val/annotations.json"
    assert metrics["checkpoint"] == str(run)
    assert metrics["photographs"] == 16
    assert "interpolated precision" in metrics["convention"]
    for words in ("AP50", "false alarms per photograph", "insufficient data", "end to end", "NME", f"{out}"):
        assert words in printed


def test_a_second_evaluation_gives_the_same_bytes_and_raw_weights_others(run, scenes, tmp_path):
    first, again, raw = (tmp_path / name for name in ("first", "again", "raw"))
    arguments = ["--checkpoint", f"{run.parent}/las*.ckpt", "--json", f"{scenes}/val/annotations.json"]
    for folder, weights in ((first, "averaged"), (again, "averaged"), (raw, "raw")):
        assert main([*arguments, "--out", str(folder), "--weights", weights, "--device", "cpu"]) == 0
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert table(first / "per_ear.csv") != table(raw / "per_ear.csv")


def test_photographs_and_people_that_were_trained_on_are_marked(run, scenes, tmp_path, capsys):
    assert main(["--checkpoint", str(run), "--json", f"{scenes}/train/annotations.json", "--out", f"{tmp_path}/o"]) == 0
    assert "8 of the photographs and 1 of the people were trained on" in capsys.readouterr().out


def test_file_names_start_from_the_folder_that_is_given(run, scenes, tmp_path, capsys):
    shutil.copy(scenes / "val" / "annotations.json", tmp_path / "elsewhere.json")
    arguments = ["--checkpoint", str(run), "--json", f"{tmp_path}/elsewhere.json", "--out", f"{tmp_path}/out"]
    assert main(arguments) == 2
    assert "photographs are missing" in capsys.readouterr().err
    assert main([*arguments, "--images", f"{scenes}/val"]) == 0


def spoil(run: Path, scenes: Path, tmp_path: Path, what: str) -> list[str]:
    """Arguments with one thing wrong."""
    good = ["--checkpoint", str(run), "--out", f"{tmp_path}/out"]
    annotations = read_coco(scenes / "val" / "annotations.json")
    if what == "no ears":
        cut = [
            dataclasses.replace(p, boxes=p.boxes[:0], keypoints=p.keypoints[:0], sides=())
            for p in annotations.photographs
        ]
        return [*good, "--json", str(edited(annotations, tmp_path / "none.json", photographs=cut))]
    if what == "other landmarks":
        cut = [dataclasses.replace(p, keypoints=p.keypoints[:, :5]) for p in annotations.photographs]
        names = annotations.landmark_names[:5]
        path = edited(annotations, tmp_path / "five.json", photographs=cut, landmark_names=names, skeleton=())
        return [*good, "--json", str(path)]
    if what == "an ear VAE":
        torch.save({"state_dict": {}, "hyper_parameters": {"model": {"latent_dim": 4}}}, tmp_path / "vae.ckpt")
        return ["--checkpoint", f"{tmp_path}/vae.ckpt"]
    if what == "two validation files":
        checkpoint = torch.load(run, weights_only=True)
        checkpoint["hyper_parameters"]["options"]["val_json"] = ["one.json", "two.json"]
        torch.save(checkpoint, tmp_path / "two.ckpt")
        return ["--checkpoint", f"{tmp_path}/two.ckpt"]
    if what == "broken photographs":
        shutil.copytree(scenes / "val", tmp_path / "val")
        for path in sorted((tmp_path / "val" / "images").iterdir())[:2]:
            path.write_bytes(path.read_bytes()[:1500])
        return [*good, "--json", f"{tmp_path}/val/annotations.json"]
    if what == "out is a file":
        (tmp_path / "out").write_text("")
        return good
    return [*good, *what.split()]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no ears", "none.json: none of its 16 photographs has an ear"),
        ("other landmarks", "five.json: 5 landmarks, but the model places 17"),
        ("an ear VAE", "vae.ckpt: this checkpoint holds no ear detector"),
        ("two validation files", "one.json, two.json: choose the file by --json"),
        ("broken photographs", "2 of 16 photographs cannot be read, over 5%"),
        ("out is a file", "is a file"),
        ("--checkpoint none.ckpt", "none.ckpt: no such checkpoint"),
        ("--json none.json", "none.json: no such file"),
        ("--batch-size 0", "--batch-size 0: must be at least 1"),
        ("--score-threshold 2", "--score-threshold 2.0: must be at least 0 and at most 1"),
        ("--ced-limit 0", "--ced-limit 0.0: must be above 0"),
        ("--normaliser inter-ocular", "choose one of landmark-box, ear-box"),
        ("--speed 3", "--speed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, scenes, tmp_path, capsys, what, message):
    assert main(spoil(run, scenes, tmp_path, what)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_model_of_boxes_cannot_be_evaluated_on_landmarks_alone(known, tmp_path):
    _, _, annotations = known
    photographs = [dataclasses.replace(each, has_boxes=False) for each in annotations.photographs if len(each.boxes)]
    source = open_source(str(edited(annotations, tmp_path / "points.json", photographs=photographs)), None)
    boxes_only = EarDetector(num_landmarks=0, **SHAPE)
    with pytest.raises(ValueError, match="nothing to measure"):
        evaluate(boxes_only, source, tmp_path, EarDetectorEvaluationOptions())
