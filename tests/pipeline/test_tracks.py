"""One decision from all pictures of a folder or of a video, galleries of weighted templates, and refusals."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from earface.core.errors import InputError
from earface.data.identity_embeddings import read_embeddings
from earface.data.images import read_image
from earface.data.pixels import to_model_range
from earface.data.video import write_frames
from earface.synthetic.face_set import FaceSet, synthesize_faces
from facial_rec.contract import FaceContract
from facial_rec.model import EdgeFace
from facial_rec.recognizer import load_recognizer
from pipeline.embedding import EmbeddedPictures
from pipeline.enroll import main as enroll
from pipeline.gallery import Gallery
from pipeline.identified import Identified, Rule
from pipeline.identify import main as identify
from pipeline.track import identify_track
from tests.conftest import only_line
from tests.support.shared_files import LFW, needs, official_edgeface

pytestmark = pytest.mark.runs

NAMES = ("al", "bo", "cy")
XXS = "edgeface_xxs_q"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic faces of 128x128 of each of NAMES, in a folder for each."""
    folder = tmp_path_factory.mktemp("people")
    for place, face in enumerate(synthesize_faces(FaceSet(len(NAMES), 4, 128, seed=3))[0]):
        path = folder / NAMES[place // 4] / f"{place % 4}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(face).save(path)
    return folder


def enrol(people: Path, weights: Path, out: Path, *more: str) -> int:
    given = ["--aligned", "--input", str(people), "--recognizer", str(weights), "--device", "cpu", "--out", str(out)]
    return enroll([*given, *more])


def track(given: Path, gallery: Path, out: Path, *more: str) -> int:
    return identify(
        ["--track", str(given), "--aligned", "--gallery", str(gallery), "--out", str(out), "--device", "cpu", *more]
    )


def rows_in(out: Path) -> list[dict[str, str]]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def gallery(people: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "g.npz"
    assert enrol(people, edgeface, path, "--fusion", "quality") == 0
    return path


def raw_embeddings(weights: Path, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Of faces and of their mirror images, as the network gives them."""
    model, contract = EdgeFace.from_weights(weights), FaceContract()
    faces = contract(torch.cat([to_model_range(torch.from_numpy(read_image(path)[None])) for path in paths]))
    with torch.no_grad():
        return model(faces).double().numpy(), model(faces.flip(3)).double().numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_quality_of_enrolled_pictures_is_the_network_s(gallery: Path, edgeface: Path) -> None:
    table = read_embeddings(gallery)
    raw, mirrored = raw_embeddings(edgeface, list(map(Path, table.paths)))
    assert table.quality is not None
    np.testing.assert_allclose(table.quality["norm"], np.linalg.norm(raw, axis=1), rtol=1e-4)
    np.testing.assert_allclose(table.quality["mirror"], (unit(raw) * unit(mirrored)).sum(axis=1), atol=1e-4)
    assert set(table.quality["size"].tolist()) == {128}


def test_measuring_changes_no_bit_of_an_embedding(edgeface: Path) -> None:
    recognizer = load_recognizer(str(edgeface), None)
    crops = torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    embeddings, norms, alike = recognizer.measured(crops)
    assert torch.equal(embeddings, recognizer(crops))
    again, same_norms, unknown = recognizer.measured(crops, mirrored=False)
    assert torch.equal(again, embeddings)
    assert torch.equal(same_norms, norms)
    assert unknown.isnan().all()
    torch.testing.assert_close(alike, (embeddings * recognizer(crops.flip(3))).sum(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["mean", "norm", "quality"])
def test_a_track_is_searched_for_by_its_fused_template(
    fusion: str, people: Path, gallery: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(people / "bo", gallery, tmp_path, "--fusion", fusion, "--top-k", "3") == 0
    paths = sorted((people / "bo").iterdir())
    raw, mirrored = raw_embeddings(edgeface, paths)
    weights = {
        "mean": np.ones(4),
        "norm": np.linalg.norm(raw, axis=1),
        "quality": np.maximum(0.01, (unit(raw) * unit(mirrored)).sum(axis=1)),
    }
    template = unit(weights[fusion] @ unit(raw))
    enrolled, rows = Gallery.load(gallery, "joined"), rows_in(tmp_path)
    scores = dict(zip(enrolled.identities, enrolled.templates.numpy() @ template, strict=True))
    assert {row["identity"]: float(row["score"]) for row in rows} == pytest.approx(scores, abs=2e-4)
    assert {(row["file"], row["pictures"]) for row in rows} == {(str(people / "bo"), "4")}
    assert float(rows[0]["mirror"]) == pytest.approx(weights["quality"].mean(), abs=1e-3)
    assert "4 of 4 pictures of the track are used" in capsys.readouterr().out


def write_video(path: Path, faces: list[Path], frames_each: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 128))
    for face in faces:
        for _ in range(frames_each):
            writer.write(cv2.imread(str(face)))
    writer.release()
    return path


def test_every_so_many_th_frame_of_a_video_is_taken(people: Path, tmp_path: Path) -> None:
    faces = sorted((people / "al").iterdir())
    video = write_video(tmp_path / "clip.avi", faces, 5)
    (tmp_path / "frames").mkdir()
    frames = write_frames(video, tmp_path / "frames", 5)
    assert [path.name for path in frames] == [f"clip_{number:06d}.png" for number in (0, 5, 10, 15)]
    for frame, face in zip(frames, faces, strict=True):
        assert np.abs(read_image(frame).astype(int) - read_image(face)).mean() < 6  # MJPEG loses a little
    assert len(write_frames(video, tmp_path / "frames", 7)) == 3


def test_a_video_is_a_track(people: Path, gallery: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", sorted((people / "al").iterdir()), 5)
    assert track(video, gallery, tmp_path / "out") == 0
    rows = rows_in(tmp_path / "out")
    assert (rows[0]["identity"], rows[0]["file"], rows[0]["pictures"]) == ("al", str(video), "4")
    assert (tmp_path / "out" / "candidates.png").is_file()


def test_tracks_that_cannot_be_are_one_line(
    people: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 99)
    (tmp_path / "empty").mkdir()
    for given, message in (
        ([str(tmp_path / "junk.mp4")], f"{tmp_path / 'junk.mp4'}: cannot be read as a video"),
        ([str(tmp_path / "empty")], f"{tmp_path / 'empty'}: holds no pictures"),
        ([str(tmp_path / "nowhere.mp4")], "nowhere.mp4: no such file"),
        ([str(people / "al"), "--input", str(people / "bo")], "--input and --track: give one of them"),
    ):
        assert track(Path(given[0]), gallery, tmp_path / "out", *given[1:]) == 2
        assert message in only_line(capsys)
    with pytest.raises(InputError, match="no such file"):
        write_frames(tmp_path / "nowhere.mp4", tmp_path, 1)


def test_a_track_of_two_people_is_refused_by_their_embeddings(gallery: Path) -> None:
    """Random weights tell nobody apart: embeddings that do."""
    rng, own = np.random.default_rng(0), Gallery.load(gallery)
    people = np.repeat(rng.normal(size=(2, own.templates.shape[1])), 3, axis=0)
    rows = unit(people + 0.5 * rng.normal(size=people.shape)).astype(np.float32)
    paths = [Path(f"{number}.png") for number in range(6)]
    quality = {"norm": np.ones(6, np.float32)}

    def identified(chosen: list[int]) -> Identified:
        embedded = EmbeddedPictures(list(range(len(chosen))), rows[chosen], [], quality)
        return identify_track(own, Path("t"), embedded, [paths[at] for at in chosen], None, "mean", Rule(0.35), 3)

    message = "`track` t: shows two people: 3 pictures are like 0.png and 3 like 3.png: give a track of one"
    with pytest.raises(InputError, match=message):
        identified([0, 1, 2, 3, 4, 5])
    assert identified([0, 1, 2]).pictures == 3
    assert identified([0, 3]).pictures == 2  # too few to tell


@needs(LFW, official_edgeface(XXS))
def test_a_folder_of_two_people_s_photographs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = official_edgeface(XXS)
    people = [folder for folder in sorted(LFW.iterdir()) if folder.is_dir() and len(list(folder.iterdir())) >= 4][:2]
    for folder in people:
        for picture in sorted(folder.iterdir())[:4]:
            for target in (tmp_path / "both", tmp_path / "people" / folder.name):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, target)
    assert enrol(tmp_path / "people", weights, tmp_path / "g.npz") == 0
    assert track(tmp_path / "people" / people[0].name, tmp_path / "g.npz", tmp_path / "out") == 0
    assert rows_in(tmp_path / "out")[0]["decision"] == people[0].name
    capsys.readouterr()
    assert track(tmp_path / "both", tmp_path / "g.npz", tmp_path / "out", "--overwrite") == 2
    assert f"--track {tmp_path / 'both'}: shows two people: 4 pictures are like" in only_line(capsys)


def test_a_gallery_grows_as_its_pictures_were_fused(
    people: Path, gallery: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, rest, out = tmp_path / "first", tmp_path / "rest", tmp_path / "g.npz"
    for name, target in (("al", first), ("bo", rest), ("cy", rest)):
        shutil.copytree(people / name, target / name)
    assert enrol(first, edgeface, out, "--fusion", "quality") == 0
    assert enrol(rest, edgeface, out, "--add") == 0
    assert torch.equal(Gallery.load(out).templates, Gallery.load(gallery).templates)
    capsys.readouterr()
    (tmp_path / "more").mkdir()
    assert enrol(people, edgeface, out, "--add", "--fusion", "norm") == 2
    assert f"--fusion norm: {out} was enrolled with quality" in only_line(capsys)
