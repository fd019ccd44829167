"""A detector for other programs: the hub's folder, bit for bit, and ONNX beside PyTorch, from photograph to ears."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from dsr import DSR, DSRConfig
from ear_teacher import EarVAE
from ear_teacher.detector.box_detector import Suppression
from ear_teacher.detector.detections_onnx import INPUT, OUTPUTS, check_detections, with_selection, write_detections
from ear_teacher.detector.export import main
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.onnx_export import examples, write_onnx
from ear_teacher.detector.options import ONNX_FILES
from earface.core.errors import InputError
from earface.data.ear_networks import EarBoxes, check_picture
from earface.data.images import Pixels, write_image
from earface.export import onnx_export
from earface.nn.inference import weights_digest
from tests.conftest import only_line
from tests.ear_teacher.detector.test_model import PHOTOGRAPHS, SHAPE, assert_same, detector, photograph, saved
from tests.support.ear_boxes import write_fixed_boxes
from tests.support.hub import edit_config

pytestmark = pytest.mark.runs

Floats = np.ndarray
NAMED: dict[str, Any] = {"landmark_names": ("helix", "tragus", "lobule"), "skeleton": ((1, 2), (2, 3))}
SAVED = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def model() -> EarDetector:
    """With a threshold that leaves out some of what it finds."""
    model = detector(**NAMED)
    model.score_threshold = 0.55
    return model


@pytest.fixture(scope="module")
def exported(model: EarDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, in both formats, from a folder."""
    place = tmp_path_factory.mktemp("exported")
    model.save_pretrained(place / "saved")
    assert main(["--checkpoint", str(place / "saved"), "--out", str(place / "out")]) == 0
    return place / "out"


@pytest.fixture
def folder(model: EarDetector, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# The hub's folder


@pytest.mark.parametrize("shape", [NAMED, {"in_channels": 1, "num_landmarks": 0}], ids=["landmarks", "grey boxes"])
def test_a_saved_model_comes_back_bit_for_bit(shape: dict[str, Any], tmp_path: Path) -> None:
    model = detector(**shape)
    model.score_threshold, model.suppression = 0.2, Suppression(0.3, 0.9)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == SAVED
    loaded = EarDetector.from_pretrained(tmp_path)
    assert not loaded.training
    assert (loaded.config, loaded.digest) == (model.config, model.digest)
    assert (loaded.score_threshold, loaded.suppression) == (0.2, Suppression(0.3, 0.9))
    for first, second in zip(loaded.predict(PHOTOGRAPHS[:2]), model.predict(PHOTOGRAPHS[:2]), strict=True):
        assert len(first["boxes"])
        assert_same(first, second)


def test_the_digest_depends_on_weights_and_sizes(model: EarDetector) -> None:
    assert model.digest == weights_digest(model, "96 32") == detector().digest
    larger = EarDetector(**{**SHAPE, "image_size": 128})
    larger.load_state_dict(model.state_dict())
    other = detector()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    assert len({model.digest, larger.digest, other.digest}) == 3


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (None, {"kind": "earface.EarVAE"}, r"config\.json: describes no ear detector"),
        (None, {"model": {"image_size": 96}}, r'config\.json: "model" lacks the field encoder'),
        (None, {"provenance": {}}, r"config\.json: provenance lacks the rules of detections"),
        ("model", {"anchors": 4}, r"config\.json: unknown fields anchors"),
        ("model", {"landmark_names": "helix"}, r"config\.json: landmark_names 'helix' is not of type list"),
        ("model", {"landmark_names": ["helix"]}, r"config\.json: `num_landmarks` 3: the landmarks' names are not 3"),
        ("model", {"landmark_names": [1, 2, 3]}, r"config\.json: `num_landmarks` 3: the landmarks' names are not 3"),
        ("model", {"skeleton": [1]}, r"config\.json: the skeleton is not of pairs"),
        ("model", {"skeleton": [[3, 4]]}, r"config\.json: `num_landmarks` 3: the skeleton joins others than 1 to 3"),
        ("model", {"num_landmarks": [3]}, r"config\.json: num_landmarks \[3\] is not of type int"),
        ("model", {"image_size": 100}, r"config\.json: `image_size` 100: must be a multiple of 32"),
        ("model", {"pyramid_width": 24}, r"saved: \d+ tensors do not fit this model"),
        # the same tensors fit these sizes: only the images differ
        ("model", {"image_size": 128}, r"config\.json: its images are not those of this version \(size\)"),
        ("model", {"crop_size": 64}, r"config\.json: its images are not those of this version \(crop_size\)"),
        ("image", {"pad": 0}, r"config\.json: its images are not those of this version \(pad\)"),
        ("provenance", {"detections": {"score_threshold": 2}}, r"config\.json: provenance lacks the rules"),
    ],
)
def test_a_config_that_was_tampered_with_is_one_line(
    folder: Path, part: str | None, fields: dict[str, Any], message: str
) -> None:
    edit_config(folder, part, **fields)
    with pytest.raises(InputError, match=message) as caught:
        EarDetector.from_pretrained(folder)
    assert "\n" not in str(caught.value)


