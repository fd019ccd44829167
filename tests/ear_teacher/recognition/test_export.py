"""A recogniser for other programs: the hub's folder, ONNX beside PyTorch, its landmarker, and the form as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from dsr import DSR, DSRConfig
from ear_teacher import EarRecognizer
from ear_teacher.recognition.export import main
from ear_teacher.recognition.hub import FROM_FACES, EarRecognizerProvenance, image_contract
from earface.data import ear_contract
from earface.data.ear_alignment import fit_ear, mean_ear
from earface.data.ear_contract import EarContract
from earface.data.ear_networks import EAR_LANDMARKS, EarLandmarker
from tests.conftest import only_line
from tests.support.ear_recognizer import small_recognizer
from tests.support.training import assert_same

pytestmark = pytest.mark.runs

SAVED = {"README.md", "config.json", "model.safetensors"}
ONNX = {"recognizer.onnx", "landmarks.onnx", "ear_form.json"}


def canonical() -> str:
    return EarContract.canonical(EarLandmarker()).id


@pytest.fixture(scope="module")
def model() -> EarRecognizer:
    """Of canonical ears, as if it had begun with EdgeFace's weights."""
    model = small_recognizer(canonical())
    model.provenance = EarRecognizerProvenance("person", ("ab12",), FROM_FACES)
    return model


