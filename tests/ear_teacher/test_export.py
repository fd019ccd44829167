"""A model for other programs: the hub's folder, bit for bit, and ONNX beside PyTorch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ear_teacher import EarVAE
from ear_teacher.export import main
from ear_teacher.onnx_export import write_onnx
from ear_teacher.posterior import AggregatePosterior
from earface.core.errors import InputError
from earface.export import onnx_export
from earface.nn.inference import weights_digest
from tests.support.hub import edit_config, record_uploads

pytestmark = pytest.mark.runs

SHAPES = {
    "conv with linear path": {"encoder": "conv", "linear_path_size": 16},
    "conv with patches": {"encoder": "conv", "linear_path_size": 16, "patch_size": 4},
    "grey resnet18": {"encoder": "resnet18", "linear_path_size": 0, "in_channels": 1},
    "timm with linear path": {"encoder": "timm:test_vit", "linear_path_size": 32},
}


def trained(**shape: Any) -> EarVAE:
    """A small model in which every part matters: no zeros to multiply by, and batch statistics of its own."""
    torch.manual_seed(0)
    model = EarVAE(**({"base_channels": 4, "latent_dim": 8, "image_size": 64} | shape)).eval()
    model.fit_closed_form(torch.rand(40, 3 * model.config.linear_path_size**2) * 2 - 1)
    last = model.decoder.to_patches[-1] if model.config.patch_size > 1 else model.decoder.to_pixels
    for layer in (model.encoder.head.mu, model.encoder.head.logvar, last):
        nn.init.normal_(layer.weight, std=0.1)
    with torch.no_grad():
        model.train()
        for _ in range(30):
            model(pictures(model, 4))
        model.eval()
    factor = torch.linalg.cholesky(torch.cov(torch.randn(8, 40)) + torch.eye(8))
    model.posterior = AggregatePosterior(torch.randn(8), factor.contiguous())
    return model


def pictures(model: EarVAE, count: int) -> Tensor:
    config = model.config
    return torch.rand(count, config.in_channels, config.image_size, config.image_size) * 2 - 1


@pytest.fixture(scope="module")
def model() -> EarVAE:
    return trained(**SHAPES["conv with linear path"])


@pytest.fixture
def folder(model: EarVAE, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# The hub's folder


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_saved_model_comes_back_bit_for_bit(shape: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**shape)
    model.save_pretrained(tmp_path)
    loaded = EarVAE.from_pretrained(tmp_path)
    assert not loaded.training
    images = pictures(model, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.encode_posterior(images), loaded.encode_posterior(images), strict=True)
    )
    assert torch.equal(model.reconstruct(images), loaded.reconstruct(images))
    for source in ("prior", "posterior"):
        samples = [m.sample(5, source, torch.Generator().manual_seed(1)) for m in (model, loaded)]
        assert torch.equal(*samples)
    assert weights_digest(loaded) == weights_digest(model)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


@torch.no_grad()
def test_a_factor_in_any_memory_order_draws_the_same_samples(model: EarVAE, tmp_path: Path) -> None:
    """What torch.linalg.cholesky returns is stored by columns; a file holds rows."""
    wide = EarVAE(encoder="conv", base_channels=4, latent_dim=200, image_size=32, linear_path_size=0).eval()
    stored = {"mean": torch.zeros(200), "factor": torch.randn(200, 200).T}
    wide.load_posterior(stored)
    wide.save_pretrained(tmp_path)
    loaded = EarVAE.from_pretrained(tmp_path)
    samples = [m.sample(3, "posterior", torch.Generator().manual_seed(1)) for m in (wide, loaded)]
    assert torch.equal(*samples)


def test_a_model_without_a_posterior_comes_back_without(tmp_path: Path) -> None:
    model = trained(**SHAPES["conv with linear path"])
    model.posterior = None
    model.save_pretrained(tmp_path)
    assert EarVAE.from_pretrained(tmp_path).posterior is None


def test_config_says_which_images_the_model_takes(folder: Path) -> None:
    image = json.loads((folder / "config.json").read_text())["image"]
    assert (image["size"], image["channels"], image["range"]) == (64, "RGB", [-1.0, 1.0])
    assert image["mean"] == image["std"] == [0.5, 0.5, 0.5]
    assert "INTER_AREA" in image["resize"]


def test_a_field_that_an_older_config_lacks_takes_its_default(model: EarVAE, folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    del content["model"]["in_channels"]
    (folder / "config.json").write_text(json.dumps(content))
    assert EarVAE.from_pretrained(folder).config == model.config


def test_push_to_hub_uploads_the_folder(model: EarVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = record_uploads(monkeypatch)
    assert model.push_to_hub("someone/ears") == "done"
    assert set(uploaded) == {"README.md", "config.json", "model.safetensors"}
    assert b"EarVAE.from_pretrained" in uploaded["README.md"]


def spoil(folder: Path, what: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    if what == "no config":
        config.unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "not JSON":
        config.write_text(config.read_text()[:-9])
    elif what == "a list":
        config.write_text("[]")
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "garbage":
        weights.write_bytes(b"\xff" * 200)
    elif what == "no encoder":
        edit_config(folder, None, model={"image_size": 64})
    elif what == "unknown field":
        edit_config(folder, "model", heads=4)
    elif what == "text for a number":
        edit_config(folder, "model", latent_dim="8")
    elif what == "out of range":
        edit_config(folder, "model", image_size=65)
    elif what == "other weights":
        edit_config(folder, "model", latent_dim=9)
    elif what == "other images":
        edit_config(folder, "image", range=[0.0, 1.0])
    elif what == "another kind":
        edit_config(folder, None, kind="earface.DSR")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", r"saved: holds no config\.json"),
        ("no weights", r"model\.safetensors: no such weights file"),
        ("not JSON", r"config\.json: not JSON"),
        ("a list", r"config\.json: describes no ear VAE"),
        ("another kind", r"config\.json: describes no ear VAE"),
        ("truncated", r"model\.safetensors: not a weights file"),
        ("garbage", r"model\.safetensors: not a weights file"),
        ("no encoder", r'config\.json: "model" lacks the field encoder'),
        ("unknown field", r"config\.json: unknown fields heads"),
        ("text for a number", r"config\.json: latent_dim '8' is not of type int"),
        ("out of range", r"config\.json: `image_size` 65: must be a multiple of 32"),
        ("other weights", r"saved: \d+ tensors do not fit this model"),
        ("other images", r"config\.json: its images are not those of this version \(range\)"),
    ],
)
def test_a_spoiled_folder_is_one_line(folder: Path, what: str, message: str) -> None:
    spoil(folder, what)
    with pytest.raises(InputError, match=message) as caught:
        EarVAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_what_is_neither_folder_nor_model_name_is_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match=r"a/b/c: no such folder, and no model on the hub") as caught:
        EarVAE.from_pretrained("a/b/c")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"a folder with config\.json and model\.safetensors wanted"):
        EarVAE.from_pretrained(folder / "config.json")


# ONNX


def run(path: Path, given: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given.numpy()})


@torch.no_grad()
def check_against_pytorch(folder: Path, model: EarVAE) -> None:
    for count in (1, 5):
        images = pictures(model, count)
        mu, logvar = model.encode_posterior(images)
        found = run(folder / "encoder.onnx", images)
        assert np.allclose(found[0], mu, atol=1e-4)
        assert np.allclose(found[1], logvar, atol=1e-4)
        assert mu.std() > 0.05  # so that the comparison says something
        reconstruction = run(folder / "decoder.onnx", mu)[0]
        assert np.allclose(reconstruction, model.decode(mu), atol=1e-4)
        assert reconstruction.std() > 0.05


@pytest.mark.slow
def test_onnx_computes_what_pytorch_computes_at_any_batch_size(tmp_path: Path) -> None:
    model = trained(**SHAPES["grey resnet18"])
    written = write_onnx(tmp_path, model, 1e-4)
    check_against_pytorch(tmp_path, model)
    assert {(found.output, found.batch) for found in written} == {
        (output, batch) for output in ("mu", "logvar", "images") for batch in (1, 3, 8)
    }
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.onnx", "decoder.onnx"}


def test_export_writes_both_formats_and_prints_the_differences(
    model: EarVAE, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(folder), "--out", f"{tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    for word in ("encoder.onnx", "decoder.onnx", "mu", "logvar", "images", "batch 8", f"{tmp_path}/out"):
        assert word in printed
    check_against_pytorch(tmp_path / "out", model)
    assert weights_digest(EarVAE.from_pretrained(tmp_path / "out")) == weights_digest(model)
    encoder = onnx.load(tmp_path / "out" / "encoder.onnx")
    about = {entry.key: entry.value for entry in encoder.metadata_props}
    assert about["digest"] == weights_digest(model, str(model.config.image_size))
    assert json.loads(about["image"]) == json.loads((folder / "config.json").read_text())["image"]
    for name in ("encoder", "decoder"):
        content = (tmp_path / "out" / f"{name}.onnx").read_bytes()
        assert b".py" not in content  # the exporter's stack traces hold this machine's paths


def test_onnx_that_differs_leaves_what_was_there(model: EarVAE, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_text("old")
    with pytest.raises(InputError, match=r"encoder\.onnx: mu differs from PyTorch by .* over `tolerance` 1e-30"):
        write_onnx(tmp_path, model, 1e-30)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert (tmp_path / "encoder.onnx").read_text() == "old"


def test_weights_beyond_what_an_onnx_file_holds_are_refused(
    model: EarVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match="more than an ONNX file holds; use safetensors"):
        write_onnx(tmp_path, model, 1e-4)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_alone_need_no_onnx(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name.startswith("onnx") else find(name, *a)
    )
    arguments = ["--checkpoint", str(folder), "--out", f"{tmp_path}/out"]
    assert main(arguments) == 2
    assert 'pip install ".[onnx]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--format", "safetensors"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "config.json", "model.safetensors"}


@pytest.mark.parametrize(("left", "format"), [("decoder.onnx", "safetensors"), ("config.json", "onnx")])
def test_two_models_do_not_meet_in_one_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str, format: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / left).write_text("of an earlier export")
    assert main(["--checkpoint", str(folder), "--out", str(out), "--format", format]) == 2
    assert f"holds {left} of an earlier export" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [left]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checkpoint DIR/saved", "--out: give a folder"),
        ("--checkpoint DIR/saved --out DIR/saved/config.json", "config.json: is a file; give a folder"),
        ("--checkpoint DIR/none.ckpt --out DIR/out", "none.ckpt: no such checkpoint"),
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


# Older runtimes


@pytest.mark.parametrize(("opset", "ir"), [(18, 8), pytest.param(19, 9, marks=pytest.mark.slow)])
def test_a_file_for_an_older_onnxruntime(opset: int, ir: int, folder: Path, tmp_path: Path) -> None:
    """1.16 reads operator sets up to 19, and IR up to 9. The numbers were compared before the files appeared."""
    out = tmp_path / "out"
    given = ["--checkpoint", str(folder), "--out", str(out), "--format", "onnx", "--opset", str(opset)]
    assert main(given) == 0
    assert {path.name for path in out.glob("*.onnx")} == {"encoder.onnx", "decoder.onnx"}
    for path in sorted(out.glob("*.onnx")):
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        assert [each.version for each in proto.opset_import if not each.domain] == [opset]
        assert proto.ir_version == ir


@pytest.mark.slow
def test_without_an_opset_the_ir_version_is_the_lowest_that_is_needed(model: EarVAE, tmp_path: Path) -> None:
    write_onnx(tmp_path, model, 1e-4)
    proto = onnx.load(tmp_path / "encoder.onnx")
    assert proto.ir_version == onnx.helper.find_min_ir_version_for(proto.opset_import)


def test_an_operator_set_that_a_network_cannot_be_written_in_is_one_line(
    model: EarVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch leaves what it can write where the conversion fails."""
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **how: export(*given, **how | {"opset_version": 18}))
    with pytest.raises(InputError, match="cannot be written in `opset` 19; 18 can"):
        write_onnx(tmp_path, model, 1e-4, opset=19)
    assert list(tmp_path.iterdir()) == []