# ONNX


def run(path: Path, given: Floats) -> list[Floats]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})


def assert_onnx_is(folder: Path, model: EarDetector) -> None:
    """Both files, at batch sizes that the export itself did not compare."""
    config = model.config
    for count in (2, 5):
        images = examples(config.in_channels, config.image_size, 8)[-count:]
        with torch.no_grad():
            logits, places = model.boxes(images)
        boxes, scores = run(folder / "boxes.onnx", images.numpy())
        assert logits.sigmoid().std() > 0.1  # it says something
        np.testing.assert_allclose(boxes, places, rtol=0, atol=1e-4 * float(places.abs().max()))
        np.testing.assert_allclose(scores, logits.sigmoid(), rtol=0, atol=1e-4)
        if model.landmarks is None:
            continue
        crops = examples(config.in_channels, config.crop_size, 8)[-count:]
        with torch.no_grad():
            wanted, visibility, _ = model.landmarks(crops)
        points, seen = run(folder / "landmarks.onnx", crops.numpy())
        assert wanted.std(dim=0).max() > 0.1
        np.testing.assert_allclose(points, wanted, rtol=0, atol=1e-4 * config.crop_size)
        np.testing.assert_allclose(seen, visibility.sigmoid(), rtol=0, atol=1e-4)


def test_onnx_computes_what_pytorch_computes_at_any_batch_size(exported: Path, model: EarDetector) -> None:
    assert_onnx_is(exported, model)


@pytest.mark.slow
def test_boxes_alone_are_one_file_and_the_other_of_an_earlier_export_is_deleted(tmp_path: Path) -> None:
    model = detector(in_channels=1, num_landmarks=0)
    (tmp_path / "landmarks.onnx").write_text("of another detector")
    written = write_onnx(tmp_path, model, 1e-4)
    assert [(each.file, each.output) for each in written[::3]] == [("boxes.onnx", "boxes"), ("boxes.onnx", "scores")]
    assert {path.name for path in tmp_path.iterdir()} == {"boxes.onnx", "detector.onnx"}
    assert_onnx_is(tmp_path, model)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [{"in_channels": 1}, {"num_landmarks": 0}, {"encoder": "resnet18"}], ids=str)
def test_onnx_of_other_shapes(shape: dict[str, Any], tmp_path: Path) -> None:
    model = detector(**shape)
    write_onnx(tmp_path, model, 1e-4)
    assert_onnx_is(tmp_path, model)
    model.save_pretrained(tmp_path)
    # a deep network of random weights makes more of a grey level
    tolerance = 0.05 if "encoder" in shape else 0.005
    assert_same_ears(tmp_path, model, photograph(1, shape.get("in_channels", 3)), tolerance)


