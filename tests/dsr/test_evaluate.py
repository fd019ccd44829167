"""The metrics of dsr.evaluate against scikit-image and loops over faces, and what it refuses to evaluate."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dsr import DSR
from dsr.evaluate import main
from dsr.evaluation import short_names
from dsr.metrics import MeasuredFaces, identified, mean_metrics
from earface.core.errors import InputError
from earface.data.image_grid import GAP, LABEL_WIDTH, SCALE_HEIGHT, error_colours
from earface.data.images import read_image
from earface.nn.checkpoint import read_checkpoint
from earface.nn.frozen import FrozenRecognizer
from facial_rec.contract import FaceContract
from tests.conftest import only_line
from tests.support.training import metric_rows

pytestmark = pytest.mark.runs

BORDER = 8  # one VLR pixel of 16, in pixels of 128


def evaluate(finished: Path, face_set: Path, edgeface: Path, out: Path, *extra: str) -> int:
    return main(
        [
            *("--checkpoint", str(finished / "checkpoints" / "last.ckpt"), "--dataset-root", str(face_set)),
            *("--recognizer", str(edgeface), "--second-recognizer", "none", "--out", str(out)),
            *("--device", "cpu", "--num-workers", "0", *extra),
        ]
    )


@pytest.fixture(scope="module")
def measured(finished: Path, face_set: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that evaluating the test split wrote."""
    out = tmp_path_factory.mktemp("evaluation")
    assert evaluate(finished, face_set, edgeface, out, "--batch-size", "3") == 0
    return out


