"""A super-resolver for other programs: the hub's folder, bit for bit, and ONNX beside PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dsr import DSR, DSRConfig
from dsr.export import main
from dsr.hub import Provenance
from dsr.onnx_export import examples, write_onnx
from earface.core.errors import InputError
from earface.export import onnx_export
from earface.nn.inference import weights_digest
from tests.support.hub import edit_config, record_uploads

pytestmark = pytest.mark.runs

SIZES = ("32", "24", "16", "14x16")


def small(vlr_size: str = "14x16") -> DSR:
    """A model whose correction of bicubic interpolation is large, so that a comparison says something."""
    torch.manual_seed(0)
    model = DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size=vlr_size)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def vlr_faces(model: DSR, count: int) -> Tensor:
    return torch.rand(count, 3, model.config.vlr.height, model.config.vlr.width) * 2 - 1


@pytest.fixture
def model() -> DSR:
    return small()


@pytest.fixture
def folder(model: DSR, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a run that kept an average: its weights are the model's, the raw ones twice these."""
    model = small()
    averaged = {f"model.{name}": value for name, value in model.state_dict().items()}
    content = {
        "state_dict": averaged,
        "current_model_state": {name: 2 * value for name, value in averaged.items()},
        "hyper_parameters": {"dsr": asdict(model.config)},
    }
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


# The hub's folder


@torch.no_grad()
@pytest.mark.parametrize("vlr_size", SIZES)
def test_a_saved_model_comes_back_bit_for_bit(vlr_size: str, tmp_path: Path) -> None:
    model = small(vlr_size)
    model.save_pretrained(tmp_path)
    loaded = DSR.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config == model.config
    faces = vlr_faces(model, 3)
    assert torch.equal(loaded(faces), model(faces))
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_config_says_which_faces_the_model_takes(folder: Path) -> None:
    image = json.loads((folder / "config.json").read_text())["image"]
    assert (image["width"], image["height"], image["output_size"]) == (14, 16, 128)
    assert (image["channels"], image["range"]) == ("RGB", [-1.0, 1.0])
    assert image["mean"] == image["std"] == [0.5, 0.5, 0.5]
    assert "bicubic with antialiasing" in image["resize"]