@pytest.mark.skipif(not hasattr(cv2.dnn, "ENGINE_NEW"), reason="OpenCV before 5 lacks operators of the networks")
def test_opencv_computes_the_same(exported: Path, model: EarDetector) -> None:
    for name, outputs, side in (
        ("boxes.onnx", ("boxes", "scores"), model.config.image_size),
        ("landmarks.onnx", ("points", "visibility"), model.config.crop_size),
    ):
        network = cv2.dnn.readNetFromONNX(str(exported / name))
        for count in (1, 3):
            given = examples(3, side, 8)[-count:].numpy()
            network.setInput(given)
            for found, wanted in zip(network.forward(outputs), run(exported / name, given), strict=True):
                np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=1e-3)


def test_the_onnx_files_carry_the_contract_of_the_folder(exported: Path, model: EarDetector) -> None:
    assert {path.name for path in exported.iterdir()} == {*SAVED, *ONNX_FILES}
    config = json.loads((exported / "config.json").read_text())
    assert config["kind"] == "earface.EarDetector"
    assert config["provenance"]["digest"] == model.digest
    for name in ONNX_FILES:
        about = {entry.key: entry.value for entry in onnx.load(exported / name).metadata_props}
        assert {key: about.pop(key) for key in ("digest", "licence")}.items() <= config["provenance"].items()
        checks = json.loads(about.pop("check")).get(name)
        side = model.config.crop_size if name == "landmarks.onnx" else model.config.image_size
        given = check_picture(side, 3).transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
        if checks:  # detector.onnx is read by none of our own programs
            np.testing.assert_allclose(
                checks, [[each.mean(), each.std()] for each in run(exported / name, given)], atol=1e-3
            )
        assert {key: json.loads(value) for key, value in about.items()} == {
            "image": config["image"],
            "landmark_names": config["model"]["landmark_names"],
            "detections": config["provenance"]["detections"],
        }
        assert b'.py"' not in (exported / name).read_bytes()  # the exporter's stack traces hold this machine's paths


# Detections: boxes.onnx and the detector's own choice in one file


