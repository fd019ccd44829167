"""Models in Python: pictures in whatever form give what the tensors of a loop by hand give, alone and in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dsr import DSR, DSRConfig
from ear_teacher import EarDetector, EarRecognizer, EarVAE
from ear_teacher.recognition.loading import TrainedEarRecognizer
from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.face_alignment import face_template
from earface.data.face_rows import read_faces
from earface.data.folders import list_images
from earface.data.identity_embeddings import read_embeddings
from earface.data.images import Pixels, read_image, resize_image
from facial_rec import FaceContract, load_recognizer
from pipeline import Gallery
from pipeline.enroll import main as enroll
from tests.support.ear_recognizer import small_recognizer
from tests.support.yunet import draw_marks, write_yunet

pytestmark = pytest.mark.runs


def by_hand(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def ways(paths: list[Path]) -> dict[str, Any]:
    pixels = [read_image(path) for path in paths]
    return {
        "paths": paths,
        "texts": [str(path) for path in paths],
        "pillow": [Image.open(path) for path in paths],
        "arrays": pixels,
        "tensors": [torch.from_numpy(each).permute(2, 0, 1) for each in pixels],
    }


@pytest.fixture(scope="module")
def ears(ear_set: Path) -> list[Path]:
    return list_images(ear_set / "images")[:3]


@pytest.mark.parametrize("kind", ["vae", "recogniser"])
def test_ears_in_every_form_have_the_embedding_of_a_loop(ears: list[Path], kind: str) -> None:
    torch.manual_seed(0)
    shape = {"image_size": 64, "latent_dim": 8, "base_channels": 4, "linear_path_size": 16}
    model: Any = EarVAE(encoder="conv", **shape) if kind == "vae" else small_recognizer("stretch")
    model.train()
    inner = model.encode if kind == "vae" else model.embed_exactly
    model.eval()
    with torch.no_grad():
        wanted = torch.cat([inner(by_hand(resize_image(read_image(path), 64))) for path in ears])
    model.train()
    for name, given in ways(ears).items():
        found = model.embed(given, batch_size=2)
        assert torch.equal(found, wanted), name
        assert not found.requires_grad
    images = torch.cat([by_hand(resize_image(read_image(path), 64)) for path in ears])
    assert torch.equal(model.embed(images), wanted)
    assert torch.equal(model.embed(ears[1]), wanted[1:2])
    assert all(module.training for module in model.modules())  # as it was


def test_faces_in_every_form_have_the_embedding_of_a_loop(face_set: Path, edgeface: Path) -> None:
    recognizer = load_recognizer(str(edgeface), None)
    paths = [row.path for row in read_faces(face_set, ("val",))][:3]
    wanted = torch.cat([recognizer(by_hand(read_image(path))) for path in paths])
    for name, given in ways(paths).items():
        assert torch.equal(recognizer.embed(given, batch_size=2), wanted), name
    assert FaceContract("arcface") == recognizer.contract
    with pytest.raises(InputError, match="picture 0: 9x6 is not square"):
        recognizer.embed([np.zeros((6, 9, 3), np.uint8)])


def test_small_faces_are_upscaled(face_set: Path) -> None:
    torch.manual_seed(0)
    model = DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size="16")).eval()
    paths = list_images(face_set / "val_processed" / "vlr_images")[:3]
    with torch.no_grad():
        wanted = torch.cat([model(by_hand(read_image(path))) for path in paths])
    pixels = ((wanted + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for name, given in ways(paths).items():
        found = model.upscale(given)
        assert found.shape == (3, 128, 128, 3)
        assert np.abs(found.astype(int) - pixels).max() <= 1, name  # of another batch
    assert model.upscale(Image.new("RGB", (128, 128))).shape == (1, 128, 128, 3)
    with pytest.warns(DataWarning, match="the picture, 250x250.*align their faces first"):
        model.upscale(Image.new("RGB", (250, 250)))
    with pytest.raises(InputError, match="the picture: 178x218 is not square"):
        model.upscale(Image.new("RGB", (178, 218)))


def test_photographs_in_every_form_have_the_same_ears(ears: list[Path]) -> None:
    torch.manual_seed(0)
    model = EarDetector(encoder="conv", image_size=64, crop_size=64, base_channels=4, num_landmarks=2)
    wanted = model.eval().predict([read_image(path) for path in ears])
    for name, given in ways(ears).items():
        for found, expected in zip(model.detect(given), wanted, strict=True):
            assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_people_are_enrolled_and_identified(face_set: Path, edgeface: Path, tmp_path: Path) -> None:
    recognizer = load_recognizer(str(edgeface), None)
    people: dict[str, list[Path]] = {}
    for row in read_faces(face_set, ("train",)):
        people.setdefault(row.identity, []).append(row.path)
    people = {name: paths for name, paths in people.items() if len(paths) > 1}
    gallery = Gallery.enroll(recognizer, {name: paths[0] for name, paths in people.items()}, tmp_path / "g.npz")
    assert gallery.identities == list(people)
    assert read_embeddings(tmp_path / "g.npz").identities == list(people)
    assert Gallery.load(tmp_path / "g.npz").templates.equal(gallery.templates)
    again = gallery.identify(recognizer, [paths[0] for paths in people.values()], threshold=0.99)
    assert [each.decision for each in again] == list(people)
    probe = next(iter(people.values()))[1]
    (found,) = gallery.identify(recognizer, read_image(probe), threshold=2.0, count=3)
    assert found.decision == "unknown"
    (as_tensor,) = gallery.identify(recognizer, by_hand(read_image(probe)), threshold=2.0, count=3)
    assert as_tensor.candidates == found.candidates
    cosines = (gallery.templates @ recognizer.embed(probe)[0]).tolist()
    assert [each.score for each in found.candidates] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=1e-6)
    with pytest.raises(InputError, match="give the recogniser that it was enrolled with"):
        gallery.identify(load_recognizer(str(edgeface), "center"), probe, threshold=0.5)


def test_photographs_of_faces_take_a_detector(face_set: Path, edgeface: Path, tmp_path: Path) -> None:
    """The command's gallery, and one warning where the detector is left out."""
    marks, people = write_yunet(tmp_path / "marks.onnx"), {}
    rows = read_faces(face_set, ("train",))[:4]
    for place, row in enumerate(rows):
        photograph, face = np.full((250, 250, 3), 128, np.uint8), read_image(row.path)
        draw_marks(face, face_template() - 0.5, 128)
        photograph[60 : 60 + 128, 30 + 20 * place : 158 + 20 * place] = face
        people[f"p{place}"] = tmp_path / "people" / f"p{place}"
        people[f"p{place}"].mkdir(parents=True)
        Image.fromarray(photograph).save(people[f"p{place}"] / "a.png")
    recognizer = load_recognizer(str(edgeface), None)
    gallery = Gallery.enroll(recognizer, people, tmp_path / "g.npz", detector=marks)
    given = ["--input", str(tmp_path / "people"), "--out", str(tmp_path / "c.npz"), "--recognizer", str(edgeface)]
    assert enroll([*given, "--detector", str(marks), "--device", "cpu"]) == 0
    mine, commands = (read_embeddings(tmp_path / name) for name in ("g.npz", "c.npz"))
    assert np.allclose(mine.embeddings, commands.embeddings, atol=1e-6)
    assert [mine.metadata[name] for name in ("aligned", "detector")] == [False, str(marks)]
    probes = [read_image(folder / "a.png") for folder in people.values()]
    found = gallery.identify(recognizer, probes, threshold=0.999, detector=str(marks))
    assert [each.decision for each in found] == list(people)
    advice = r"4 of 4 pictures are larger .*/p0/a.png, 250x250\): if they are photographs, give `detector`"
    with pytest.warns(DataWarning, match=advice) as warned:
        wrong = Gallery.enroll(recognizer, people)
    assert len(warned) == 1
    assert not torch.allclose(wrong.templates, gallery.templates, atol=0.01)
    with pytest.raises(InputError, match="no face with a score"):
        recognizer.embed(rows[0].path, detector=marks)
    with pytest.raises(InputError, match="give photographs as uint8"):
        recognizer.embed(by_hand(probes[0]), detector=marks)
    with pytest.raises(InputError, match="finds faces, and the recogniser is one of ears"):
        Gallery.enroll(TrainedEarRecognizer(small_recognizer("stretch"), marks, None), people, detector=marks)


def test_a_recogniser_that_is_trained_embeds_with_gradient(ears: list[Path]) -> None:
    model: EarRecognizer = small_recognizer("stretch").train()
    assert model.embeddings(torch.rand(2, 3, 64, 64)).requires_grad
