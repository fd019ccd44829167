"""Enrolling people and finding them again by the two commands: scores beside a loop of one face at a time, galleries
that grow, and what cannot be done."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dsr import DSR, DSRConfig
from dsr.inference import at_size
from earface.data.face_alignment import face_template
from earface.data.face_sizes import VLRSize
from earface.data.folders import list_images
from earface.data.identity_embeddings import read_embeddings
from earface.data.images import Pixels, read_image
from earface.data.pixels import interpolate, to_model_range
from earface.nn.upsampler import NO_UPSAMPLER
from earface.synthetic.face_set import FaceSet, synthesize_faces
from facial_rec.contract import FaceContract
from facial_rec.embed import main as embed
from facial_rec.model import EdgeFace
from pipeline.candidate_grid import CAPTION, CELL, LONGEST, MOST_CANDIDATES, SIDE, save_candidates
from pipeline.enroll import main as enroll
from pipeline.gallery import Gallery
from pipeline.identified import Candidate, Identified, Rule
from pipeline.identify import main as identify
from tests.conftest import only_line
from tests.support.edgeface import random_edgeface
from tests.support.shared_files import YUNET, needs
from tests.support.yunet import draw_marks, write_yunet

pytestmark = pytest.mark.runs

NAMES = ("al", "bo", "cy", "di", "ed")
PICTURES = 3

Row = dict[str, str]
Enrol = Callable[..., int]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic faces of 128x128 of each of NAMES, in a folder for each."""
    folder = tmp_path_factory.mktemp("people")
    faces = synthesize_faces(FaceSet(len(NAMES), PICTURES, 128, seed=3))[0]
    for place, face in enumerate(faces):
        path = folder / NAMES[place // PICTURES] / f"{place % PICTURES}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(face).save(path)
    return folder


@pytest.fixture(scope="module")
def enrol(edgeface: Path) -> Enrol:
    """`python -m pipeline.enroll` of aligned faces by random weights."""

    def run(given: Path, out: Path, *extra: str) -> int:
        shared = ["--aligned", "--recognizer", str(edgeface), "--device", "cpu"]
        return enroll(["--input", str(given), "--out", str(out), *shared, *extra])

    return run


@pytest.fixture(scope="module")
def gallery(people: Path, enrol: Enrol, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures of `people`."""
    path = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    assert enrol(people, path) == 0
    return path


def search(given: Path, gallery: Path, out: Path, *extra: str, aligned: bool = True) -> int:
    shared = [*(["--aligned"] if aligned else []), "--gallery", str(gallery), "--out", str(out), "--device", "cpu"]
    pictures = [] if {"--pictures", "--no-pictures"} & set(extra) else ["--pictures", "0"]
    return identify(["--input", str(given), *shared, *pictures, *extra])


def rows_in(out: Path) -> list[Row]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def best_in(out: Path) -> dict[str, Row]:
    """Of each picture, by its path, the first candidate."""
    return {row["file"]: row for row in rows_in(out) if row["rank"] == "1"}


def part_of(people: Path, target: Path, numbers: Iterable[int]) -> Path:
    """A folder of some of everybody's pictures."""
    for name in NAMES:
        (target / name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(people / name / f"{number}.png", target / name)
    return target


def pictures_of(gallery: Gallery) -> list[list[str]]:
    """Without the folder that they were enrolled from."""
    return [["/".join(Path(picture).parts[-2:]) for picture in own] for own in gallery.pictures]


def model_face(picture: Pixels) -> torch.Tensor:
    return to_model_range(torch.from_numpy(picture)[None])


def direction(model: EdgeFace, crop: torch.Tensor, contract: FaceContract) -> np.ndarray:
    with torch.no_grad():
        found = model(contract(crop))[0].double().numpy()
    return found / np.linalg.norm(found)


def templates_by_hand(model: EdgeFace, people: Path, contract: FaceContract) -> dict[str, np.ndarray]:
    means = {}
    for name in NAMES:
        own = [direction(model, model_face(read_image(path)), contract) for path in sorted((people / name).iterdir())]
        mean = np.mean(own, axis=0)
        means[name] = mean / np.linalg.norm(mean)
    return means


def check_scores(rows: list[Row], wanted: dict[str, dict[str, float]]) -> None:
    """wanted: of each file, everybody's score."""
    assert {row["file"] for row in rows} == wanted.keys()
    for file, scores in wanted.items():
        own = [row for row in rows if row["file"] == file]
        assert [row["identity"] for row in own] == sorted(scores, key=scores.__getitem__, reverse=True)
        for row in own:
            assert float(row["score"]) == pytest.approx(scores[row["identity"]], abs=2e-4)


# Found again


@pytest.mark.parametrize("crop", ["arcface", "center"])
def test_the_scores_are_those_of_a_loop_over_faces(
    crop: str, people: Path, enrol: Enrol, edgeface: Path, tmp_path: Path
) -> None:
    """The crop of the gallery is the probes' without an option."""
    assert enrol(people, tmp_path / "g.npz", "--crop", crop) == 0
    assert search(people / "cy", tmp_path / "g.npz", tmp_path / "out", "--top-k", "5") == 0
    model, contract = EdgeFace.from_weights(edgeface), FaceContract(crop)  # type: ignore[arg-type]
    templates = templates_by_hand(model, people, contract)
    wanted = {}
    for path in list_images(people / "cy"):
        probe = direction(model, model_face(read_image(path)), contract)
        wanted[str(path)] = {name: float(probe @ template) for name, template in templates.items()}
    rows = rows_in(tmp_path / "out")
    check_scores(rows, wanted)
    for row in rows:
        assert row["enrolled_picture"] == str(people / row["identity"] / "0.png")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"] * PICTURES


def test_an_enrolled_picture_is_its_person_with_score_1(people: Path, enrol: Enrol, tmp_path: Path) -> None:
    one = part_of(people, tmp_path / "one", [1])
    assert enrol(one, tmp_path / "g.npz") == 0
    assert search(one, tmp_path / "g.npz", tmp_path / "out", "--top-k", "1") == 0
    best = best_in(tmp_path / "out")
    assert len(best) == len(NAMES)
    for file, row in best.items():
        assert row["decision"] == row["identity"] == Path(file).parent.name
        assert row["score"] == "1.0000"
        assert row["enrolled_picture"] == file
    templates = Gallery.load(tmp_path / "g.npz").templates.numpy()
    scores = read_embeddings(tmp_path / "g.npz").embeddings @ templates.T
    np.testing.assert_allclose(np.diag(scores), 1, rtol=0, atol=1e-5)
    assert (scores - 2 * np.eye(len(NAMES))).max() < 1 - 1e-3


def test_a_picture_alone_scores_as_in_a_folder(people: Path, gallery: Path, tmp_path: Path) -> None:
    assert search(people / "bo", gallery, tmp_path / "folder") == 0
    assert search(people / "bo" / "2.png", gallery, tmp_path / "alone") == 0
    alone = rows_in(tmp_path / "alone")
    assert alone
    assert alone == [row for row in rows_in(tmp_path / "folder") if row["file"] == str(people / "bo" / "2.png")]


def test_batches_and_threads_change_nothing(people: Path, enrol: Enrol, gallery: Path, tmp_path: Path) -> None:
    """Bit for bit, in the gallery and in candidates.csv."""
    assert search(people, gallery, tmp_path / "out", "--top-k", "5") == 0
    for batch, workers in (("4", "3"), ("7", "1")):
        given = ["--batch-size", batch, "--workers", workers]
        assert enrol(people, tmp_path / f"{batch}.npz", *given) == 0
        assert (tmp_path / f"{batch}.npz").read_bytes() == gallery.read_bytes()
        assert search(people, gallery, tmp_path / batch, "--top-k", "5", *given) == 0
        assert (tmp_path / batch / "candidates.csv").read_bytes() == (tmp_path / "out" / "candidates.csv").read_bytes()


def test_faiss_writes_the_same_candidates(people: Path, gallery: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    for how in ("exact", "faiss"):
        assert search(people, gallery, tmp_path / how, "--search", how) == 0
    exact, faiss = rows_in(tmp_path / "exact"), rows_in(tmp_path / "faiss")
    assert [{**row, "score": ""} for row in exact] == [{**row, "score": ""} for row in faiss]
    for one, other in zip(exact, faiss, strict=True):
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=1.5e-4)


def test_a_table_of_embeddings_is_searched_as_a_gallery(
    people: Path, gallery: Path, edgeface: Path, tmp_path: Path
) -> None:
    given = ["--input", str(people), "--recognizer", str(edgeface), "--out", str(tmp_path / "e.npz"), "--device", "cpu"]
    assert embed(given) == 0
    for name, path in (("table", tmp_path / "e.npz"), ("gallery", gallery)):
        assert search(people / "al", path, tmp_path / name) == 0
    assert rows_in(tmp_path / "table") == rows_in(tmp_path / "gallery")


@pytest.mark.parametrize("top_k", [1, 3, 9])
def test_every_picture_has_top_k_candidates_in_falling_order(
    people: Path, gallery: Path, tmp_path: Path, top_k: int
) -> None:
    assert search(people / "di", gallery, tmp_path, "--top-k", str(top_k)) == 0
    rows = rows_in(tmp_path)
    for path in list_images(people / "di"):
        own = [row for row in rows if row["file"] == str(path)]
        assert [int(row["rank"]) for row in own] == list(range(1, min(top_k, len(NAMES)) + 1))
        assert len({row["identity"] for row in own}) == len(own)
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True)
        assert len({row["decision"] for row in own}) == 1


def test_who_does_not_reach_the_threshold_is_unknown(
    people: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(people, gallery, tmp_path / "all", "--threshold=-1") == 0
    best = best_in(tmp_path / "all")
    assert all(row["decision"] == row["identity"] for row in best.values())
    scores = sorted(float(row["score"]) for row in best.values())
    middle = (scores[7] + scores[8]) / 2
    capsys.readouterr()
    assert search(people, gallery, tmp_path / "some", "--threshold", str(middle)) == 0
    assert "7 of 15 recognised among 5 people" in capsys.readouterr().out
    for file, row in best_in(tmp_path / "some").items():
        known = float(row["score"]) > middle
        assert row["decision"] == (row["identity"] if known else "unknown")
        assert row["identity"] == best[file]["identity"]
    assert search(people, gallery, tmp_path / "none", "--threshold", "1") == 0
    assert {row["decision"] for row in rows_in(tmp_path / "none")} == {"unknown"}


# Galleries that grow


def test_pictures_added_later_give_the_gallery_of_all_at_once(
    people: Path, enrol: Enrol, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.npz"
    assert enrol(part_of(people, tmp_path / "first", [0]), out) == 0
    assert len(read_embeddings(out)) == len(NAMES)
    assert enrol(part_of(people, tmp_path / "others", [1, 2]), out, "--add") == 0
    grown, whole = Gallery.load(out), Gallery.load(gallery)
    assert grown.identities == whole.identities == list(NAMES)
    assert pictures_of(grown) == pictures_of(whole)
    torch.testing.assert_close(grown.templates, whole.templates, rtol=0, atol=1e-6)
    assert (grown.contract, grown.digest) == (whole.contract, whole.digest)


def test_people_added_later_come_after_the_earlier(people: Path, enrol: Enrol, tmp_path: Path) -> None:
    for name, extra in (("di", []), ("al", ["--add"])):
        shutil.copytree(people / name, tmp_path / name / name)
        assert enrol(tmp_path / name, tmp_path / "g.npz", *extra) == 0
    assert Gallery.load(tmp_path / "g.npz").identities == ["di", "al"]


def test_a_table_of_embeddings_grows_but_not_by_its_own_pictures(
    people: Path,
    enrol: Enrol,
    edgeface: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its paths are relative."""
    part_of(people, tmp_path / "first", [0])
    monkeypatch.chdir(tmp_path)
    assert embed(["--input", "first", "--recognizer", str(edgeface), "--out", "e.npz", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert enrol(Path("first"), Path("e.npz"), "--add") == 2
    assert "e.npz: 5 of the pictures are enrolled in it already" in only_line(capsys)
    assert enrol(part_of(people, tmp_path / "others", [1]), Path("e.npz"), "--add") == 0
    assert [len(own) for own in Gallery.load(Path("e.npz")).pictures] == [2] * len(NAMES)


def test_what_was_enrolled_is_told(
    people: Path, enrol: Enrol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People, pictures, how many have several, and what is left out."""
    given = Path(shutil.copytree(people, tmp_path / "given"))
    for number in range(PICTURES):
        Image.fromarray(read_image(given / "ed" / f"{number}.png")[:100]).save(given / "ed" / f"{number}.png")
    for number in (1, 2):
        (given / "di" / f"{number}.png").write_bytes(b"no picture")
    assert enrol(given, tmp_path / "g.npz") == 0
    said = capsys.readouterr().out
    assert "5 of 15 pictures cannot be used and are left out:" in said
    assert f"{given / 'di' / '1.png'}: not a picture that can be read" in said
    assert f"{given / 'ed' / '0.png'}: 128x100 is not square; an aligned face is" in said
    assert "ed is not enrolled: no picture can be used" in said
    assert f"4 people enrolled by 10 pictures, 3 of them by several: {tmp_path / 'g.npz'}" in said
    table = read_embeddings(tmp_path / "g.npz")
    assert len(table) == 10
    assert [Path(path).parent.name for path, _ in table.metadata["skipped"]] == ["di"] * 2 + ["ed"] * 3


def test_the_recogniser_is_found_from_another_folder(
    people: Path, edgeface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given by a relative path, and so were the pictures."""
    (tmp_path / "one").mkdir()
    shutil.copy(edgeface, tmp_path / "one" / "weights.pt")
    shutil.copytree(people, tmp_path / "one" / "people")
    monkeypatch.chdir(tmp_path / "one")
    assert enroll(["--input", "people", "--aligned", "--recognizer", "weights.pt", "--out", "g.npz"]) == 0
    monkeypatch.chdir(tmp_path)
    assert search(people / "al", Path("one/g.npz"), tmp_path / "out", "--pictures", "1") == 0
    assert all(Path(row["enrolled_picture"]).is_file() for row in rows_in(tmp_path / "out"))


REFUSED_TO_ENROL: list[tuple[list[str], str]] = [
    ([], "gallery.npz: exists already: --add enrols more people in it"),
    (["--add"], "gallery.npz: 15 of the pictures are enrolled in it already (PEOPLE/al/0.png)"),
    (["--add", "--input", "PEOPLE/al"], "PEOPLE/al: 3 of 3 pictures lie in no folder, so their identities are unknown"),
    (["--add", "--input", "MORE", "--recognizer", "OTHER"], "gallery.npz: was enrolled with other weights"),
    (["--add", "--input", "MORE", "--crop", "center"], "gallery.npz: was enrolled under another contract"),
    (["--add", "--input", "MORE", "--recognizer", "nowhere.pt"], "nowhere.pt: neither a file nor one of"),
    (["--add", "--input", "MORE", "--upsampler", "dsr", "--dsr-checkpoint", "no.ckpt"], "no.ckpt: no such checkpoint"),
    (["--add", "--input", "NOWHERE"], "NOWHERE: no such file or folder"),
    (["--add", "--input", "EMPTY"], "EMPTY: holds no pictures"),
    (["--add", "--input", "UNUSABLE"], "none of 2 pictures can be used: UNUSABLE/p/0.png: 128x100 is not square"),
    (["--add", "--input", "TEXT"], "TEXT: no column 'file'"),
    (["--add", "--input", ""], "--input: give a picture or a folder of them"),
    (["--add", "--out", "NEW"], "--add: there is no gallery NEW; leave --add out to make it"),
    (["--add", "--out", "BROKEN"], "BROKEN: damaged, or not written by"),
    (["--add", "--out", "NAMELESS"], "NAMELESS: 3 of 3 pictures have no identity"),
    (["--out", "gallery.txt"], "gallery.txt: unknown extension '.txt'; use .npz"),
    (["--out", "TEXT/gallery.npz"], "--out: TEXT is a file; give a folder"),
    (["--input", "UNUSABLE", "--out", "NEW"], "none of 2 pictures can be used"),
    (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
]


@pytest.fixture
def places(people: Path, edgeface: Path, tmp_path: Path) -> dict[str, str]:
    """What the words in capitals stand for."""
    found = {"PEOPLE": people, "NEW": tmp_path / "new.npz", "NOWHERE": tmp_path / "nowhere"}
    names = {"MORE": "more", "EMPTY": "empty", "UNUSABLE": "unusable", "TEXT": "notes.txt", "OTHER": "other.pt"}
    found |= {word: tmp_path / name for word, name in names.items()}
    found |= {"BROKEN": tmp_path / "broken.npz", "NAMELESS": tmp_path / "nameless.npz"}
    found["EMPTY"].mkdir()
    shutil.copytree(people / "al", found["MORE"] / "fay")
    (found["UNUSABLE"] / "p").mkdir(parents=True)
    Image.new("RGB", (128, 100)).save(found["UNUSABLE"] / "p" / "0.png")
    (found["UNUSABLE"] / "p" / "1.png").write_bytes(b"no picture")
    for word in ("TEXT", "BROKEN"):
        found[word].write_text("some notes\non two lines\n")
    return {word: str(path) for word, path in found.items()}


def placed(text: str, places: dict[str, str]) -> str:
    for word, path in places.items():
        text = text.replace(word, path)
    return text


def make_what_is_named(given: list[str], places: dict[str, str], edgeface: Path) -> None:
    if "OTHER" in given:
        random_edgeface(Path(places["OTHER"]), 1)
    if "NAMELESS" in given:
        flat = ["--input", f"{places['PEOPLE']}/al", "--recognizer", str(edgeface), "--out", places["NAMELESS"]]
        assert embed([*flat, "--device", "cpu"]) == 0


@pytest.mark.parametrize(("given", "message"), REFUSED_TO_ENROL)
def test_what_cannot_be_enrolled_is_one_line_and_changes_nothing(
    given: list[str],
    message: str,
    people: Path,
    enrol: Enrol,
    gallery: Path,
    edgeface: Path,
    places: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_what_is_named(given, places, edgeface)
    shutil.copy(gallery, tmp_path / "gallery.npz")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert enrol(people, tmp_path / "gallery.npz", *(placed(word, places) for word in given)) == 2
    assert placed(message, places) in only_line(capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


REFUSED_TO_IDENTIFY: list[tuple[list[str], str]] = [
    (["--input", "NOWHERE"], "NOWHERE: no such file or folder"),
    (["--input", "EMPTY"], "EMPTY: holds no pictures"),
    (["--input", "TEXT"], "TEXT: neither a picture"),
    (["--input", "UNUSABLE"], "none of 2 pictures can be used: UNUSABLE/p/0.png: 128x100 is not square"),
    (["--input", "UNUSABLE/p/1.png"], "UNUSABLE/p/1.png: not a picture that can be read"),
    (["--input", ""], "--input: give a picture or a folder of them"),
    (["--gallery", "NEW"], "NEW: no such file"),
    (["--gallery", "TEXT"], "TEXT: unknown extension '.txt'; use .npz"),
    (["--gallery", "BROKEN"], "BROKEN: damaged, or not written by"),
    (["--gallery", "NAMELESS"], "NAMELESS: 3 of 3 pictures have no identity"),
    (["--recognizer", "OTHER"], "gallery.npz: was enrolled with other weights"),
    (["--recognizer", "nowhere.pt"], "nowhere.pt: neither a file nor one of"),
    (["--threshold", "1.5"], "--threshold 1.5: must be at least -1 and at most 1"),
    (["--threshold=-1.5"], "--threshold -1.5: must be at least -1 and at most 1"),
    (["--threshold", "nan"], "--threshold nan: expected a number"),
    (["--top-k", "0"], "--top-k 0: must be at least 1"),
    (["--pictures", "1000"], "--pictures 1000: must be at least 0 and at most 200"),
    (["--search", "annoy"], "--search annoy: choose one of exact, faiss"),
    (["--upsampler", "dsr", "--dsr-checkpoint", "none.ckpt"], "none.ckpt: no such checkpoint"),
    (["--out", "TEXT"], "--out TEXT: is a file; give a folder"),
    (["--out", "TEXT/below"], "--out TEXT/below: TEXT is a file; give a folder"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED_TO_IDENTIFY)
def test_what_cannot_be_identified_is_one_line_and_writes_nothing(
    given: list[str],
    message: str,
    people: Path,
    gallery: Path,
    edgeface: Path,
    places: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_what_is_named(given, places, edgeface)
    before = {path: path.read_bytes() for path in (gallery, *tmp_path.rglob("*")) if path.is_file()}
    capsys.readouterr()
    assert search(people, gallery, tmp_path / "out", *(placed(word, places) for word in given)) == 2
    assert placed(message, places) in only_line(capsys)
    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in (gallery, *tmp_path.rglob("*")) if path.is_file()} == before


def test_a_recogniser_that_was_moved_is_asked_for(
    people: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(edgeface, tmp_path / "weights.pt")
    given = ["--input", str(people), "--aligned", "--recognizer", str(tmp_path / "weights.pt")]
    assert enroll([*given, "--out", str(tmp_path / "g.npz")]) == 0
    (tmp_path / "weights.pt").rename(tmp_path / "moved.pt")
    capsys.readouterr()
    assert search(people, tmp_path / "g.npz", tmp_path / "out") == 2
    line = only_line(capsys)
    assert f"{tmp_path / 'weights.pt'}: neither a file nor one of" in line
    assert f"--gallery {tmp_path / 'g.npz'} was enrolled with it: give --recognizer" in line
    assert search(people, tmp_path / "g.npz", tmp_path / "out", "--recognizer", str(tmp_path / "moved.pt")) == 0


# Upsamplers


@pytest.fixture
def small(people: Path, tmp_path: Path) -> Path:
    """Everybody's second picture at 16x16."""
    for name in NAMES:
        path = tmp_path / "small" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(at_size(read_image(people / name / "1.png"), VLRSize(16, 16))).save(path)
    return tmp_path / "small"


def tiny_dsr(folder: Path, size: str) -> DSR:
    """At random weights whose correction is plain to see, saved in the folder."""
    torch.manual_seed(0)
    model = DSR(DSRConfig(8, 1, size))
    with torch.no_grad():
        model.tail.conv.weight.mul_(3)
    model.save_pretrained(folder)
    return model.eval()


def test_small_faces_are_found_by_interpolation(
    small: Path, people: Path, gallery: Path, edgeface: Path, tmp_path: Path
) -> None:
    assert search(small, gallery, tmp_path / "out", "--upsampler", "bicubic") == 0
    model, contract = EdgeFace.from_weights(edgeface), FaceContract()
    templates, wanted = templates_by_hand(model, people, contract), {}
    for path in list_images(small):
        crop = interpolate(model_face(read_image(path)), 128).clamp(-1, 1)
        probe = direction(model, crop, contract)
        wanted[str(path)] = {name: float(probe @ template) for name, template in templates.items()}
    check_scores(rows_in(tmp_path / "out"), wanted)


@pytest.mark.parametrize("size", ["16", "14x16", "12-16"])
def test_small_faces_are_found_by_super_resolution(
    size: str, small: Path, people: Path, gallery: Path, edgeface: Path, tmp_path: Path
) -> None:
    """Of the size that it takes as they are, also where that is not square; others resized to it, or into its range."""
    model, contract, dsr = EdgeFace.from_weights(edgeface), FaceContract(), tiny_dsr(tmp_path / "dsr", size)
    vlr = dsr.config.vlr
    shutil.copy(people / "al" / "2.png", small / "large.png")
    Image.fromarray(at_size(read_image(people / "bo" / "2.png"), vlr)).save(small / "fits.png")
    given = ["--upsampler", "dsr", "--dsr-checkpoint", str(tmp_path / "dsr")]
    assert search(small, gallery, tmp_path / "out", *given) == 0
    templates, wanted = templates_by_hand(model, people, contract), {}
    for path in list_images(small):
        with torch.no_grad():
            crop = dsr(model_face(at_size(read_image(path), vlr)))
        probe = direction(model, crop, contract)
        wanted[str(path)] = {name: float(probe @ template) for name, template in templates.items()}
    assert len(wanted) == len(NAMES) + 2
    check_scores(rows_in(tmp_path / "out"), wanted)


# candidates.png


def grid_of(out: Path, rows: int, columns: int, name: str = "candidates.png") -> Pixels:
    grid, cell = read_image(out / name), min(CELL, LONGEST // columns)
    assert grid.shape[:2] == (rows * (cell + CAPTION), columns * cell)
    assert max(grid.shape) <= LONGEST
    return grid


def shown_at(grid: Pixels, row: int, column: int) -> Pixels:
    """The middle of a shown face, 96x96 of its 128x128 pixels."""
    left = column * CELL + (CELL - SIDE) // 2 + 16
    top = row * (CELL + CAPTION) + CAPTION + (CELL - SIDE) // 2 + 16
    return grid[top : top + 96, left : left + 96]


def alike(shown: Pixels, face: Pixels) -> bool:
    return float(np.abs(shown.astype(float) - face[16:112, 16:112]).mean()) < 1


def test_pictures_stand_beside_their_candidates(
    people: Path, enrol: Enrol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as asked for; the first enrolled picture of each candidate, grey if it was deleted since."""
    enrolled = Path(shutil.copytree(people, tmp_path / "enrolled"))
    assert enrol(enrolled, tmp_path / "g.npz") == 0
    shutil.rmtree(enrolled / "bo")
    assert search(people / "al", tmp_path / "g.npz", tmp_path / "out", "--pictures", "2") == 0
    assert "candidates.csv and candidates.png" in capsys.readouterr().out
    grid, rows = grid_of(tmp_path / "out", 2, 1 + len(NAMES)), rows_in(tmp_path / "out")
    for place, path in enumerate(list_images(people / "al")[:2]):
        assert alike(shown_at(grid, place, 0), read_image(path))
        for row in (row for row in rows if row["file"] == str(path)):
            shown = shown_at(grid, place, int(row["rank"]))
            if row["identity"] == "bo":
                assert (shown[: len(shown) // 4] == 225).all()  # words stand in the middle
                assert shown.min() < 128
            else:
                assert alike(shown, read_image(people / row["identity"] / "0.png"))


def test_one_picture_of_two_people_is_refused(
    people: Path, enrol: Enrol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrolled = Path(shutil.copytree(people, tmp_path / "enrolled"))
    shutil.copy(enrolled / "al" / "0.png", enrolled / "bo" / "again.png")
    assert enrol(enrolled, tmp_path / "g.npz") == 2
    line = only_line(capsys)
    assert f"{enrolled / 'al' / '0.png'} of al and {enrolled / 'bo' / 'again.png'} of bo are one picture" in line
    assert not (tmp_path / "g.npz").exists()
    shutil.move(enrolled / "bo" / "again.png", enrolled / "al" / "again.png")  # of one person it does no harm
    assert enrol(enrolled, tmp_path / "g.npz") == 0


@pytest.mark.parametrize("flags", [["--pictures", "0"], ["--no-pictures"]])
def test_without_pictures_none_are_left_of_an_earlier_call(
    flags: list[str], people: Path, gallery: Path, tmp_path: Path
) -> None:
    assert search(people / "al", gallery, tmp_path, "--pictures", "1") == 0
    assert search(people / "al", gallery, tmp_path, "--overwrite", *flags) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["candidates.csv"]


def test_many_pictures_are_in_several_grids_that_a_screen_holds(
    people: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eleven of fifteen, eight a grid; the others are counted. A smaller call leaves no grid of the larger one."""
    assert search(people, gallery, tmp_path, "--pictures", "11") == 0
    said = capsys.readouterr().out
    assert "4 of 15 pictures are not shown: give a larger --pictures" in said
    assert "candidates.csv, candidates.png and candidates_2.png in" in said
    faces = [read_image(path) for path in list_images(people)]
    first, second = grid_of(tmp_path, 8, 6), grid_of(tmp_path, 3, 6, "candidates_2.png")
    assert all(alike(shown_at(first, row, 0), faces[row]) for row in range(8))
    assert all(alike(shown_at(second, row, 0), faces[8 + row]) for row in range(3))
    assert search(people, gallery, tmp_path, "--pictures", "2", "--overwrite") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"candidates.csv", "candidates.png"}


def test_an_enrolled_picture_is_read_once_for_all_rows_and_grids(people: Path, tmp_path: Path) -> None:
    paths, read = list_images(people)[:10], []

    def reader(path: Path) -> Pixels:
        read.append(path)
        return read_image(path)

    found = [Identified(path, [Candidate("al", 0.5, str(paths[0]))], Rule(0.35)) for path in paths]
    assert len(save_candidates(tmp_path, found, read_image, reader, NO_UPSAMPLER, "cpu")) == 2
    assert read == [paths[0]]


def test_an_enlarged_face_stands_beside_the_small_one(small: Path, gallery: Path, tmp_path: Path) -> None:
    dsr = tiny_dsr(tmp_path / "dsr", "16")
    given = ["--upsampler", "dsr", "--dsr-checkpoint", str(tmp_path / "dsr"), "--top-k", "1", "--pictures", "1"]
    assert search(small / "al.png", gallery, tmp_path / "out", *given) == 0
    grid, vlr = grid_of(tmp_path / "out", 1, 3), read_image(small / "al.png")
    assert alike(shown_at(grid, 0, 0), vlr.repeat(8, 0).repeat(8, 1))
    with torch.no_grad():
        enlarged = (dsr(model_face(vlr))[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert alike(shown_at(grid, 0, 1), enlarged)
    assert not alike(shown_at(grid, 0, 0), enlarged)


def test_any_number_of_candidates_and_any_names_can_be_shown(people: Path, enrol: Enrol, tmp_path: Path) -> None:
    """Names that look like formulae, markup or no Unicode, and a gallery of more people than there is room for."""
    names = ["$_$", "[bold]x", os.fsdecode(b"no\xffunicode"), "ñ", *(f"p{number}" for number in range(11))]
    for name, path in zip(names, list_images(people), strict=True):
        (tmp_path / "given" / name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "given" / name / "$x_$y.png")
    assert enrol(tmp_path / "given", tmp_path / "g.npz") == 0
    assert search(tmp_path / "given", tmp_path / "g.npz", tmp_path / "out", "--top-k", "99", "--pictures", "3") == 0
    grid_of(tmp_path / "out", 3, 1 + MOST_CANDIDATES)
    rows = rows_in(tmp_path / "out")
    assert len(rows) == len(names) ** 2
    escaped = {name.encode(errors="backslashreplace").decode() for name in names}
    assert {row["identity"] for row in rows if row["rank"] == "1"} == escaped


def test_a_long_name_ends_with_its_column(
    people: Path, enrol: Enrol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the captions, and right of the last, the picture is white. The console's table has whole names."""
    for number, path in enumerate(list_images(people)[:4]):
        (tmp_path / "given" / f"{number} Abdullah al-Attiyah MMMMMMMMMMM").mkdir(parents=True)
        shutil.copy(path, tmp_path / "given" / f"{number} Abdullah al-Attiyah MMMMMMMMMMM" / f"{'W' * 40}.png")
    assert enrol(tmp_path / "given", tmp_path / "g.npz") == 0
    capsys.readouterr()
    assert search(tmp_path / "given", tmp_path / "g.npz", tmp_path / "out", "--pictures", "1") == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert said.count("W") == 4 * 40
    captions = grid_of(tmp_path / "out", 1, 5)[:CAPTION].reshape(CAPTION, 5, CELL, 3)
    margin = (CELL - SIDE) // 2
    assert (captions[:, :, :margin] == 255).all()
    assert (captions[:, :, SIDE + margin + 2 :] == 255).all()  # of letters' smooth edges
    assert (captions[:, :, SIDE - 10 : SIDE + margin] < 128).any(axis=(0, 2, 3)).all()  # and no more is left out


# Photographs


def test_aligned_faces_and_photographs_that_are_mistaken_for_each_other_are_noticed(
    people: Path, gallery: Path, enrol: Enrol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_yunet(tmp_path / "marks.onnx")
    assert search(people / "al", gallery, tmp_path / "out", "--detector", str(marks), aligned=False) == 2
    line = only_line(capsys)
    assert "none of 3 pictures can be used" in line
    assert line.endswith("no face with a score of 0.7 or more; if they are aligned faces, give --aligned\n")
    for path in list_images(people):
        target = tmp_path / "photographs" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(read_image(path)).resize((250, 250)).save(target)
    large = "pictures are larger than aligned faces usually are"
    advice = "250x250): if they are photographs, leave out --aligned"
    assert enrol(tmp_path / "photographs", tmp_path / "g.npz") == 0
    said = capsys.readouterr().err
    assert f"15 of 15 {large}" in said
    assert advice in said
    assert search(tmp_path / "photographs" / "al", gallery, tmp_path / "out") == 0
    assert f"3 of 3 {large}" in capsys.readouterr().err
    assert search(people / "al", gallery, tmp_path / "out", "--overwrite") == 0
    assert large not in capsys.readouterr().err


@pytest.mark.parametrize("detector", ["marks", pytest.param("YuNet", marks=needs(YUNET))])
@pytest.mark.filterwarnings("ignore")
def test_faces_are_found_in_photographs(
    detector: str, people: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Synthetic ones, of a face on grey. People whose only photograph has no face are not enrolled."""
    file = YUNET
    if detector == "marks":  # which the faces get
        file, people = write_yunet(tmp_path / "marks.onnx"), Path(shutil.copytree(people, tmp_path / "marked"))
        for path in list_images(people):
            face = read_image(path)
            draw_marks(face, face_template() - 0.5, 128)
            Image.fromarray(face).save(path)
    rng: Any = np.random.default_rng(0)
    for path in list_images(people):
        photograph = np.full((320, 300, 3), 128, np.uint8)
        top, left = rng.integers(20, 150, 2)
        photograph[top : top + 128, left : left + 128] = read_image(path)
        target = tmp_path / ("probes" if path.stem == "2" else "photographs") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph).save(target)
    (tmp_path / "photographs" / "nobody").mkdir()
    Image.fromarray(np.full((320, 300, 3), 128, np.uint8)).save(tmp_path / "photographs" / "nobody" / "wall.png")
    shared = ["--detector", str(file), "--device", "cpu"]
    given = ["--input", str(tmp_path / "photographs"), "--recognizer", str(edgeface), "--out", str(tmp_path / "g.npz")]
    assert enroll([*given, *shared]) == 0
    said = capsys.readouterr().out
    assert "wall.png: no face with a score of 0.7 or more" in said
    assert "nobody is not enrolled: no picture can be used" in said
    assert Gallery.load(tmp_path / "g.npz").identities == list(NAMES)
    for probes, aligned in ((tmp_path / "photographs", False), (people / "al", True)):
        out = tmp_path / f"out_{aligned}"
        extra = ["--pictures", "1", "--detector", str(file), "--top-k", "5"]
        assert search(probes, tmp_path / "g.npz", out, *extra, aligned=aligned) == 0
        grid = grid_of(out, 1, 6)
        first = rows_in(out)[0]
        assert first["decision"] == "al"
        assert np.abs(shown_at(grid, 0, 1).astype(float) - shown_at(grid, 0, 0)).mean() < 40
        assert (shown_at(grid, 0, 1) != 225).any()
