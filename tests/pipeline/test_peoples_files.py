"""Enrolling, identifying and evaluating real people's files, of faces and of ears: names, copies, strays."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ear_teacher.embeddings.table import Embeddings
from ear_teacher.embeddings.table import read_embeddings as read_ears
from ear_teacher.embeddings.table import write_embeddings as write_ears
from ear_teacher.recognition.model import EarRecognizer
from earface.core.notices import DataWarning, collecting_warnings, warnings_given
from earface.data.ear_contract import EarContract
from earface.data.face_rows import faces_from_folder, identity_of, prepared_names, read_faces
from earface.data.identity_embeddings import read_embeddings, write_embeddings
from earface.data.identity_split import identity_digests, read_splits
from earface.data.images import Pixels, read_image
from earface.data.multipie import MultiPieName
from earface.synthetic.ear_set import EarSet, synthesize_ears
from earface.synthetic.face_set import FaceSet, synthesize_faces
from facial_rec.embed import main as embed
from pipeline.enroll import main as enroll
from pipeline.evaluate_dataset import main as evaluate
from pipeline.gallery import Gallery
from pipeline.identify import main as identify
from pipeline.protocol import GalleryRule, from_dataset
from tests.conftest import only_line
from tests.support.edgeface import random_edgeface

NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))
PEOPLE, PICTURES = 4, 4
Capture = pytest.CaptureFixture[str]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Pictures of PEOPLE people, PICTURES of each, and a recogniser of random weights."""

    pictures: list[Pixels]
    recognizer: Path
    evaluation: list[str]

    def put(self, folder: Path, names: Iterable[str], of: int = 0) -> Path:
        """Files of these names, of the pictures from number `of` on."""
        for number, name in enumerate(names, of):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.pictures[number]).save(path)
        return folder

    def enroll(self, given: Path, out: Path, *more: str) -> int:
        shared = ["--recognizer", str(self.recognizer), "--aligned", "--device", "cpu", "--num-workers", "1"]
        return enroll(["--input", str(given), "--out", str(out), *shared, *more])

    def identify(self, given: Path, gallery: Path, out: Path, *more: str) -> int:
        shared = ["--aligned", "--device", "cpu", "--num-workers", "1"]
        return identify(["--input", str(given), "--gallery", str(gallery), "--out", str(out), *shared, *more])

    def evaluate(self, out: Path, *given: str) -> int:
        shared = ["--recognizer", str(self.recognizer), "--bootstrap", "100", "--num-workers", "0", "--device", "cpu"]
        return evaluate([*given, "--out", str(out), "--calibration-fraction", "0", *shared, *self.evaluation])


