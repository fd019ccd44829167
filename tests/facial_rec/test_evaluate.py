"""Recognisers evaluated on unseen identities, and the export of a fine-tuned one."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dsr import DSR, DSRConfig
from earface.data.face_rows import read_faces
from earface.data.identity_split import identity_digests
from earface.data.images import read_image
from earface.data.pixels import interpolate, to_model_range
from facial_rec.contract import FaceContract
from facial_rec.evaluate import main as evaluate
from facial_rec.export import main as export
from facial_rec.finetune_edgeface import main as finetune
from facial_rec.hub import EdgeFaceProvenance
from facial_rec.model import EdgeFace
from tests.conftest import VLR, only_line

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def finetuned(edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned folder, trained on no identity of face_set."""
    folder = tmp_path_factory.mktemp("tuned")
    model = EdgeFace.from_weights(edgeface)
    with torch.no_grad():
        model.model.head.fc.weight.add_(torch.randn_like(model.model.head.fc.weight) * 0.05)
    model.provenance = EdgeFaceProvenance("arcface", "bicubic", VLR, "bicubic", ("0" * 16,))
    model.save_pretrained(folder)
    return folder


def by_hand(weights: Path, face_set: Path) -> dict[str, Any]:
    """One face after the other: the first HR face of each identity with two or more against its others."""
    model, contract = EdgeFace.from_weights(weights), FaceContract("arcface")
    rows = read_faces(face_set, ("test",))
    people = [row.identity for row in rows]
    hits = dict.fromkeys(("hr", "bicubic"), 0)
    with torch.no_grad():
        hr = [model.embed(contract(to_model_range(torch.from_numpy(read_image(r.path)[None]))))[0] for r in rows]
        low = []
        for row in rows:
            vlr = to_model_range(torch.from_numpy(read_image(row.vlr_path)[None]))
            low.append(model.embed(contract(interpolate(vlr, 128).clamp(-1, 1)))[0])
    gallery = {p: hr[people.index(p)] for p in dict.fromkeys(people) if people.count(p) > 1}
    probes = [i for i, p in enumerate(people) if p in gallery and people.index(p) != i]
    for upsampler, faces in (("hr", hr), ("bicubic", low)):
        for probe in probes:
            scores = {p: float(faces[probe] @ face) for p, face in gallery.items()}
            hits[upsampler] += max(scores, key=scores.__getitem__) == people[probe]
    return {upsampler: count / len(probes) for upsampler, count in hits.items()}


