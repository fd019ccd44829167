"""`quantize` of each command: int8 files beside the float ones, by pictures as each package reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dsr.export import main as export_dsr
from dsr.onnx_export import calibration_faces as vlr_faces
from ear_teacher.calibration_ears import calibration_ears
from ear_teacher.export import main as export_ears
from ear_teacher.recognition.export import main as export_recognizer
from earface.data.images import read_image, resize_image, write_image
from earface.data.npy import write_teacher_npy
from earface.data.pixels import to_model_range
from earface.metrics.image_quality import psnr
from earface.nn.trained_model import TrainedModel
from facial_rec.contract import FaceContract
from facial_rec.embedding import read_face
from facial_rec.export import main as export_edgeface
from facial_rec.model import EdgeFace
from facial_rec.onnx_export import calibration_faces
from tests.dsr.test_export import small
from tests.ear_teacher.test_export import SHAPES, trained
from tests.support.ear_recognizer import small_recognizer
from tests.support.edgeface import random_edgeface

pytestmark = [pytest.mark.runs, pytest.mark.slow]

Command = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/NUMBER.png: smooth pictures of 8 people, three of each."""
    import cv2

    folder = tmp_path_factory.mktemp("people")
    for number in range(24):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        write_image(folder / f"S{number // 3}" / f"{number}.png", cv2.resize(coarse, (64, 64), interpolation=2))
    return folder


def export(command: Command, model: TrainedModel, people: Path, folder: Path) -> Path:
    model.save_pretrained(folder / "saved")
    given = ["--checkpoint", f"{folder}/saved", "--out", f"{folder}/out", "--format", "onnx", "--max-loss", "1"]
    assert command([*given, "--quantize", "int8", "--calibration", str(people)]) == 0
    return folder / "out"


def found_in(path: Path) -> dict[str, float]:
    return json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["int8"])


def test_an_ear_vae_has_both_networks_in_int8(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The decoder's PSNR is that of its pictures beside the ears that did not calibrate, by the project's measure."""
    model = trained(**SHAPES["conv with linear path"])
    out = export(export_ears, model, people, tmp_path)
    assert {path.name for path in out.iterdir()} == {
        *("encoder.onnx", "decoder.onnx", "encoder_int8.onnx", "decoder_int8.onnx")
    }
    given = calibration_ears(model.config, str(people))
    ears = torch.from_numpy(given.inputs[given.held_out])
    with torch.no_grad():
        mu = model.encode(to_model_range(ears))
    wanted = ears.permute(0, 3, 1, 2) / 255
    for name, file in (("float", "decoder.onnx"), ("int8", "decoder_int8.onnx")):
        session = onnxruntime.InferenceSession(str(out / file), providers=["CPUExecutionProvider"])
        decoded = (torch.from_numpy(session.run(None, {"latent": mu.numpy()})[0]).clamp(-1, 1) + 1) / 2
        assert found_in(out / "decoder_int8.onnx")[f"PSNR of {name}"] == pytest.approx(
            float(psnr(decoded, wanted).mean()), abs=0.05
        )
    assert found_in(out / "encoder_int8.onnx")["mean cosine"] > 0.9
    printed = capsys.readouterr().out
    assert "encoder_int8.onnx: mean cosine" in printed
    assert "decoder_int8.onnx: PSNR of int8 to float" in printed


def test_an_ear_recogniser_is_measured_on_people_too(people: Path, tmp_path: Path) -> None:
    out = export(export_recognizer, small_recognizer("stretch"), people, tmp_path)
    found = found_in(out / "recognizer_int8.onnx")
    assert found["mean cosine"] > 0.9
    assert {"rank-1 of float", "rank-1 of int8"} <= found.keys()


def test_edgeface_is_calibrated_on_faces_by_its_contract(people: Path, tmp_path: Path) -> None:
    model = EdgeFace.from_weights(random_edgeface(tmp_path / "weights.pt", 0))
    given = calibration_faces(model, str(people))
    paths = sorted(people.rglob("*.png"))
    read = {read_face(path, FaceContract("arcface")).numpy().tobytes(): path.parent.name for path in paths}
    assert [read[face.tobytes()] for face in given.inputs] == given.people
    out = export(export_edgeface, model, people, tmp_path)
    found = found_in(out / "edgeface_int8.onnx")
    assert (found["calibrated_on"], found["measured_on"]) == (12, 12)
    assert 0.5 < found["least cosine"] <= found["mean cosine"] < 1


def test_dsr_is_calibrated_on_faces_of_its_size(people: Path, tmp_path: Path) -> None:
    model = small("16")
    assert vlr_faces(model, str(people)).inputs.shape == (24, 3, 16, 16)
    out = export(export_dsr, model, people, tmp_path)
    assert found_in(out / "dsr_int8.onnx")["PSNR of int8 to float"] > 20


def test_the_ears_of_a_teacher_file_are_cut_to_their_boxes(people: Path, tmp_path: Path) -> None:
    paths = sorted(people.rglob("*.png"))
    boxes = np.tile(np.array([[10, 20, 30, 40]], np.float32), (len(paths), 1))
    write_teacher_npy(tmp_path / "ears.npy", image_paths=paths, bboxes=boxes)
    given = calibration_ears(trained(**SHAPES["conv with linear path"]).config, str(tmp_path / "ears.npy"))
    cut = {resize_image(np.ascontiguousarray(read_image(path)[20:60, 10:40]), 64).tobytes() for path in paths}
    assert {ear.tobytes() for ear in given.inputs} == cut