def test_a_model_on_the_hub_is_read_from_the_cache_without_a_network(
    folder: Path, model: DSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's client lays it out after one download."""
    cached = tmp_path / "cache" / "models--someone--faces"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = DSR.from_pretrained("someone/faces", cache_dir=tmp_path / "cache")
    assert weights_digest(loaded) == weights_digest(model)
    with pytest.raises(InputError, match=r"someone/ears: no such folder, and no model on the hub") as caught:
        DSR.from_pretrained("someone/ears", cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_push_to_hub_uploads_the_folder(model: DSR, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = record_uploads(monkeypatch)
    assert model.push_to_hub("someone/faces") == "done"
    assert set(uploaded) == {"README.md", "config.json", "model.safetensors"}
    assert b"DSR.from_pretrained" in uploaded["README.md"]


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (None, {"kind": "earface.EarVAE"}, r"config\.json: describes no DSR"),
        (None, {"model": {"base_channels": 8}}, r'config\.json: "model" lacks the field vlr_size'),
        (None, {"image": []}, r"config\.json: its images are not those of this version"),
        ("model", {"heads": 4}, r"config\.json: unknown fields heads"),
        ("model", {"vlr_size": 16}, r"config\.json: vlr_size 16 is not of type str"),
        ("model", {"residual_blocks": True}, r"config\.json: residual_blocks True is not of type int"),
        ("model", {"vlr_size": "16x"}, r"config\.json: `vlr_size`: VLR size '16x': 32, 24, 16 or 14x16"),
        ("model", {"base_channels": 4}, r"config\.json: `base_channels` 4: must be at least 8"),
        ("model", {"base_channels": 16}, r"saved: \d+ tensors do not fit this model"),
        ("model", {"residual_blocks": 2}, r"saved: 2 tensors do not fit this model"),
        # the same tensors serve this size: only the faces show it
        ("model", {"vlr_size": "16"}, r"config\.json: its images are not those of this version \(width\)"),
        ("image", {"range": [0.0, 1.0]}, r"config\.json: its images are not those of this version \(range\)"),
    ],
)
def test_a_config_that_was_tampered_with_is_one_line(
    folder: Path, part: str | None, fields: dict[str, Any], message: str
) -> None:
    edit_config(folder, part, **fields)
    with pytest.raises(InputError, match=message) as caught:
        DSR.from_pretrained(folder)
    assert "\n" not in str(caught.value)


# ONNX


def run(path: Path, given: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["sr"], {"vlr": given.numpy()})[0]


@torch.no_grad()
@pytest.mark.parametrize("vlr_size", SIZES)
def test_onnx_computes_what_pytorch_computes_at_any_batch_size(vlr_size: str, tmp_path: Path) -> None:
    model = small(vlr_size)
    written = write_onnx(tmp_path, model, 1e-5)
    assert [(found.file, found.output, found.batch) for found in written] == [
        ("dsr.onnx", "sr", batch) for batch in (1, 3, 8)
    ]
    for count in (1, 5):
        faces = vlr_faces(model, count)
        wanted, found = model(faces), run(tmp_path / "dsr.onnx", faces)
        assert found.shape == (count, 3, 128, 128)
        assert np.allclose(found, wanted, atol=1e-5)
        assert (wanted - torch.nn.functional.interpolate(faces, 128, mode="bicubic")).std() > 0.1  # it says something
        assert (found.min(), found.max()) == (-1.0, 1.0)  # clipped, as the model does in evaluation mode


@torch.no_grad()
@pytest.mark.parametrize("vlr_size", SIZES)
def test_what_the_export_is_checked_on_is_clipped_at_both_ends(vlr_size: str) -> None:
    model = small(vlr_size)
    faces = examples(model.config.vlr, 8)
    assert (faces.min(), faces.max()) == (-1.0, 1.0)
    result = model(faces)
    assert all(bool((face == 1.0).any() and (face == -1.0).any() and face.std() > 0.1) for face in result)


class Drifting(DSR):
    """What is exported is not what PyTorch computes."""

    def forward(self, vlr: Tensor) -> Tensor:
        return super().forward(vlr) + (0.01 if torch.compiler.is_exporting() else 0.0)


def test_onnx_that_differs_leaves_what_was_there(model: DSR, tmp_path: Path) -> None:
    (tmp_path / "dsr.onnx").write_text("old")
    drifting = Drifting(model.config).eval()
    with pytest.raises(
        InputError, match=r"dsr\.onnx: sr differs from PyTorch by 0\.01 at batch 1 .* nothing was written"
    ):
        write_onnx(tmp_path, drifting, 1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["dsr.onnx"]
    assert (tmp_path / "dsr.onnx").read_text() == "old"


# The command


def test_a_checkpoint_becomes_both_formats(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("dsr.onnx", "sr", "batch 8", str(out)):
        assert word in printed
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "dsr.onnx", "model.safetensors"}
    loaded = DSR.from_pretrained(out)
    faces = vlr_faces(loaded, 2)
    with torch.no_grad():
        assert np.allclose(run(out / "dsr.onnx", faces), loaded(faces), atol=1e-5)
    about = {entry.key: entry.value for entry in onnx.load(out / "dsr.onnx").metadata_props}
    assert about["vlr_size"] == "14x16"
    assert about["digest"] == weights_digest(DSR.load_from_checkpoint(checkpoint), "14x16")
    assert json.loads(about["image"]) == json.loads((out / "config.json").read_text())["image"]
    assert b".py" not in (out / "dsr.onnx").read_bytes()  # the exporter's stack traces hold this machine's paths


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_either_set_of_weights_and_an_exported_folder_can_be_exported(
    checkpoint: Path, tmp_path: Path, weights: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    safetensors = ["--format", "safetensors"]
    assert main(["--checkpoint", str(checkpoint), "--out", str(first), "--weights", weights, *safetensors]) == 0
    assert main(["--checkpoint", str(first), "--out", str(second), *safetensors]) == 0
    scale = 2 if weights == "raw" else 1
    wanted = {name: scale * value for name, value in small().state_dict().items()}
    found = DSR.from_pretrained(second).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_safetensors_alone_need_no_onnx(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx_that_is_not_installed",))
    arguments = ["--checkpoint", str(folder), "--out", f"{tmp_path}/out"]
    assert main(arguments) == 2
    assert 'pip install ".[onnx]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--format", "safetensors"]) == 0
    assert DSR.from_pretrained(tmp_path / "out").config.vlr_size == "14x16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checkpoint DIR/saved", "--out: give a folder"),
        ("--checkpoint DIR/saved --out DIR/saved/config.json", "config.json: is a file; give a folder"),
        (
            "--checkpoint DIR/saved --out DIR/saved --format onnx",
            "holds config.json and model.safetensors of an earlier",
        ),
        ("--checkpoint DIR/none.ckpt --out DIR/out", "none.ckpt: no such checkpoint"),
        ("--checkpoint DIR/saved/README.md --out DIR/out", "README.md: refused, it holds more than tensors"),
        ("--checkpoint DIR --out DIR/out", "holds no config.json"),
        ("--checkpoint DIR/saved --out DIR/out --format tflite", "choose one of onnx, safetensors, both"),
        ("--checkpoint DIR/saved --out DIR/out --tolerance 0", "--tolerance 0.0: must be above 0"),
    ],
)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert main(arguments.replace("DIR", str(folder.parent)).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_an_earlier_onnx_file_does_not_meet_another_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dsr.onnx").write_text("of an earlier export")
    assert main(["--checkpoint", str(folder), "--out", str(out), "--format", "safetensors"]) == 2
    assert "holds dsr.onnx of an earlier export" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["dsr.onnx"]


def test_a_folder_tells_whom_the_model_was_trained_on_and_how(model: DSR, tmp_path: Path) -> None:
    model.provenance = Provenance(("0" * 16, "1" * 16), "realistic")
    model.save_pretrained(tmp_path / "saved")
    assert DSR.from_pretrained(tmp_path / "saved").provenance == model.provenance


@pytest.mark.parametrize("damaged", [[], {"trained_on": "all"}, {"trained_on": [1]}, {"degradation": None}], ids=str)
def test_a_damaged_provenance_is_refused(folder: Path, damaged: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"provenance": damaged}))
    with pytest.raises(InputError, match="provenance"):
        DSR.from_pretrained(folder)
