"""int8 files: of which operators they are, what they are calibrated and measured on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.export.losses import embedding_loss, picture_loss
from earface.export.onnx_export import BATCHES, OnnxPart, write_parts
from earface.export.quantization import FEWEST, MOST, Calibration, Quantization, as_input, calibration_of

pytestmark = pytest.mark.runs

PEOPLE = [f"S{row // 4}" for row in range(40)]


class Network(nn.Module):
    """Of every kind of layer that matters here: images (B, 3, 16, 16) -> vectors (B, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.norm, self.linear, self.head = nn.LayerNorm(8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.depthwise(self.dense(images).relu())
        vectors = self.norm(maps.flatten(2).transpose(1, 2))
        return self.head(self.linear(vectors).softmax(dim=-1).mean(dim=1))


def pictures(people: list[str] = PEOPLE) -> Calibration:
    """Half of them held out."""
    inputs = np.random.default_rng(0).integers(0, 256, (len(people), 16, 16, 3), np.uint8)
    return Calibration(inputs, people, np.arange(len(people)) % 2 == 1)


def export(folder: Path, int8: Quantization | None, opset: int | None = 18) -> None:
    torch.manual_seed(0)
    part = OnnxPart("network.onnx", Network(), torch.rand(max(BATCHES), 3, 16, 16) * 2 - 1, "images", ("vectors",))
    derived = None
    if int8 is not None:
        derived = int8.derived("network.onnx", int8.calibration.inputs, embedding_loss(int8.calibration.people))
    write_parts(folder, [part], 1e-4, {"digest": "of the weights"}, opset=opset, derived=derived)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(folder, Quantization(pictures(), 0.5))
    return folder


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": as_input(inputs)})[0]


def test_an_int8_file_is_onnx_alone_in_the_opset_of_the_float_one(exported: Path) -> None:
    """onnxruntime 1.14 and newer read opset 18 and IR 8."""
    proto = onnx.load(exported / "network_int8.onnx")
    onnx.checker.check_model(proto)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8
    assert {node.domain for node in proto.graph.node} == {""}


def test_weights_are_int8_per_channel_but_for_what_stays_in_float(exported: Path) -> None:
    graph = onnx.load(exported / "network_int8.onnx").graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    weights = {
        node.op_type + (" depthwise" if any(each.name == "group" and each.i > 1 for each in node.attribute) else ""): (
            made_by.get(node.input[1])
        )
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul")
    }
    assert weights.pop("Conv depthwise") is None
    assert len(weights) >= 2
    for name, dequantized in weights.items():
        assert dequantized is not None, name
        assert stored[dequantized.input[0]].dtype == np.int8
        assert stored[dequantized.input[1]].shape == (8,)


def test_what_is_reported_is_the_loss_on_the_pictures_that_did_not_calibrate(exported: Path) -> None:
    """Beside a slow loop over them."""
    about = {each.key: each.value for each in onnx.load(exported / "network_int8.onnx").metadata_props}
    assert about["digest"] == "of the weights"
    found: dict[str, Any] = json.loads(about["int8"])
    given = pictures()
    ours, theirs = (run(exported / name, given.inputs[1::2]) for name in ("network.onnx", "network_int8.onnx"))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert found["mean cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found["least cosine"] == pytest.approx(min(cosines), abs=1e-6)
    assert found["loss"] == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert 0 < found["loss"] < 0.05
    for name, vectors in (("float", ours), ("int8", theirs)):
        hits = []
        for row, vector in enumerate(vectors):
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
            closest = max((o for o in range(len(vectors)) if o != row), key=lambda o: vectors[o] @ vector / lengths[o])
            hits.append(PEOPLE[1::2][closest] == PEOPLE[1::2][row])
        assert found[f"rank-1 of {name}"] == pytest.approx(np.mean(hits))
    assert (found["calibrated_on"], found["measured_on"]) == (20, 20)


def test_a_loss_above_the_limit_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_text("old")
    with pytest.raises(
        InputError, match=r"network_int8\.onnx: int8 loses .*over `max_loss` 1e-09; nothing was written"
    ):
        export(tmp_path, Quantization(pictures(), 1e-9))
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    assert (tmp_path / "network.onnx").read_text() == "old"


def test_an_int8_file_of_an_earlier_export_does_not_stay_beside_another_model(tmp_path: Path) -> None:
    (tmp_path / "network_int8.onnx").write_text("old")
    export(tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


# Which pictures


def reading(people: list[str]) -> Calibration:
    return calibration_of("FOLDER", people, lambda rows: (range(len(rows)), np.array(rows)))


def test_nobody_both_calibrates_and_measures() -> None:
    people = [f"S{row // 3}" for row in range(60)] + [f"alone {row}" for row in range(20)]
    found = reading(people)
    assert len(found.inputs) >= 75
    assert found.people == [people[row] for row in found.inputs]
    sides = [
        {person for person, out in zip(found.people, found.held_out, strict=True) if out is side}
        for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert not any(person.startswith("alone") for person in sides[0])  # who has one picture is no probe


def test_of_many_pictures_some_are_read() -> None:
    found = reading([""] * 5000)
    assert len(set(found.inputs.tolist())) == len(found.inputs) == MOST
    assert (~found.held_out).sum() == 128


def test_one_persons_pictures_are_divided() -> None:
    assert (reading(["S1"] * 30).held_out).sum() == 15


def test_too_few_pictures_are_refused() -> None:
    assert len(reading([""] * FEWEST).inputs) == FEWEST
    with pytest.raises(InputError, match=r"FOLDER: 15 pictures that can be used; int8 needs 16 or more"):
        reading([""] * (FEWEST - 1))
    with pytest.raises(InputError, match=r"FOLDER: 9 pictures that can be used"):
        calibration_of("FOLDER", [""] * 20, lambda rows: (range(9), np.zeros(9)))


def test_the_loss_of_pictures_is_that_of_their_pixels() -> None:
    """A tenth of the range everywhere is an RMS error of .1, and 20 dB."""
    floats = np.random.default_rng(0).uniform(-0.7, 0.7, (4, 3, 8, 8)).astype(np.float32)
    originals = ((floats + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
    loss = picture_loss(originals)([floats], [floats + np.float32(0.2)], np.ones(4, bool))
    assert loss.share == pytest.approx(0.1, abs=1e-5)
    assert loss.metrics["PSNR of int8 to float"] == pytest.approx(20, abs=1e-3)
    assert loss.metrics["PSNR of int8"] == pytest.approx(20, abs=0.2)
    assert loss.metrics["PSNR of float"] > 50