@pytest.fixture(scope="module")
def by_hand(finished: Path, face_set: Path, recognizer: FrozenRecognizer) -> dict[str, list[dict[str, Any]]]:
    """method -> each face of the test split in order, one at a time, from the files."""
    model = DSR.load_from_checkpoint(finished / "checkpoints" / "last.ckpt")
    folder = face_set / "test_processed"
    found: dict[str, list[dict[str, Any]]] = {"bicubic": [], "last": [], "HR": []}
    for path in sorted((folder / "hr_images").iterdir()):
        hr = read_image(path) / 255.0
        vlr = read_image(folder / "vlr_images" / path.name).astype(np.float32) / np.float32(127.5) - 1
        enlarged = cv2.resize(vlr, (128, 128), interpolation=cv2.INTER_CUBIC)
        with torch.no_grad():
            sr = model(torch.from_numpy(vlr).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        for method, signed in (("bicubic", enlarged), ("last", sr), ("HR", hr * 2 - 1)):
            pixels = np.clip((np.asarray(signed, np.float64) + 1) / 2, 0, 1)
            found[method].append(
                {
                    "file": path.name,
                    "identity": path.name[:3],
                    "embedding": embedding(recognizer, pixels),
                    **({} if method == "HR" else quality(pixels, hr)),
                }
            )
    return found


def embedding(recognizer: FrozenRecognizer, pixels: np.ndarray) -> np.ndarray:
    """(512,) of length 1."""
    crop = torch.from_numpy(pixels * 2 - 1).float().permute(2, 0, 1)[None]
    network: Any = recognizer.network
    with torch.no_grad():
        direction = network(FaceContract("arcface")(crop))[0].double().numpy()
    return direction / np.sqrt((direction**2).sum())


def quality(pixels: np.ndarray, hr: np.ndarray) -> dict[str, float]:
    inner = slice(BORDER, -BORDER)
    grey = [(16 + each @ [65.481, 128.553, 24.966])[inner, inner] / 255 for each in (hr, pixels)]
    similarity = structural_similarity(
        hr, pixels, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2
    )
    return {
        "psnr": peak_signal_noise_ratio(hr, pixels, data_range=1.0),
        "psnr_y": peak_signal_noise_ratio(grey[0], grey[1], data_range=1.0),
        "ssim": similarity,
    }


def slow_rank1(probes: list[dict[str, Any]], gallery_faces: list[dict[str, Any]], everybody: bool) -> float:
    """The first HR face of each identity against the other faces of those that have several."""
    count = {face["identity"]: 0 for face in gallery_faces}
    for face in gallery_faces:
        count[face["identity"]] += 1
    gallery: dict[str, np.ndarray] = {}
    hits, tried = 0, 0
    for face in gallery_faces:
        if everybody or count[face["identity"]] > 1:
            gallery.setdefault(face["identity"], face["embedding"])
    seen: set[str] = set()
    for probe in probes:
        identity = probe["identity"]
        if identity in seen:
            tried += 1
            hits += max(gallery, key=lambda name: float(gallery[name] @ probe["embedding"])) == identity
        seen.add(identity)
    return hits / tried


def test_the_metrics_are_those_of_one_face_at_a_time(
    measured: Path, edgeface: Path, by_hand: dict[str, list[dict[str, Any]]]
) -> None:
    content = json.loads((measured / "metrics.json").read_text())
    assert (content["faces"], content["identities"], content["vlr_size"]) == (7, 3, "16")
    assert content["degradation"] == "bicubic"
    assert content["figures"].keys() == by_hand.keys()
    for method, faces in by_hand.items():
        found = content["figures"][method]
        expected = {
            name: np.mean([face[name] for face in faces]) for name in ("psnr", "psnr_y", "ssim") if method != "HR"
        }
        pairs = zip(faces, by_hand["HR"], strict=True)
        expected["cosine[edgeface_xxs]"] = np.mean([face["embedding"] @ own["embedding"] for face, own in pairs])
        expected["rank1[edgeface_xxs]"] = slow_rank1(faces, by_hand["HR"], False)
        expected["rank1_all[edgeface_xxs]"] = slow_rank1(faces, by_hand["HR"], True)
        assert found == pytest.approx(expected, rel=1e-4), method
    assert content["figures"]["HR"]["cosine[edgeface_xxs]"] == pytest.approx(1)


def test_each_face_has_its_row(measured: Path, by_hand: dict[str, list[dict[str, Any]]]) -> None:
    with (measured / "per_face.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    for row in rows:
        (face,) = [face for face in by_hand[row["method"]] if face["file"] == row["file"]]
        (truth,) = [face for face in by_hand["HR"] if face["file"] == row["file"]]
        assert row["identity"] == face["identity"]
        for name in ("psnr", "psnr_y", "ssim"):
            assert float(row[name]) == pytest.approx(face[name], rel=1e-4)
        assert float(row["cosine[edgeface_xxs]"]) == pytest.approx(face["embedding"] @ truth["embedding"], rel=1e-4)


def test_the_image_grid_shows_vlr_bicubic_each_method_hr_and_the_errors(measured: Path) -> None:
    grid = read_image(measured / "faces.png")
    assert grid.shape[0] == (4 + 2) * (128 + GAP) + SCALE_HEIGHT
    assert grid.shape[1] > 7 * 128
    rows = [grid[row * 130 : row * 130 + 128, LABEL_WIDTH : LABEL_WIDTH + 128].astype(float) for row in range(6)]
    for method, error in ((1, 4), (2, 5)):
        wanted = error_colours(np.abs(rows[method] - rows[3]).mean(axis=2) / 255).astype(float)
        assert np.abs(rows[error] - wanted).mean() < 4  # of whole levels


def test_without_pictures_no_face_is_shown_nor_left_of_an_earlier_call(
    finished: Path, face_set: Path, edgeface: Path, tmp_path: Path
) -> None:
    (tmp_path / "faces.png").write_text("a face")
    assert evaluate(finished, face_set, edgeface, tmp_path, "--overwrite", "--no-pictures") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "per_face.csv"}


def test_a_run_says_of_its_validation_faces_what_evaluating_them_says(
    finished: Path, face_set: Path, edgeface: Path, tmp_path: Path
) -> None:
    """Of the averaged weights, which the last checkpoint holds."""
    assert evaluate(finished, face_set, edgeface, tmp_path, "--split", "val") == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["figures"]["last"]
    last = [row for row in metric_rows(finished) if "val/loss" in row][-1]
    for name in ("psnr", "psnr_y", "ssim"):
        assert found[name] == pytest.approx(last[f"val/{name}"], rel=1e-5)
    for name in ("cosine", "rank1"):
        assert found[f"{name}[edgeface_xxs]"] == pytest.approx(last[f"val/{name}"], rel=1e-5)


def test_the_sets_own_vlr_files_are_measured_alike(
    measured: Path, finished: Path, face_set: Path, edgeface: Path, tmp_path: Path
) -> None:
    """They were made by bicubic interpolation; the set is read by its split's folder."""
    root = face_set / "test_processed"
    assert evaluate(finished, root, edgeface, tmp_path, "--degradation", "files") == 0
    files, made = (json.loads((folder / "metrics.json").read_text())["figures"] for folder in (tmp_path, measured))
    for method in made:
        assert files[method] == pytest.approx(made[method], rel=1e-6)


# Galleries


PEOPLE = ["a", "b", "a", "c", "b", "a", "d", "b"]  # c and d have one face


def embeddings(seed: int) -> torch.Tensor:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("seed", range(6))
def test_rank_1_of_each_gallery_is_a_loops(seed: int) -> None:
    truth, found = embeddings(seed), embeddings(seed + 100) * 0.3 + embeddings(seed)
    found = found / found.norm(dim=1, keepdim=True)
    values = mean_metrics(MeasuredFaces({"net": found}, {}), MeasuredFaces({"net": truth}, {}), PEOPLE)
    galleries = {"rank1": {"a": 0, "b": 1}, "rank1_all": {"a": 0, "b": 1, "c": 3, "d": 6}}
    for name, gallery in galleries.items():
        hits = [
            max(gallery, key=lambda who: float(truth[gallery[who]] @ found[probe])) == PEOPLE[probe]
            for probe in (2, 4, 5, 7)
        ]
        assert values[f"{name}[net]"] == sum(hits) / 4
    assert values["cosine[net]"] == pytest.approx(float((truth * found).sum(1).mean()), rel=1e-6)


def test_an_identity_with_a_single_face_can_be_confused_with_others() -> None:
    truth = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.8, 0.6]])
    faces = truth.clone()
    faces[1] = faces[4]  # a's probe looks like e, who is in no gallery of people with several faces
    identities = ["a", "a", "b", "b", "e"]
    assert identified(faces, truth, identities).tolist() == [True, True]
    assert identified(faces, truth, identities, everybody=True).tolist() == [False, True]