@pytest.fixture(scope="module", params=["face", "ear"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "face":
        pictures = list(synthesize_faces(FaceSet(PEOPLE, PICTURES, 128, seed=3))[0])
        return Kind(
            pictures, random_edgeface(folder / "edgeface.pt", 0), ["--finetuned", "none", "--dsr-checkpoint", "none"]
        )
    pictures = list(synthesize_ears(EarSet(PEOPLE, PICTURES, 64, seed=3))[0])
    torch.manual_seed(0)
    model = EarRecognizer(backbone="conv", base_channels=4, image_size=64, embedding_dim=16, contract=EarContract().id)
    model.eval().save_pretrained(folder / "ears")
    return Kind(pictures, folder / "ears", [])


@pytest.fixture
def faces(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """A folder of pictures of these names."""

    def put(names: Iterable[str]) -> Path:
        random = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "faces" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (128, 128, 3), np.uint8)).save(path)
        return tmp_path / "faces"

    return put


def report(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found


# names


@pytest.mark.runs
def test_a_name_in_either_unicode_form_is_one_person(kind: Kind, tmp_path: Path) -> None:
    """Enrolled in one, searched for in the other, by folders and by lists; and an old gallery that holds both."""
    given = kind.put(tmp_path / "given", [f"{NFD}/1.png", f"{NFC}/2.png", f" {NFC} /3.png"])
    kind.put(given, ["al/1.png", "al/2.png"], of=PICTURES)
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    gallery = Gallery.load(tmp_path / "g.npz", "joined")
    assert sorted(gallery.identities) == sorted([NFC, "al"])
    old = read_embeddings(tmp_path / "g.npz")
    with np.load(tmp_path / "g.npz") as archive:
        members = dict(archive)
    members["identities"] = np.array([NFD if number % 2 else name for number, name in enumerate(old.identities)])
    members["identities"][[name == "al" for name in old.identities]] = "al "
    np.savez(tmp_path / "old.npz", **members)
    assert Gallery.load(tmp_path / "old.npz", "joined").identities == gallery.identities
    assert kind.identify(given, tmp_path / "old.npz", tmp_path / "found", "--threshold", "-1") == 0
    assert f",{NFC}," in (tmp_path / "found" / "candidates.csv").read_text(encoding="utf-8")
    probes = kind.put(tmp_path / "probes", [f"{NFC}/4.png"], of=3)
    kind.put(probes, ["al/4.png"], of=PICTURES + 3)
    (tmp_path / "gallery.csv").write_text(
        f"file,identity\ngiven/{NFD}/1.png, {NFD}\ngiven/al/1.png,al\n", encoding="utf-8"
    )
    assert kind.evaluate(tmp_path / "out", "--gallery", str(tmp_path / "gallery.csv"), "--probes", str(probes)) == 0
    counts = report(tmp_path / "out")["counts"]
    assert isinstance(counts, dict)
    assert (counts["identities enrolled"], counts["mated probes"], counts["non-mated probes"]) == (2, 2, 0)


def test_every_reader_of_names_gives_one_form(tmp_path: Path) -> None:
    assert identity_of(Path(NFD) / "1.png") == identity_of(f"{NFD}__1.png") == NFC
    assert identity_digests([NFD, NFC, f" {NFC}"]) == identity_digests([NFC])
    (tmp_path / "splits.json").write_text(json.dumps({"roles": {"score": [NFD], "tune": [" bo"]}}))
    assert read_splits(tmp_path / "splits.json").roles == {NFC: "score", "bo": "tune"}
    table = Embeddings(["a", "b"], np.eye(2, dtype=np.float32), {"digest": ""}, subjects=[NFD, f"{NFC} "])
    assert table.subjects == [NFC, NFC]


@pytest.mark.runs
@pytest.mark.parametrize("name", ["unknown", "Unknown", " UNKNOWN "])
def test_nobody_can_be_called_unknown(kind: Kind, name: str, tmp_path: Path, capsys: Capture) -> None:
    given = kind.put(tmp_path / "given", [f"{name}/1.png", "al/2.png"])
    assert kind.enroll(given, tmp_path / "g.npz") == 2
    assert f"its person is called {name.strip()!r}, which is what people are called" in only_line(capsys)
    (given / name).rename(given / "bo")
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    table = read_embeddings(tmp_path / "g.npz")
    write_embeddings(tmp_path / "old.npz", dataclasses.replace(table, identities=["al", name]))
    capsys.readouterr()
    assert kind.identify(given, tmp_path / "old.npz", tmp_path / "found") == 2
    assert f"old.npz: somebody is enrolled as {name.strip()!r}" in only_line(capsys)


@pytest.mark.runs
def test_people_named_as_folders_are_warned_of_everywhere(kind: Kind, tmp_path: Path, capsys: Capture) -> None:
    """On the console, in the gallery and in the report."""
    given = kind.put(tmp_path / "given", [f"{name}/{number}.png" for name in ("left", "right") for number in range(4)])
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    warning = f"{given}: left, right counted as people"
    assert f"warning: {warning}" in capsys.readouterr().err
    assert any(each.startswith(warning) for each in read_embeddings(tmp_path / "g.npz").metadata["warnings"])
    assert kind.identify(given, tmp_path / "g.npz", tmp_path / "found") == 0
    assert "left, right counted as people" in capsys.readouterr().err
    half = kind.put(tmp_path / "half", ["left/0.png"])
    kind.put(half, ["right/0.png"], of=4)
    for path in half.rglob("*.png"):
        (given / path.relative_to(half)).unlink()
    assert kind.evaluate(tmp_path / "out", "--gallery", str(half), "--probes", str(given)) == 0
    assert any("left, right counted as people" in each for each in report(tmp_path / "out")["warnings"])  # type: ignore[attr-defined]
    assert "left, right counted as people" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


# copies and pictures that cannot be used


@pytest.mark.runs
@pytest.mark.parametrize("later", [False, True])
def test_a_copy_under_another_name_is_warned_of(kind: Kind, later: bool, tmp_path: Path, capsys: Capture) -> None:
    """Re-encoded and smaller, enrolled at once or added."""
    given = kind.put(tmp_path / "given", ["al/1.png", "al/2.png", "al/3.png"])
    other = kind.put(tmp_path / "more" if later else given, ["bo/1.png"], of=PICTURES)
    with Image.open(given / "al" / "2.png") as picture:
        picture.resize((60, 60)).save(other / "bo" / "copy.jpg", quality=70)
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    if later:
        assert "under two names" not in capsys.readouterr().err
        assert kind.enroll(other, tmp_path / "g.npz", "--add") == 0
    said = capsys.readouterr().err
    assert "warning: 1 photographs are enrolled under two names, such as " in said
    assert f"{given / 'al' / '2.png'} of al and {other / 'bo' / 'copy.jpg'} of bo" in said


@pytest.mark.runs
def test_a_person_without_a_usable_picture_is_named(kind: Kind, tmp_path: Path, capsys: Capture) -> None:
    given = kind.put(tmp_path / "given", [f"al/{number}.png" for number in range(3)])
    (given / "bo").mkdir()
    (given / "bo" / "1.png").write_bytes(b"no picture")
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    said = capsys.readouterr()
    assert "bo is not enrolled: no picture can be used" in said.out
    assert "1 person has no picture left (bo)" in said.err
    table = read_embeddings(tmp_path / "g.npz")
    assert [Path(path).parent.name for path, _ in table.metadata["skipped"]] == ["bo"]
    more = kind.put(tmp_path / "more", ["cy/1.png"], of=PICTURES)
    (more / "cy" / "2.png").write_bytes(b"no picture")
    assert kind.enroll(more, tmp_path / "g.npz", "--add") == 0
    table = read_embeddings(tmp_path / "g.npz")
    assert [Path(path).parent.name for path, _ in table.metadata["skipped"]] == ["bo", "cy"]
    assert len(table.metadata["warnings"]) == 3


# Multi-PIE names

COPIES = (" (1)", "-copy", "_aligned", " - Kopie", "_crop_112", "~2", ".png")


def code(subject: int, camera: str = "051", session: int = 1, tail: str = "_crop_128") -> str:
    return f"{subject:03d}_{session:02d}_01_{camera}_07{tail}.png"


@pytest.mark.parametrize("tail", COPIES)
def test_the_codes_at_the_beginning_of_a_name_decide(tail: str) -> None:
    for size in ("", "_crop_128"):
        parsed = MultiPieName.parse(code(1, "140", 2, size + tail))
        assert parsed is not None
        assert (parsed.subject, parsed.session, parsed.camera, parsed.illumination) == ("001", "02", "140", "07")
    assert MultiPieName.parse(f"{code(1)[:-4]}__1.png") is None  # an identity and a picture
    assert MultiPieName.parse(code(1, tail="1")) is None


def test_folders_of_angles_and_strays_are_nobody(faces: Callable[[Iterable[str]], Path]) -> None:
    frontal = [f"0/{code(subject)}" for subject in range(1, 6)]
    others = [
        f"{angle}/{code(subject, camera)}" for subject in range(1, 6) for angle, camera in ((75, "010"), (90, "240"))
    ]
    strays = ["75/001_01_01_010_07_crop_128 (1).png", "90/Thumbs.png", "montage.png"]
    with collecting_warnings():
        protocol = from_dataset(str(faces([*frontal, *others, *strays])), GalleryRule(), 0, 0)
        (warning,) = warnings_given()
    assert "2 of 18 pictures have no Multi-PIE name and are left out (90/Thumbs.png, montage.png)" in warning
    assert sorted(row.name for row in protocol.test.gallery) == frontal
    assert {row.identity for row in protocol.test.rows} == {f"{subject:03d}" for subject in range(1, 6)}
    assert sorted(row.name for row in protocol.test.probes) == sorted([*others, strays[0]])


def test_a_copy_by_another_program_is_not_enrolled_before_its_original(faces: Callable[[Iterable[str]], Path]) -> None:
    names = [code(1), code(1, tail="_crop_128 (1)"), code(2), code(2, "140"), code(3, "240")]
    with pytest.warns(DataWarning, match=r"1 of 3 identities are left out: no picture of camera 051.*\(003\)"):
        enrolment, rule = GalleryRule()(faces_from_folder(faces(names)))
    assert [row.name for row in enrolment.gallery] == [code(1), code(2)]
    assert rule == "first of camera 051, illumination 07, recording 01"


def test_a_stray_in_the_folder_of_its_person_is_used(faces: Callable[[Iterable[str]], Path]) -> None:
    rows = read_faces(faces([f"001/{code(1)}", f"001/{code(1, '140')}", f"002/{code(2)}", "001/holiday.png"]))
    assert {row.name: row.identity for row in rows}["001/holiday.png"] == "001"


def test_people_with_other_names_keep_their_own_rule(faces: Callable[[Iterable[str]], Path], tmp_path: Path) -> None:
    """In one list: a profile picture of a person with Multi-PIE names is never enrolled by the other rule."""
    root = faces([code(1), code(1, "240"), "al/1.png", "al/2.png", code(2, "110"), code(2, "240")])
    lines = [
        f"{path.relative_to(root)},{path.name[:3] if path.parent == root else 'al'}" for path in root.rglob("*.png")
    ]
    (root / "list.csv").write_text("\n".join(["file,identity", *lines]))
    with pytest.warns(DataWarning, match=r"no picture of camera 051.* \(002\)"):
        enrolment, rule = GalleryRule()(read_faces(root / "list.csv"))
    assert sorted(row.name for row in enrolment.gallery) == [code(1), "al/1.png"]
    assert rule.endswith("recording 01; of others the first picture by name of everyone with two or more")


@pytest.mark.runs
def test_the_rule_is_printed_and_profiles_are_not_enrolled_silently(
    edgeface: Path, tmp_path: Path, capsys: Capture
) -> None:
    kind = Kind(
        list(synthesize_faces(FaceSet(2, 4, 128, seed=3))[0]),
        edgeface,
        ["--finetuned", "none", "--dsr-checkpoint", "none"],
    )
    given = kind.put(tmp_path / "given", [code(s, camera) for s in (1, 2) for camera in ("051", "010", "140", "240")])
    assert kind.evaluate(tmp_path / "out", "--dataset-root", str(given)) == 0
    assert "protocol: first of camera 051, illumination 07, recording 01" in capsys.readouterr().out
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    said = capsys.readouterr()
    assert "all pictures of a person are enrolled, as the mean of their embeddings" in said.out
    assert "4 of 8 enrolled pictures show a face from the side" in said.err


# names that are not UTF-8

needs_bytes = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
ODD = os.fsdecode(b"Jos\xe9")


@needs_bytes
@pytest.mark.runs
def test_names_that_are_not_utf_8_go_through_every_command(kind: Kind, tmp_path: Path) -> None:
    given = kind.put(tmp_path / "given", [f"{ODD}/{ODD}1.png", f"{ODD}/2.png"])
    kind.put(given, ["al/1.png", "al/2.png"], of=PICTURES)
    assert kind.enroll(given, tmp_path / "g.npz") == 0
    table = read_embeddings(tmp_path / "g.npz")
    assert ODD in table.identities
    assert all(Path(path).is_file() for path in table.paths)
    assert kind.identify(given, tmp_path / "g.npz", tmp_path / "found") == 0
    assert r"Jos\udce9" in (tmp_path / "found" / "candidates.csv").read_text(encoding="utf-8")
    probes = kind.put(tmp_path / "probes", [f"{ODD}/{ODD}3.png"], of=3)
    kind.put(probes, ["al/3.png"], of=PICTURES + 3)
    assert kind.evaluate(tmp_path / "out", "--gallery", str(given), "--probes", str(probes)) == 0
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert r"Jos\udce9" in (tmp_path / "out" / "probes.csv").read_text(encoding="utf-8")


@needs_bytes
@pytest.mark.parametrize("name", ["table.npz", "table.parquet"])
def test_a_table_names_the_same_files_when_it_is_read(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    paths = [str(tmp_path / f"{each}.png") for each in (ODD, NFC, "al")]
    table = Embeddings(
        paths, np.eye(3, dtype=np.float32), {"digest": "0", "skipped": [[ODD, "broken"]]}, subjects=[ODD, "", "al"]
    )
    write_ears(tmp_path / name, table)
    found = read_ears(tmp_path / name)
    assert (found.paths, found.subjects, found.metadata) == (paths, [ODD, "", "al"], table.metadata)


@needs_bytes
@pytest.mark.runs
def test_embeddings_of_faces_name_the_files(
    faces: Callable[[Iterable[str]], Path], edgeface: Path, tmp_path: Path
) -> None:
    given = faces([f"{ODD}/1.png", "al/1.png"])
    argv = ["--input", str(given), "--recognizer", str(edgeface), "--out", str(tmp_path / "t.npz"), "--device", "cpu"]
    assert embed(argv) == 0
    table = read_embeddings(tmp_path / "t.npz")
    assert [read_image(path).shape for path in table.paths] == [(128, 128, 3)] * 2
    assert sorted(table.identities) == sorted(["al", ODD])
    shutil.rmtree(given)


@needs_bytes
def test_a_long_name_that_is_not_utf_8_fits_a_file(faces: Callable[[Iterable[str]], Path]) -> None:
    rows = read_faces(faces([f"{ODD}/{'é' * 90}{ODD}.png", "al/1.png"]))
    for stem in prepared_names(rows):
        assert len(os.fsencode(f"{stem}.png")) <= 255