def test_rank_1_of_each_recogniser_and_upsampler_is_that_of_a_loop(
    edgeface: Path, finetuned: Path, face_set: Path, tmp_path: Path
) -> None:
    arguments = ["--dataset-root", str(face_set), "--vlr-size", VLR, "--out", str(tmp_path), "--num-workers", "0"]
    assert evaluate([*arguments, "--recognizer", str(edgeface), str(finetuned), "--batch-size", "3"]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["faces"] == len(read_faces(face_set, ("test",)))
    for name, weights in ((str(edgeface), edgeface), (str(finetuned), finetuned / "model.safetensors")):
        for upsampler, rate in by_hand(weights, face_set).items():
            assert found["figures"][name][f"rank1_{upsampler}"] == pytest.approx(rate), (name, upsampler)
    # a dozen impostor scores do not support a rate of one in a thousand
    assert "tar_hr" not in found["figures"][str(finetuned)]


@pytest.mark.parametrize("given", ["leaky", "leaky/model.safetensors"])
def test_a_recogniser_is_not_evaluated_on_identities_it_was_trained_on(
    given: str, finetuned: Path, face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset-root", str(face_set), "--vlr-size", VLR, "--out", str(tmp_path / "out")]
    model = EdgeFace.load(finetuned)
    someone = read_faces(face_set, ("test",))[0].identity
    model.provenance = replace(model.provenance, trained_on=tuple(identity_digests([someone])))
    model.save_pretrained(tmp_path / "leaky")
    assert evaluate([*arguments, "--recognizer", str(tmp_path / given)]) == 2
    assert f"{given}: was trained on 1 of the 3 identities of test (such as {someone})" in only_line(capsys)
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_super_resolver_that_knows_them_is_refused_too(
    split: str, finetuned: Path, edgeface: Path, face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluation refuses test identities, fine-tuning validation identities."""
    people = {row.identity for row in read_faces(face_set, (split,))}
    config = DSRConfig(8, 1, VLR)
    state = {f"model.{name}": value for name, value in DSR(config).state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": {"dsr": asdict(config)}, "trained_on": identity_digests(people)}
    torch.save(content, tmp_path / "dsr.ckpt")
    shared = ["--dataset-root", str(face_set), "--vlr-size", VLR, "--upsampler", "dsr"]
    shared += ["--dsr-checkpoint", str(tmp_path / "dsr.ckpt")]
    if split == "test":
        assert evaluate([*shared, "--recognizer", str(finetuned), "--out", str(tmp_path / "out")]) == 2
    else:
        folders = ["--checkpoint-dir", str(tmp_path / "c"), "--log-dir", str(tmp_path / "l")]
        assert finetune([*shared, *folders, "--recognizer", str(edgeface), "--cache-dir", str(tmp_path / "cache")]) == 2
    assert f"dsr.ckpt: was trained on {len(people)} of the {len(people)} identities of {split}" in only_line(capsys)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--upsampler", "none"], "--upsampler none: bicubic, dsr, or both with a comma"),
        (["--recognizer", "nowhere"], "nowhere: neither a file nor one of"),
        (
            ["--recognizer", "FINETUNED", "--crop", "center"],
            "was fine-tuned on arcface crops, not center: give that crop",
        ),
        (
            ["--recognizer", "FINETUNED", "--upsampler", "dsr", "--dsr-checkpoint", "none.ckpt"],
            "none.ckpt: no such checkpoint",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    given: list[str], message: str, finetuned: Path, face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(finetuned) if word == "FINETUNED" else word for word in given]
    arguments = ["--dataset-root", str(face_set), "--vlr-size", VLR, "--out", str(tmp_path / "out")]
    assert evaluate([*arguments, *given]) == 2
    assert message in only_line(capsys)


# Export


def test_both_formats_give_the_fine_tuned_embeddings(finetuned: Path, tmp_path: Path) -> None:
    """Cross-covariance attention included: onnxruntime beside PyTorch, at sizes it was not exported with."""
    assert export(["--checkpoint", str(finetuned), "--out", str(tmp_path)]) == 0
    model, again = EdgeFace.load(finetuned), EdgeFace.load(tmp_path)
    assert again.provenance == model.provenance
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    session = onnxruntime.InferenceSession(str(tmp_path / "edgeface.onnx"), providers=["CPUExecutionProvider"])
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "edgeface.onnx").metadata_props}
    assert about["contract"] == model.provenance.contract
    faces = torch.rand(5, 3, 112, 112, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        wanted = model.embed(faces).numpy()
    np.testing.assert_allclose(session.run(None, {"faces": faces.numpy()})[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "earface.DSR"}, "describes no fine-tuned EdgeFace"),
        ({"contract": "another"}, "its faces are not those of this version (contract another)"),
        ({"trained_on": "everybody"}, "fields are missing, unknown or damaged (trained_on)"),
        ({"more": 1}, "fields are missing, unknown or damaged (more)"),
        ({"variant": "edgeface_base"}, "tensors do not fit this model"),
    ],
)
def test_a_folder_that_was_tampered_with_is_one_line(
    change: dict[str, Any], message: str, finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EdgeFace.load(finetuned).save_pretrained(tmp_path / "folder")
    config = tmp_path / "folder" / "config.json"
    content = json.loads(config.read_text())
    for name, value in change.items():
        {"kind": content, "variant": content["model"]}.get(name, content["provenance"])[name] = value
    config.write_text(json.dumps(content))
    assert export(["--checkpoint", str(tmp_path / "folder"), "--out", str(tmp_path / "out")]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_vlr_files_that_are_not_there_are_not_made_up(
    finetuned: Path, face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "set" / "test_processed" / "hr_images"
    shutil.copytree(face_set / "test_processed" / "hr_images", bare)
    arguments = ["--dataset-root", str(tmp_path / "set"), "--vlr-size", VLR, "--degradation", "files"]
    assert evaluate([*arguments, "--recognizer", str(finetuned), "--out", str(tmp_path / "out")]) == 2
    assert "vlr_images: no such folder; --degradation bicubic or realistic makes" in only_line(capsys)
