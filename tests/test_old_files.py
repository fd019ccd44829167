"""What the code of commit 50906c5 wrote is read, gives the same numbers, and its stopped runs go on: old_files/."""

from __future__ import annotations

import csv
import json
import lzma
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from dsr.model import DSR
from dsr.train_dsr import main as train_dsr
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.module import EarDetectorLightning
from ear_teacher.detector.train import main as train_detector
from ear_teacher.embeddings.table import read_embeddings as read_ear_table
from ear_teacher.extract import main as extract
from ear_teacher.model import EarVAE
from ear_teacher.module import EarVAELightning
from ear_teacher.train import main as train_ears
from earface.data.coco import read_coco
from earface.data.identity_embeddings import read_embeddings as read_face_table
from earface.data.identity_split import read_splits
from earface.data.npy import read_teacher_npy
from earface.data.prepare_faces import main as prepare_faces
from earface.nn.checkpoint import model_state, read_checkpoint
from earface.nn.inference import weights_digest
from earface.synthetic.ear_set import EarSet, write_ear_set
from earface.synthetic.face_set import FaceSet, write_face_set
from earface.synthetic.scene_set import SceneSet, write_scene_set
from facial_rec.finetune_edgeface import main as finetune_edgeface
from facial_rec.model import EdgeFace
from facial_rec.recognizer import load_edgeface
from pipeline.gallery import Gallery
from pipeline.identify import main as identify

pytestmark = pytest.mark.runs

OLD = Path(__file__).parent / "old_files"
TOLERANCE = 1e-4  # of the largest number compared: kernels of other CPUs add up in another order
DRIFT = 0.1  # of how far a tensor moves after the stop; Adam makes a whole step of a gradient that is rounding alone
NO_GRADIENT = "model.landmarks.heat.bias"  # a number added to all logits of a softmax: only rounding moves it

MAINS: dict[str, Callable[[list[str]], int]] = {
    "ear_teacher.train": train_ears,
    "ear_teacher.detector.train": train_detector,
    "dsr.train_dsr": train_dsr,
    "facial_rec.finetune_edgeface": finetune_edgeface,
}
LAST = {  # checkpoint and logs of each stopped run, below its folder
    "ear_ema": ("saved/last.ckpt", "log/ear_vae"),
    "ear_raw": ("saved/last.ckpt", "log/ear_vae"),
    "detector_ema": ("saved/last.ckpt", "log/ear_detector"),
    "detector_raw": ("saved/last.ckpt", "log/ear_detector"),
    "dsr_ema": ("saved/last.ckpt", "log/dsr"),
    "dsr_raw": ("saved/last.ckpt", "log/dsr"),
    "edgeface_ema": ("saved/stage1/last.ckpt", "log/edgeface_stage1"),
    "edgeface_raw": ("saved/stage1/last.ckpt", "log/edgeface_stage1"),
    "edgeface_stage2": ("saved/stage2/last.ckpt", "log/edgeface_stage2"),
}
STAGE_1 = ("edgeface_ema", "edgeface_raw")
BY_CONFIG = ("ear_raw", "detector_raw", "dsr_raw")  # go on by --config of their log folder, not by the same command
PROBES = "faces/test_processed/hr_images"
EXPORTS = {"ear": "ear_ema", "dsr": "dsr_ema", "edgeface": "edgeface_ema"}  # and what was exported

Numbers = dict[str, Any]


def draw_pictures(folder: Path) -> None:
    """The pictures that the runs were trained on, which are not stored."""
    write_ear_set(folder / "ears", EarSet(6, 4, 64, seed=3), val_fraction=0.2, num_workers=1)
    write_face_set(folder / "drawn", FaceSet(12, 3, 128, seed=3))
    drawn, faces = str(folder / "drawn"), str(folder / "faces")
    assert prepare_faces(["--images", drawn, "--aligned", "--out", faces, "--vlr-size", "32"]) == 0
    for split, photographs in (("train", 8), ("val", 4)):
        write_scene_set(folder / "scenes" / split, SceneSet(photographs, 96, 72, seed=photographs))