@pytest.fixture(scope="module")
def folder(model: EarRecognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What save_pretrained writes: a source of the command."""
    folder = tmp_path_factory.mktemp("saved") / "saved"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, in both formats."""
    out = tmp_path_factory.mktemp("exported") / "out"
    assert main(["--checkpoint", str(folder), "--out", str(out)]) == 0
    return out


def run(path: Path, ears: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [embeddings] = session.run(["embeddings"], {"ears": ears.numpy()})
    return torch.from_numpy(embeddings)


def ears_like(model: EarRecognizer, count: int) -> Tensor:
    return torch.rand(count, 3, model.config.image_size, model.config.image_size) * 2 - 1


@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_onnx_computes_the_embedding_at_any_batch_size(model: EarRecognizer, exported: Path, count: int) -> None:
    torch.manual_seed(count)
    ears = ears_like(model, count)
    found = run(exported / "recognizer.onnx", ears)
    torch.testing.assert_close(found, model.embed_exactly(ears), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(count))


def test_the_graph_averages_over_the_flip(model: EarRecognizer, exported: Path) -> None:
    ears = ears_like(model, 4)
    found = run(exported / "recognizer.onnx", ears)
    torch.testing.assert_close(found, run(exported / "recognizer.onnx", ears.flip(3)), atol=1e-5, rtol=0)
    alone = torch.nn.functional.normalize(model(ears))
    assert (alone - found).abs().max() > 0.01  # so that the comparison says something


def test_the_onnx_file_says_what_it_takes_and_where_it_comes_from(model: EarRecognizer, exported: Path) -> None:
    file = exported / "recognizer.onnx"
    about = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert about.keys() == {"contract", "image", "digest", "licence"}
    assert (about["contract"], about["digest"], about["licence"]) == (canonical(), model.digest, FROM_FACES)
    assert json.loads(about["image"]) == image_contract(model.config)
    assert b".py" not in file.read_bytes()  # the exporter's stack traces hold this machine's paths


def test_the_folder_comes_back_bit_for_bit(model: EarRecognizer, exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == SAVED | ONNX
    loaded = EarRecognizer.from_pretrained(exported)
    ears = ears_like(model, 3)
    assert torch.equal(loaded.embed_exactly(ears), model.embed_exactly(ears))
    assert (loaded.provenance, loaded.digest) == (model.provenance, model.digest)


def test_the_model_card_states_the_licences(model: EarRecognizer, exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert FROM_FACES in card
    assert "under\nthe MIT licence" in card
    own = small_recognizer("stretch")
    own.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "cc-by" not in card
    assert f"Licence of the weights: {own.provenance.licence}." in card


# The form


def test_the_landmarker_is_copied_byte_for_byte(exported: Path) -> None:
    assert (exported / "landmarks.onnx").read_bytes() == EAR_LANDMARKS.read_bytes()
    about = json.loads((exported / "ear_form.json").read_text())["landmarker"]
    assert (about["sha256"], about["licence"]) == (EarLandmarker().digest, "MIT")


def test_the_form_holds_the_numbers_of_the_contract(model: EarRecognizer, exported: Path) -> None:
    """They are those by which earface aligns and judges: its template fits itself, and its limits are its own."""
    form = json.loads((exported / "ear_form.json").read_text())
    assert (form["contract"], form["fit"], form["size"]) == (canonical(), "canonical", model.config.image_size)
    assert form["recognizer"] == {"file": "recognizer.onnx", "digest": model.digest, "licence": FROM_FACES}
    template = torch.tensor(form["template"], dtype=torch.float64).numpy()
    fit = fit_ear(template * 100)
    assert (fit.side, fit.residual) == ("r", pytest.approx(0, abs=1e-9))
    assert fit.similarity[0, 0] == pytest.approx(0.01)
    assert form["outline"] == mean_ear(55).tolist()
    limits = form["limits"]
    assert limits["max_residual"] == ear_contract.EarAligner("canonical", EarLandmarker()).max_residual
    assert limits["min_inside"] == ear_contract.MIN_INSIDE


def test_the_form_follows_the_contract_it_is_made_from(
    model: EarRecognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ear_teacher.recognition.ear_form import ear_form

    monkeypatch.setattr(ear_contract, "MIN_VISIBILITY", 0.25)
    assert ear_form(model.config, EarLandmarker())["limits"]["min_visibility"] == 0.25


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_ears_that_are_not_aligned_need_no_landmarker(fit: str, tmp_path: Path) -> None:
    """And an earlier export's does not stay."""
    small_recognizer(fit).save_pretrained(tmp_path / "saved")
    out = tmp_path / "out"
    out.mkdir()
    (out / "landmarks.onnx").write_text("of an earlier export")
    arguments = ["--checkpoint", f"{tmp_path}/saved", "--out", str(out), "--format", "onnx", "--overwrite"]
    assert main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {"recognizer.onnx", "ear_form.json"}
    form = json.loads((out / "ear_form.json").read_text())
    assert (form["fit"], form["contract"]) == (fit, fit)
    assert not {"landmarker", "template", "limits"} & form.keys()


def another_landmarker(path: Path) -> Path:
    """The same network in another file."""
    network = onnx.load(EAR_LANDMARKS)
    network.doc_string = "another"
    onnx.save(network, path)
    return path


def test_a_landmarker_of_ones_own_is_copied_and_every_other_refused(
    model: EarRecognizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = another_landmarker(tmp_path / "other.onnx")
    small_recognizer(EarContract.canonical(EarLandmarker(other)).id).save_pretrained(tmp_path / "saved")
    arguments = ["--checkpoint", f"{tmp_path}/saved", "--out", f"{tmp_path}/out", "--format", "onnx"]
    assert main(arguments) == 2
    assert "ear_landmarks.onnx: not the one that the model's ears were aligned by" in only_line(capsys)
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--landmarker", str(other)]) == 0
    assert (tmp_path / "out" / "landmarks.onnx").read_bytes() == other.read_bytes()
    licence = json.loads((tmp_path / "out" / "ear_form.json").read_text())["landmarker"]["licence"]
    assert "for whoever trained them to say" in licence  # earface's own file alone is MIT


def test_onnx_that_differs_leaves_nothing_behind(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--checkpoint", str(folder), "--out", str(out), "--tolerance", "1e-30"]) == 2
    assert "recognizer.onnx: embeddings differs from PyTorch by" in only_line(capsys)
    assert not out.exists() or list(out.iterdir()) == []


def test_half_precision_halves_the_weights(
    model: EarRecognizer, exported: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(folder), "--out", str(tmp_path), "--format", "onnx", "--half"]) == 0
    assert "batch 8" in capsys.readouterr().out
    ears = ears_like(model, 5)
    found = run(tmp_path / "recognizer.onnx", ears)
    assert (found * model.embed_exactly(ears)).sum(dim=1).min() > 0.999
    assert (tmp_path / "recognizer.onnx").stat().st_size < 0.75 * (exported / "recognizer.onnx").stat().st_size


def test_a_checkpoint_is_exported_as_its_model(ear_set: Path, tmp_path: Path) -> None:
    """Trained, and in safetensors alone, which need no landmarker's file."""
    from tests.ear_teacher.recognition.test_training import run as train

    assert train(ear_set, tmp_path, "--epochs", 1) == 0
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    out = tmp_path / "out"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out), "--format", "safetensors"]) == 0
    assert {path.name for path in out.iterdir()} == SAVED
    assert_same(EarRecognizer.from_pretrained(out).state_dict(), EarRecognizer.load(checkpoint).state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checkpoint DIR/saved", "--out: give a folder"),
        ("--checkpoint DIR/none.ckpt --out DIR/out", "none.ckpt: no such checkpoint"),
        ("--checkpoint DIR/saved --out DIR/out --landmarker DIR/none.onnx", "none.onnx: no such file"),
        ("--checkpoint DIR/saved --out DIR/out --landmarker DIR/saved/config.json", "config.json: not an ONNX file"),
        ("--checkpoint DIR/saved --out DIR/out --format tflite", "choose one of onnx, safetensors, both"),
        ("--checkpoint DIR/saved --out DIR/saved", "config.json: is there already"),
        ("--checkpoint DIR/dsr --out DIR/out", "config.json: describes no ear recogniser"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    (tmp_path / "saved").symlink_to(folder)
    if "dsr" in arguments:
        DSR(DSRConfig(base_channels=8, residual_blocks=1)).save_pretrained(tmp_path / "dsr")
    assert main(arguments.replace("DIR", str(tmp_path)).split()) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_another_models_checkpoint_is_one_line(tiny: list[str], tmp_path: Path, capsys: Any) -> None:
    from ear_teacher.train import main as train_vae

    assert train_vae([*tiny, "--epochs", "1"]) == 0
    capsys.readouterr()
    assert main(["--checkpoint", f"{tmp_path}/checkpoints/last.ckpt", "--out", f"{tmp_path}/out"]) == 2
    assert "holds no ear recogniser; give one written by earface ears recognize train" in only_line(capsys)
