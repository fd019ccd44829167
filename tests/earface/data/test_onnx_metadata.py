"""What an ONNX file says of itself is read as the onnx package reads it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from earface.core.errors import InputError
from earface.data.ear_networks import EAR_LANDMARKS
from earface.data.onnx_metadata import read_onnx_metadata


def write_model(path: Path, **properties: str) -> Path:
    """A network of two inputs, one of a free size."""
    first = helper.make_tensor_value_info("first", TensorProto.FLOAT, ["batch", 3, 300])
    second = helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 3, 300])
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 3, 300])
    graph = helper.make_graph([helper.make_node("Add", ["first", "second"], ["sum"])], "g", [first, second], [output])
    model = helper.make_model(graph)
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("own", [True, False])
def test_inputs_and_properties_are_those_that_onnx_reads(own: bool, tmp_path: Path) -> None:
    path = EAR_LANDMARKS if own else write_model(tmp_path / "a.onnx", größe="128 px", empty="", long="x" * 3000)
    found, oracle = read_onnx_metadata(path), onnx.load(path)
    assert found.properties == {entry.key: entry.value for entry in oracle.metadata_props}
    assert found.properties
    assert found.inputs == {
        each.name: tuple(dimension.dim_value for dimension in each.type.tensor_type.shape.dim)
        for each in oracle.graph.input
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file"),
        (b"not an ONNX file at all, but text", "not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (bytes(range(256)) * 4, "not an ONNX file"),
        (b"\xff" * 64, "not an ONNX file"),
    ],
)
def test_other_files_are_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_onnx_metadata(path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_truncated_file_is_refused(kept: float, tmp_path: Path) -> None:
    content = EAR_LANDMARKS.read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match="not an ONNX file"):
        read_onnx_metadata(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_onnx_metadata(tmp_path / "none.onnx")