def crafted_boxes(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """x1 y1 x2 y2, scores: a stair of which each step overlaps the next, nested boxes, and scattered ones."""
    stair = [[4.0 * step, 10, 4.0 * step + 10, 20] for step in range(150)]
    nested = [[700 + side, 700 + side, 780 - side, 780 - side] for side in range(30)]
    corner = rng.uniform(0, 900, (count - len(stair) - len(nested), 2))
    scattered = np.concatenate([corner, corner + rng.uniform(0, 60, corner.shape)], axis=1)
    boxes = np.concatenate([stair, nested, scattered]).astype(np.float32)
    scores = rng.permutation(np.linspace(0.99, 0.01, count)).astype(np.float32)
    scores[:150] = np.linspace(0.995, 0.9, 150)  # a step is dropped by a better one, which frees the next
    return boxes, scores


@pytest.mark.parametrize("rules", [Suppression(0.4, 0.7), Suppression(0.1, 1.0), Suppression(1.0, 0.3)], ids=str)
def test_the_choice_of_detector_onnx_is_that_of_the_detector(rules: Suppression, tmp_path: Path) -> None:
    model = detector(num_landmarks=0)
    model.score_threshold, model.suppression = 0.3, rules
    boxes, scores = crafted_boxes(np.random.default_rng(0), len(model.boxes.places))
    fixed = onnx.load(write_fixed_boxes(tmp_path / "fixed.onnx", boxes.tolist(), scores.tolist()))
    fixed.opset_import[0].version = 18
    onnx.save(with_selection(fixed, model), tmp_path / "all.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    found, best = (each[0] for each in session.run(OUTPUTS, {INPUT: np.zeros((1, 3, 64, 64), np.float32)}))
    table = torch.from_numpy(np.column_stack([boxes, scores]))
    [(wanted, wanted_scores)] = model.remaining(table[(-table[:, 4]).argsort()][None, :300])
    assert 20 < len(wanted) <= 100
    np.testing.assert_array_equal(best[: len(wanted)], wanted_scores)
    np.testing.assert_array_equal(found[: len(wanted)], wanted)
    assert not found[len(wanted) :].any()
    assert not best[len(wanted) :].any()


def test_detections_that_are_not_the_detectors_are_refused(exported: Path, tmp_path: Path) -> None:
    other = detector(**NAMED)
    other.score_threshold = 0.5
    given = examples(3, 96, 8).numpy()
    write_detections(exported / "boxes.onnx", tmp_path / "detector.onnx", other, given)
    boxes, scores, *inner = run_all(exported / "boxes.onnx", tmp_path / "detector.onnx", given)
    assert (scores > 0).sum() > 20
    with pytest.raises(InputError, match=r"its \d+ boxes are not the \d+ of EarDetector; nothing was written"):
        check_detections([boxes + 1, scores, *inner], other)
    with pytest.raises(InputError, match=r"are not the"):
        check_detections([boxes[:, :3], scores[:, :3], *inner], other)


def run_all(boxes: Path, detections: Path, given: Floats) -> list[Floats]:
    session = onnxruntime.InferenceSession(str(detections), providers=["CPUExecutionProvider"])
    return [*session.run(OUTPUTS, {INPUT: given}), *run(boxes, given)]


def test_a_detector_with_its_choice_inside_is_not_taken_for_boxes(exported: Path) -> None:
    with pytest.raises(InputError, match=r"detector\.onnx: not the boxes\.onnx that earface export detector writes"):
        EarBoxes(exported / "detector.onnx")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        write_image(folder / f"{number}.png", cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.mark.slow
def test_int8_is_measured_by_the_boxes_that_stay(
    model: EarDetector, folder: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--checkpoint", str(folder), "--out", str(out), "--format", "onnx", "--quantize", "int8"]
    given = [*arguments, "--calibration", str(photographs)]
    assert main([*given, "--max-loss", "1e-9"]) == 2
    assert "detector_int8.onnx: int8 loses" in only_line(capsys)
    assert list(out.iterdir()) == []
    assert main([*given, "--max-loss", "1"]) == 0
    assert {path.name for path in out.iterdir()} == {*ONNX_FILES, "detector_int8.onnx"}
    about = {each.key: each.value for each in onnx.load(out / "detector_int8.onnx").metadata_props}
    found = json.loads(about["int8"])
    assert (found["calibrated_on"], found["measured_on"]) == (10, 10)
    assert found["loss"] == pytest.approx(1 - found["agreement of boxes"])
    assert 0.5 < found["agreement of boxes"] < 1
    assert json.loads(about["detections"]) == model.saved_provenance()["detections"]


# From photograph to ears, by what config.json says: NumPy, OpenCV's resize, onnxruntime


def resized(photograph: Pixels, width: int, height: int) -> Pixels:
    if (width, height) == (photograph.shape[1], photograph.shape[0]):
        return photograph
    shrinks = width * height < photograph.shape[0] * photograph.shape[1]
    done = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return done.reshape(height, width, -1)


def in_range(picture: Floats, image: dict[str, Any]) -> Floats:
    unit = picture.astype(np.float32) / 255
    return ((unit - np.float32(image["mean"])) / np.float32(image["std"])).transpose(2, 0, 1)[None]


def kept_boxes(boxes: Floats, scores: Floats, rules: dict[str, float]) -> list[int]:
    """Indices, best first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable")[: rules["candidates"]]:
        if scores[index] < rules["score_threshold"]:
            break
        clashes = False
        for other in kept:
            low, high = np.maximum(boxes[index, :2], boxes[other, :2]), np.minimum(boxes[index, 2:], boxes[other, 2:])
            shared = float(np.prod(np.maximum(high - low, 0)))
            areas = [float(np.prod(boxes[each, 2:] - boxes[each, :2])) for each in (index, other)]
            iou = shared / (sum(areas) - shared)
            clashes |= iou > rules["iou"] or shared / min(areas) > rules["containment"]
        if not clashes:
            kept.append(int(index))
    return kept[: rules["max_detections"]]


def crop_of(photograph: Pixels, box: Floats, image: dict[str, Any]) -> tuple[Pixels, float, Floats]:
    """The crop, its pixels for one of the photograph, and the photograph's place at the crop's top left corner."""
    size, side = image["crop_size"], float((box[2:] - box[:2]).max()) * (1 + image["margin"])
    scale, corner = size / side, (box[:2] + box[2:]) / 2 - side / 2
    height, width = photograph.shape[:2]
    large = resized(photograph, max(1, round(width * scale)), max(1, round(height * scale)))
    ratio = np.array([large.shape[1] / width, large.shape[0] / height])
    cells = (np.arange(size) + 0.5) / scale
    x, y = ((corner[axis] + cells) * ratio[axis] - 0.5 for axis in (0, 1))
    padded = np.pad(large, ((1, 1), (1, 1), (0, 0)), constant_values=image["pad"]).astype(np.float64)

    def row_weights(places: Floats, count: int) -> Floats:
        """(size, count + 2): what each padded row contributes by bilinear interpolation."""
        first = np.floor(places).astype(int)
        weights = np.zeros((len(places), count + 2))
        for step, share in ((0, 1 - (places - first)), (1, places - first)):
            weights[np.arange(len(places)), np.clip(first + step + 1, 0, count + 1)] += share
        return weights

    wide, high = row_weights(x, large.shape[1]), row_weights(y, large.shape[0])
    return np.rint(np.einsum("ij,jkc,lk->ilc", high, padded, wide, optimize=True)), scale, corner


def ears_by_onnx(folder: Path, photograph: Pixels) -> dict[str, Floats]:
    content = json.loads((folder / "config.json").read_text())
    image, rules = content["image"], content["provenance"]["detections"]
    height, width = photograph.shape[:2]
    scale = image["size"] / max(height, width)
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = ((image["size"] - side) // 2 for side in fitted)
    square = np.full((image["size"], image["size"], photograph.shape[2]), image["pad"], np.uint8)
    square[top : top + fitted[1], left : left + fitted[0]] = resized(photograph, *fitted)
    boxes, scores = (each[0] for each in run(folder / "boxes.onnx", in_range(square, image)))
    kept = kept_boxes(boxes, scores, rules)
    ratio = np.array([width / fitted[0], height / fitted[1]] * 2)
    corners = ((boxes[kept] - [left, top, left, top]) * ratio).clip(0, [width, height, width, height])
    inside = (corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)
    found = {"boxes": corners[inside], "scores": scores[kept][inside]}
    if not (folder / "landmarks.onnx").exists():
        return found
    points, visibility = [], []
    for box in found["boxes"]:
        crop, scale, corner = crop_of(photograph, box, image)
        places, seen = run(folder / "landmarks.onnx", in_range(crop, image))
        points.append((places[0] + 0.5) / scale + corner - 0.5)
        visibility.append(seen[0])
    return found | {"points": np.stack(points), "visibility": np.stack(visibility)}


def assert_same_ears(folder: Path, model: EarDetector, photograph: Pixels, tolerance: float = 0.005) -> None:
    """tolerance: of landmarks, in sides of the box, and of visibility. The crops differ by a few grey levels."""
    wanted: dict[str, Tensor] = model.predict([photograph])[0]
    found = ears_by_onnx(folder, photograph)
    assert len(wanted["boxes"]) > 3
    np.testing.assert_allclose(found["boxes"], wanted["boxes"], rtol=0, atol=1e-2)
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=0, atol=1e-4)
    if model.landmarks is None:
        return
    sides = (wanted["boxes"][:, 2:] - wanted["boxes"][:, :2]).amax(dim=1).numpy()
    apart = np.abs(found["points"] - wanted["keypoints"][..., :2].numpy()).max(axis=(1, 2))
    assert (apart < tolerance * sides).all()
    np.testing.assert_allclose(found["visibility"], wanted["keypoints_scores"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_files_and_config_json_find_the_ears_that_predict_finds(
    exported: Path, model: EarDetector, number: int
) -> None:
    assert_same_ears(exported, model, PHOTOGRAPHS[number])


# The command


def test_an_exported_folder_can_be_exported_and_has_the_same_digest(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert main(["--checkpoint", str(exported), "--out", str(out), "--format", "safetensors"]) == 0
    assert {path.name for path in out.iterdir()} == SAVED
    for name in SAVED:
        assert (out / name).read_bytes() == (exported / name).read_bytes()


def test_either_set_of_weights_can_be_exported(model: EarDetector, tmp_path: Path) -> None:
    content = torch.load(saved(model, tmp_path / "last.ckpt"), weights_only=True)
    content["current_model_state"] = {name: 2 * value for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "last.ckpt")
    for weights, scale in (("averaged", 1), ("raw", 2)):
        out = tmp_path / weights
        arguments = ["--checkpoint", str(tmp_path / "last.ckpt"), "--out", str(out), "--weights", weights]
        assert main([*arguments, "--format", "safetensors"]) == 0
        found = EarDetector.from_pretrained(out).state_dict()
        assert all(torch.equal(found[name], scale * value) for name, value in model.state_dict().items())


def test_safetensors_alone_need_no_onnx(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx_that_is_not_installed",))
    arguments = ["--checkpoint", str(folder), "--out", f"{tmp_path}/out"]
    assert main(arguments) == 2
    assert 'pip install ".[onnx]"' in only_line(capsys)
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--format", "safetensors"]) == 0


@cache
def others() -> dict[str, Any]:
    """Models of another kind."""
    vae = EarVAE(latent_dim=2, encoder="conv", base_channels=4, image_size=32, linear_path_size=0)
    return {"vae": vae, "dsr": DSR(DSRConfig(base_channels=8, residual_blocks=1))}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checkpoint DIR/saved", "--out: give a folder"),
        ("--checkpoint DIR/saved --out DIR/saved/config.json", "config.json: is a file; give a folder"),
        (
            "--checkpoint DIR/saved --out DIR/saved --format onnx",
            "holds config.json and model.safetensors of an earlier",
        ),
        ("--checkpoint DIR/onnx --out DIR/onnx --format safetensors", "holds boxes.onnx of an earlier export"),
        ("--checkpoint DIR/none.ckpt --out DIR/out", "none.ckpt: no such checkpoint"),
        ("--checkpoint DIR/saved/README.md --out DIR/out", "README.md: refused, it holds more than tensors"),
        ("--checkpoint DIR/vae.ckpt --out DIR/out", "vae.ckpt: this checkpoint holds no ear detector"),
        ("--checkpoint DIR --out DIR/out", "holds no config.json"),
        ("--checkpoint DIR/vae --out DIR/out", "config.json: describes no ear detector"),
        ("--checkpoint DIR/dsr --out DIR/out", "config.json: describes no ear detector"),
        ("--checkpoint DIR/saved --out DIR/out --format tflite", "choose one of onnx, safetensors, both"),
        ("--checkpoint DIR/saved --out DIR/out --tolerance 0", "--tolerance 0.0: must be above 0"),
    ],
)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    place = folder.parent
    for other, model in others().items():
        model.save_pretrained(place / other)
    torch.save({"state_dict": {}, "hyper_parameters": {"model": {"encoder": "conv"}}}, place / "vae.ckpt")
    (place / "onnx").mkdir()
    (place / "onnx" / "boxes.onnx").write_text("of an earlier export")
    before = sorted(place.iterdir())
    assert main(arguments.replace("DIR", str(place)).split()) == 2
    assert message in only_line(capsys)
    assert sorted(place.iterdir()) == before


def test_half_precision_weights_are_half_the_size_and_nearly_the_same(
    exported: Path, model: EarDetector, tmp_path: Path
) -> None:
    write_onnx(tmp_path, model, 1e-4, half=True)
    for name, side in (("boxes.onnx", model.config.image_size), ("landmarks.onnx", model.config.crop_size)):
        files = (path / name for path in (exported, tmp_path))
        sizes = [sum(len(each.raw_data) for each in onnx.load(file).graph.initializer) for file in files]
        assert sizes[1] < 0.6 * sizes[0]
        given = examples(3, side, 8)[:3].numpy()
        for whole, half in zip(run(exported / name, given), run(tmp_path / name, given), strict=True):
            assert not np.array_equal(whole, half)
            np.testing.assert_allclose(half, whole, rtol=0, atol=4e-3 * max(1.0, float(np.abs(whole).max())))