@pytest.mark.parametrize("identities", [["a", "a", "a"], ["a", "b", "c"], ["a", "a"]])
def test_where_there_is_nobody_to_confuse_there_is_no_rank_1(identities: list[str]) -> None:
    rows = embeddings(0)[: len(identities)]
    values = mean_metrics(MeasuredFaces({"net": rows}, {}), MeasuredFaces({"net": rows}, {}), identities)
    assert values.keys() == {"cosine[net]"}


# What is refused


def test_a_model_is_not_evaluated_on_identities_it_was_trained_on(
    finished: Path, face_set: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(finished, face_set, edgeface, tmp_path / "out", "--split", "train") == 2
    error = only_line(capsys)
    assert "was trained on 7 of the 7 identities of train (such as " in error
    assert not (tmp_path / "out").exists()
    leaky = tmp_path / "leaky"
    shutil.copytree(face_set / "test_processed", leaky / "test_processed")
    known = sorted((face_set / "train_processed" / "hr_images").iterdir())[0]
    for kind in ("hr", "vlr"):
        path = known.parents[1] / f"{kind}_images" / known.name
        shutil.copy(path, leaky / "test_processed" / f"{kind}_images" / known.name)
    assert evaluate(finished, leaky, edgeface, tmp_path / "out") == 2
    assert f"was trained on 1 of the 4 identities of test (such as {known.name[:3]})" in only_line(capsys)


def test_what_cannot_be_measured_is_one_line(
    finished: Path, face_set: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    wider = read_checkpoint(path)
    wider["hyper_parameters"]["model"]["vlr_size"] = "14x16"
    torch.save(wider, tmp_path / "wider.ckpt")
    broken = read_checkpoint(path)
    for values in broken["state_dict"].values():
        values.fill_(float("nan"))
    torch.save(broken, tmp_path / "broken.ckpt")
    (tmp_path / "file").touch()
    cases = [
        (["--checkpoint", str(tmp_path / "broken.ckpt")], "broken: gives values that are not finite"),
        (["--checkpoint", str(path), str(tmp_path / "wider.ckpt")], "give one size at a time"),
        (["--checkpoint", str(path), str(path)], "is given twice"),
        (["--checkpoint", str(tmp_path / "none.ckpt")], "none.ckpt: no such checkpoint"),
        (["--dataset-root", str(tmp_path)], "holds no pictures"),
        (["--recognizer", "nowhere.pt"], "--recognizer: nowhere.pt: neither a file nor one of"),
        (["--out", str(tmp_path / "file")], "is a file; give a folder"),
        (["--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
    ]
    for extra, message in cases:
        assert evaluate(finished, face_set, edgeface, tmp_path / "out", *extra) == 2, extra
        assert message in only_line(capsys)
        assert not (tmp_path / "out" / "metrics.json").exists()


def test_checkpoints_are_named_by_what_distinguishes_them() -> None:
    assert short_names([Path("a/x.ckpt"), Path("a/y.ckpt")]) == ["x", "y"]
    assert short_names([Path("r/1/c/last.ckpt"), Path("r/2/c/last.ckpt")]) == ["1", "2"]
    assert short_names([Path("r/1/c/last.ckpt"), Path("r/2/d/last.ckpt")]) == ["c", "d"]
    assert short_names([Path("r/1/c/last.ckpt")]) == ["last"]
    with pytest.raises(InputError, match="given twice"):
        short_names([Path("a/x.ckpt")] * 2)