def unpack(folder: Path) -> Path:
    """A copy of the old files, decompressed."""
    shutil.copytree(OLD, folder, dirs_exist_ok=True)
    for path in folder.rglob("*.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the runs were started in, as it was when they stopped: with pictures."""
    folder = tmp_path_factory.mktemp("project")
    draw_pictures(folder)
    return unpack(folder)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((OLD / "expected.json").read_text())


def assert_close(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        one, other = np.asarray(found[name]), np.asarray(wanted[name])
        if other.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * np.abs(other).max(initial=0), err_msg=name)
        else:
            assert one.tolist() == other.tolist(), name


# What a model says to pictures by formula


def waves(*shape: int) -> Tensor:
    """In [-1, 1]."""
    return (torch.arange(math.prod(shape), dtype=torch.float64) * 0.05).sin().float().view(shape)


def listed(value: Tensor) -> list[Any]:
    return value.detach().tolist()


@torch.no_grad()
def ear_numbers(model: EarVAE) -> Numbers:
    images = waves(2, 3, 32, 32)
    mu, logvar = model.encode_posterior(images)
    drawn = model.sample(1, "posterior", torch.Generator().manual_seed(0))
    return {
        "digest": weights_digest(model, str(model.config.image_size)),
        "mu": listed(mu),
        "logvar": listed(logvar),
        "coarsest_map": listed(model.pooled_features(images)),
        "reconstruction": listed(model.reconstruct(images)[..., 3::8, 3::8]),
        "sample": listed(drawn[..., 3::8, 3::8]),
    }


@torch.no_grad()
def detector_numbers(model: EarDetector) -> Numbers:
    logits, boxes = model.boxes(waves(1, 3, 64, 64))
    photograph = ((waves(72, 96, 3) + 1) * 127.5).round().to(torch.uint8).numpy()
    placed = model.place_landmarks([photograph], [torch.tensor([[20.0, 10.0, 60.0, 60.0]])])[0]
    return {
        "digest": weights_digest(model, str(model.config.image_size)),
        "landmark_names": list(model.config.landmark_names),
        "logits": listed(logits[:, ::9]),
        "boxes": listed(boxes[:, ::9]),
        "points": listed(placed["keypoints"][..., :2]),
        "visibility": listed(placed["keypoints_scores"]),
    }


@torch.no_grad()
def dsr_numbers(model: DSR) -> Numbers:
    return {
        "digest": weights_digest(model, str(model.config.vlr)),
        "trained_on": list(model.provenance.trained_on),
        "degradation": model.provenance.degradation,
        "faces": listed(model(waves(1, 3, 32, 32))[..., 5::16, 5::16]),
    }


@torch.no_grad()
def edgeface_numbers(model: EdgeFace) -> Numbers:
    return {"digest": weights_digest(model), "embeddings": listed(model.embed(waves(2, 3, 112, 112))[:, ::8])}


def finetuned_numbers(model: EdgeFace) -> Numbers:
    tuning = model.provenance
    inputs = tuning.upsampler.replace("bicubic", "interpolation").replace("none", "hr")  # as it was spelled then
    about = {"trained_on": list(tuning.trained_on), "contract": tuning.contract, "inputs": inputs}
    return edgeface_numbers(model) | about | {"size": tuning.vlr_size, "degradation": tuning.degradation}


def numbers_of(name: str, checkpoint: Path, weights: str = "averaged") -> Numbers:
    """name: of the run."""
    if name.startswith("ear"):
        return ear_numbers(EarVAE.load_from_checkpoint(str(checkpoint), weights=weights))
    if name.startswith("detector"):
        return detector_numbers(EarDetector.load_from_checkpoint(str(checkpoint), weights=weights))
    if name.startswith("dsr"):
        return dsr_numbers(DSR.load_from_checkpoint(checkpoint, weights=weights))
    return finetuned_numbers(EdgeFace.load(checkpoint, weights=weights))


@pytest.mark.parametrize("name", LAST)
def test_a_checkpoint_gives_the_same_numbers(name: str, old: Path, expected: dict[str, Any]) -> None:
    """A run without a moving average has one set of weights; the first stage of EdgeFace does not train the network."""
    wanted = expected["weights"][name]
    assert (wanted["averaged"] == wanted["raw"]) == (name in ("ear_raw", "detector_raw", "dsr_raw", *STAGE_1))
    for weights in ("averaged", "raw"):
        assert_close(numbers_of(name, old / name / LAST[name][0], weights), wanted[weights])


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_exported_folder_gives_the_numbers_of_its_checkpoint(kind: str, old: Path, expected: dict[str, Any]) -> None:
    folder, wanted = old / "exports" / kind, expected["weights"][EXPORTS[kind]]["averaged"]
    if kind == "ear":
        assert_close(ear_numbers(EarVAE.from_pretrained(folder)), wanted)
    elif kind == "dsr":
        assert_close(dsr_numbers(DSR.from_pretrained(folder)), wanted)
    else:
        assert_close(finetuned_numbers(EdgeFace.load(folder)), wanted)


def test_an_onnx_file_gives_the_numbers_of_its_checkpoint(old: Path, expected: dict[str, Any]) -> None:
    path, wanted = str(old / "exports" / "dsr" / "dsr.onnx"), expected["weights"]["dsr_ema"]["averaged"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (faces,) = session.run(["sr"], {"vlr": waves(1, 3, 32, 32).numpy()})
    assert_close({"faces": faces[..., 5::16, 5::16]}, {"faces": wanted["faces"]})
    assert session.get_modelmeta().custom_metadata_map["digest"] == wanted["digest"]


def test_modules_for_inference_are_made_of_old_checkpoints(old: Path, expected: dict[str, Any]) -> None:
    ears = EarVAELightning.load_from_checkpoint(str(old / "ear_ema" / LAST["ear_ema"][0]))
    detector = EarDetectorLightning.load_from_checkpoint(str(old / "detector_ema" / LAST["detector_ema"][0]))
    assert_close(ear_numbers(ears.model), expected["weights"]["ear_ema"]["averaged"])
    assert_close(detector_numbers(detector.model), expected["weights"]["detector_ema"]["averaged"])


@torch.no_grad()
def test_a_detector_starts_from_the_encoder_of_an_old_checkpoint(old: Path) -> None:
    path = str(old / "ear_ema" / LAST["ear_ema"][0])
    images = waves(1, 3, 32, 32)
    for weights in ("averaged", "raw"):
        detector = EarDetector.from_vae_checkpoint(path, weights=weights, image_size=64, pyramid_width=16).eval()
        assert detector.landmarks is not None
        wanted = EarVAE.load_from_checkpoint(path, weights=weights).features(images)
        for one, other in zip(detector.landmarks.backbone(images), wanted, strict=True):
            torch.testing.assert_close(one, other)


# Tables and lists


def index_numbers(folder: Path) -> Numbers:
    """Of two teacher files."""
    found: Numbers = {}
    for split in ("train", "val"):
        data = read_teacher_npy(folder / f"{split}_teacher.npy")
        assert data.image_paths is not None
        found[f"{split} paths"] = [path.name for path in data.image_paths]
        found[f"{split} subjects"] = data.subjects
        if data.bboxes is not None:
            found[f"{split} boxes"] = data.bboxes.tolist()
        if data.landmarks is not None:
            found[f"{split} landmarks"] = data.landmarks.mean(axis=1).tolist()
    return found


def scene_numbers(path: Path) -> Numbers:
    read = read_coco(path)
    return {
        "files": [each.path.name for each in read.photographs],
        "boxes": np.concatenate([each.boxes for each in read.photographs]).tolist(),
        "landmarks": np.concatenate([each.keypoints for each in read.photographs]).mean(axis=1).tolist(),
        "names": list(read.landmark_names),
    }


def split_numbers(path: Path) -> Numbers:
    split = read_splits(path)
    return {"roles": split.roles, "seed": split.seed}


@pytest.mark.parametrize("maker", ["ears", "prepared"])
def test_teacher_files_are_read(maker: str, old: Path, expected: dict[str, Any]) -> None:
    assert_close(index_numbers(old / maker), expected["lists"][maker])


def test_annotations_are_read(project: Path, expected: dict[str, Any]) -> None:
    assert_close(scene_numbers(project / "scenes" / "train" / "annotations.json"), expected["lists"]["scenes"])


def test_a_split_of_the_identities_is_read(old: Path, expected: dict[str, Any]) -> None:
    assert split_numbers(old / "faces" / "splits.json") == expected["lists"]["splits"]


def ear_table_numbers(path: Path) -> Numbers:
    table = read_ear_table(path)
    columns = {name: getattr(table, name) for name in ("embeddings", "logvar", "boxes", "cluster")}
    texts = {"paths": table.paths, "subjects": table.subjects, "digest": table.metadata["digest"]}
    return texts | {name: value.tolist() for name, value in columns.items() if value is not None}


def face_table_numbers(path: Path) -> Numbers:
    table = read_face_table(path)
    texts = {name: getattr(table, name) for name in ("paths", "identities", "contract", "digest")}
    return texts | {"embeddings": table.embeddings[:, ::8].tolist()}


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_table_of_ears_is_read_and_added_to(
    suffix: str, old: Path, project: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that is encoded now is that of the table where it holds the same picture under another name."""
    path, out = old / "tables" / f"ears.{suffix}", tmp_path / "more.npz"
    assert_close(ear_table_numbers(path), expected["tables"]["ears"])
    first = read_ear_table(path)
    shutil.copy(project / first.paths[0], tmp_path / "same.png")
    monkeypatch.chdir(tmp_path)
    checkpoint = str(old / "ear_ema" / LAST["ear_ema"][0])
    arguments = ["--embeddings", str(path), "--input", "same.png", "--checkpoint", checkpoint, "--out", str(out)]
    assert extract(arguments) == 0
    table = read_ear_table(out)
    assert table.paths == [*first.paths, "same.png"]
    np.testing.assert_allclose(table.embeddings[-1], first.embeddings[0], atol=1e-3)


def test_a_table_of_faces_is_read(old: Path, expected: dict[str, Any]) -> None:
    assert_close(face_table_numbers(old / "tables" / "faces.npz"), expected["tables"]["faces"])
    model = EdgeFace.load(old / "exports" / "edgeface")
    read_face_table(old / "tables" / "faces.npz", contract=model.provenance.contract, digest=weights_digest(model))


def gallery_numbers(path: Path) -> Numbers:
    gallery = Gallery.load(path)
    texts = {"identities": gallery.identities, "pictures": [len(each) for each in gallery.pictures]}
    return texts | {"templates": gallery.templates[:, ::8].tolist(), "contract": gallery.contract}


def identified(out: Path) -> dict[str, float]:
    """Every score, by picture and candidate, of candidates.csv."""
    with (out / "candidates.csv").open(newline="") as stream:
        return {f"{Path(row['file']).name} {row['identity']}": float(row["score"]) for row in csv.DictReader(stream)}


def test_a_gallery_is_read_and_searched(
    old: Path, project: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old / "tables" / "gallery.npz"
    assert_close(gallery_numbers(path), expected["tables"]["gallery"])
    monkeypatch.chdir(project)
    arguments = ["--gallery", str(path), "--recognizer", str(old / "exports" / "edgeface")]
    arguments += ["--input", PROBES, "--aligned", "--top-k", "99", "--out", str(tmp_path), "--pictures", "0"]
    assert identify(arguments) == 0
    assert identified(tmp_path) == pytest.approx(expected["tables"]["identified"], abs=2e-3)


def test_weights_in_the_authors_layout_are_read(old: Path, expected: dict[str, Any]) -> None:
    assert_close(edgeface_numbers(load_edgeface(str(old / "edgeface.pt"))), expected["authors"])


# Runs that were stopped


def sketch(state: Mapping[str, Tensor]) -> np.ndarray:
    """(N, 2): of each tensor, by name, its sum and one with signs and weights; of a difference, the difference."""
    rows = []
    for _, value in sorted(state.items()):
        numbers = value.double().flatten()
        places = torch.arange(len(numbers), dtype=torch.float64)
        rows.append([float((numbers * (places * step).cos()).sum()) for step in range(2)])
    return np.array(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def outcome(checkpoint: Path, logs: Path) -> Numbers:
    """Where a run has come to."""
    state, rows = read_checkpoint(checkpoint), read_rows(logs / "version_0" / "metrics.csv")
    kept = ("averaged", "raw") if "current_model_state" in state else ("raw",)
    own = {f"{key}/{name}": value for key in state["callbacks"] for name, value in state["callbacks"][key].items()}
    return {
        "steps": state["global_step"],
        "rows": len(rows),
        "train/loss": [float(row["train/loss"]) for row in rows if row["train/loss"]],
        "early stop": own.get("EarlyStop{'monitor': 'val/loss', 'mode': 'min'}/wait_count"),
        **{weights: sketch(model_state(state, weights)).tolist() for weights in kept},
    }


@pytest.mark.parametrize("name", LAST)
def test_a_stopped_run_goes_on_and_ends_as_one_never_stopped(
    name: str, old: Path, project: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    module, *arguments = json.loads(Path("runs.json").read_text())[name]
    checkpoint, logs = (Path(name) / each for each in LAST[name])
    before, stopped = outcome(old / checkpoint, old / logs), read_checkpoint(old / checkpoint)
    if name in BY_CONFIG:
        arguments = ["--config", str(logs / "version_0" / "config.yaml"), "--init-from", "null"]
    assert MAINS[module](arguments) == 0
    found, wanted = outcome(checkpoint, logs), expected["finished"][name]
    assert found["steps"] == wanted["steps"] > before["steps"] > 0
    assert [path.name for path in logs.iterdir()] == ["version_0"]
    assert read_checkpoint(checkpoint)["callbacks"].keys() == stopped["callbacks"].keys()
    rows, old_rows = (read_rows(folder / logs / "version_0" / "metrics.csv") for folder in (project, old))
    assert [{key: row[key] for key in old_row} for row, old_row in zip(rows, old_rows, strict=False)] == old_rows
    assert min(int(row["step"]) for row in rows[len(old_rows) :]) > before["steps"]
    assert {key: found[key] for key in ("rows", "early stop")} == {key: wanted[key] for key in ("rows", "early stop")}
    assert found["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-3)
    for weights in wanted.keys() & {"averaged", "raw"}:
        start, end, other = (np.array(each[weights]) for each in (before, wanted, found))
        moved, away = np.linalg.norm(end - start, axis=1), np.linalg.norm(end - other, axis=1)
        assert (moved > 0).any()
        moved[[tensor == NO_GRADIENT for tensor in sorted(model_state(stopped, weights))]] = np.inf
        assert (away <= DRIFT * moved + 1e-6 * np.linalg.norm(start, axis=1)).all()
    if name.startswith("edgeface"):
        model = EdgeFace.load(Path(name) / "saved" / "tuned")
        assert_close({"embeddings": edgeface_numbers(model)["embeddings"]}, {"embeddings": wanted["tuned"]})
