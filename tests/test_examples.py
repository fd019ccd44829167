"""The examples run where neither PyTorch nor this project is installed, and compute what the project computes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ear_teacher import EarRecognizer
from ear_teacher.config import EarVAEConfig
from ear_teacher.ear_reader import EarReader, NoEarError, image_sources
from ear_teacher.recognition.onnx_export import write_onnx
from earface.data.ear_contract import EarContract, landmarker_of
from earface.data.ear_networks import EarLandmarker
from earface.data.folders import list_images
from earface.data.images import Pixels, read_image, write_image
from earface.data.pixels import to_model_range
from earface.synthetic.ear_set import EarSet, write_ear_set
from tests.support.ear_boxes import write_fixed_boxes
from tests.support.ear_recognizer import small_recognizer

pytestmark = pytest.mark.runs

EXAMPLES = Path(__file__).parents[1] / "examples"
FITS = ("canonical", "letterbox", "stretch")
# Imports of anything else fail, as where it is not installed.
BARE = """
import importlib.util, json, pathlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "torch", "earface", "ear_teacher", "dsr", "facial_rec", "pipeline", "PIL", "scipy", "onnx"
        }:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
place, *sys.argv = sys.argv[1:]
found = importlib.util.spec_from_file_location("example", place)
example = importlib.util.module_from_spec(found)
found.loader.exec_module(example)
"""
EMBED = """
model, boxes, out, *paths = sys.argv
recognizer = example.EarRecognizer(pathlib.Path(model), pathlib.Path(boxes) if boxes else None)
embeddings = {}
for path in paths:
    try:
        embeddings[path] = recognizer.embed(example.read(pathlib.Path(path))).tolist()
    except example.NoEarError as error:
        embeddings[path] = str(error)
pathlib.Path(out).write_text(json.dumps(embeddings))
"""
Embedded = dict[Path, NDArray[np.float64] | str]  # the embedding, or why there is none


def bare(code: str, *arguments: object, example: str = "identify_ear.py") -> str:
    """stdout of `code` in a process with the example, without this project."""
    command = [sys.executable, "-I", "-c", BARE + code, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/NAME.png: ears of 6 people, small, large, wide and turned, and other/NAME.png, which are not all ears."""
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("pictures")
    write_ear_set(made, EarSet(6, 4, 96, seed=77), num_workers=1)
    rng = np.random.default_rng(0)
    for number, path in enumerate(list_images(made / "images")):
        picture = read_image(path)
        write_image(folder / path.stem.split("_")[0] / path.name, changed(picture, number))
        if number % 2 == 0:
            third = len(picture) // 3
            parts = {"turned": np.rot90(picture), "top": picture[: third + 6], "bottom": picture[-third - 6 :]}
            for name, part in parts.items():
                write_image(folder / "other" / f"{name}_{number}.png", np.ascontiguousarray(part))
    write_image(folder / "other" / "noise.png", rng.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    write_image(folder / "other" / "grey.png", np.full((64, 48, 3), 127, np.uint8))
    return folder


def changed(picture: Pixels, number: int) -> Pixels:
    """Of another size, shape or side; the largest is averaged in cells before it is sampled."""
    import cv2

    size = ((96, 96), (60, 100), (150, 170), (900, 1000))[number % 4]
    resized = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.ascontiguousarray(resized[:, ::-1]) if number % 3 == 0 else resized


def reader_of(contract: str, detector: Path | None = None) -> EarReader:
    return EarReader(EarVAEConfig(image_size=64, contract=contract), None, None if detector is None else str(detector))


def ears_of(reader: EarReader, paths: Sequence[Path]) -> dict[Path, Pixels | str]:
    """By earface: each ear in its form, or why there is none."""
    found: dict[Path, Pixels | str] = {}
    for path in paths:
        try:
            found[path] = reader(image_sources([path], path)[0])
        except NoEarError as error:
            found[path] = str(error).removeprefix(f"{path}: ")
    return found


@pytest.fixture(scope="module")
def models(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[EarRecognizer, Path]]:
    """By fit: a recogniser and its export."""
    folder, made = tmp_path_factory.mktemp("models"), {}
    for fit in FITS:
        contract = EarContract.canonical(EarLandmarker()).id if fit == "canonical" else fit
        ears = [ear for ear in ears_of(reader_of(contract), list_images(pictures)).values() if not isinstance(ear, str)]
        model = small_recognizer(contract, to_model_range(torch.from_numpy(np.stack(ears[:24]))))
        write_onnx(folder / fit, model, landmarker_of(contract), 1e-4)
        made[fit] = model, folder / fit
    return made


def by_earface(model: EarRecognizer, paths: Sequence[Path], detector: Path | None = None) -> Embedded:
    found = ears_of(reader_of(model.config.contract, detector), paths)
    return {
        path: ear
        if isinstance(ear, str)
        else model.embed_exactly(to_model_range(torch.from_numpy(ear)[None]))[0].numpy()
        for path, ear in found.items()
    }


def by_the_example(export: Path, paths: Sequence[Path], out: Path, detector: Path | None = None) -> Embedded:
    bare(EMBED, export, detector or "", out, *paths)
    return {
        Path(path): each if isinstance(each, str) else np.array(each)
        for path, each in json.loads(out.read_text()).items()
    }


def reasons(embedded: Embedded) -> dict[Path, str]:
    """Of the pictures without an ear, but for their numbers: ONNX Runtime and OpenCV round otherwise."""
    return {path: re.sub(r"[\d.]+", "#", each) for path, each in embedded.items() if isinstance(each, str)}


def check_alike(found: Embedded, wanted: Embedded) -> None:
    """The same ears, the same reasons, and embeddings that differ less than those of two ears do by far."""
    assert reasons(found) == reasons(wanted)
    ears = [path for path, each in wanted.items() if not isinstance(each, str)]
    ours, theirs = (np.stack([of[path] for path in ears]).astype(np.float64) for of in (found, wanted))
    cosines = ours @ theirs.T
    assert cosines.diagonal().min() > 0.999
    assert np.median(cosines[~np.eye(len(ears), dtype=bool)]) < 0.9  # so that the comparison says something


@pytest.mark.parametrize("fit", FITS)
def test_an_ear_has_the_embedding_that_it_has_in_earface(
    fit: str, models: dict[str, tuple[EarRecognizer, Path]], pictures: Path, tmp_path: Path
) -> None:
    model, export = models[fit]
    paths = list_images(pictures)
    wanted = by_earface(model, paths)
    check_alike(by_the_example(export, paths, tmp_path / "found.json"), wanted)
    found = "; ".join(reasons(wanted).values())
    if fit == "canonical":
        for limit in ("that is hidden", "form no ear", "when it is mirrored", "outside the picture"):
            assert limit in found  # each is met
    assert sum(not isinstance(each, str) for each in wanted.values()) > 20


@pytest.mark.parametrize("fit", FITS)
def test_a_detector_finds_the_ear_of_a_photograph(
    fit: str, models: dict[str, tuple[EarRecognizer, Path]], pictures: Path, tmp_path: Path
) -> None:
    """At two places of a photograph that is not square, of which the box of higher score holds it."""
    model, export = models[fit]
    people = [path for path in list_images(pictures) if path.parent.name != "other"]
    for path in people[:12]:
        photograph = np.full((288, 384, 3), 100, np.uint8)
        picture = read_image(path)
        if max(picture.shape[:2]) < 180:
            photograph[96 : 96 + picture.shape[0], 192 : 192 + picture.shape[1]] = picture
        write_image(tmp_path / "photographs" / path.name, photograph)
    corners = [[2.0, 10.0, 20.0, 30.0], [31.5, 22.4, 52.8, 46.0]]
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", corners, [0.6, 0.9])
    paths = list_images(tmp_path / "photographs")
    wanted = by_earface(model, paths, detector)
    assert len([each for each in wanted.values() if not isinstance(each, str)]) >= 3
    check_alike(by_the_example(export, paths, tmp_path / "found.json", detector), wanted)
    nothing = write_fixed_boxes(tmp_path / "none.onnx", corners, [0.2, 0.4])
    found = by_the_example(export, paths[:1], tmp_path / "none.json", nothing)
    assert list(found.values()) == ["no ear found"]


def identify(*arguments: object) -> list[str]:
    return bare("example.main()", "identify_ear.py", *arguments).splitlines()


def test_the_program_names_the_person_of_each_picture(
    models: dict[str, tuple[EarRecognizer, Path]], pictures: Path, tmp_path: Path
) -> None:
    """A gallery of one picture for each person, and the same pictures: each is its own person's, at a cosine of 1."""
    model, export = models["canonical"]
    usable = {p for p, each in by_earface(model, list_images(pictures)).items() if not isinstance(each, str)}
    chosen = {path.parent.name: path for path in sorted(usable) if path.parent.name != "other"}
    for person, path in chosen.items():
        write_image(tmp_path / "people" / person / path.name, read_image(path))
    write_image(tmp_path / "people" / "nobody" / "grey.png", np.full((64, 48, 3), 127, np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    options = ("--model", export, "--gallery", tmp_path / "people", "--top-k", 2)
    *lines, last = identify(*options, *chosen.values(), tmp_path / "text.png")
    assert len(chosen) == 6
    for line, (person, path) in zip(lines, chosen.items(), strict=True):
        assert line.startswith(f"{path}: {person} 1.000, ")
        assert line.count(",") == 1
    assert last == f"{tmp_path}/text.png: no ear: not a picture that can be read"
    [unknown] = identify(*options, "--threshold", 1.1, chosen["S0001"])
    assert unknown.startswith(f"{chosen['S0001']}: unknown; nearest S0001 1.000")


def test_a_person_is_the_mean_of_their_embeddings(
    models: dict[str, tuple[EarRecognizer, Path]], pictures: Path, tmp_path: Path
) -> None:
    model, export = models["stretch"]
    wanted = by_earface(model, list_images(pictures / "S0001"))
    embeddings = np.stack([each for each in wanted.values() if not isinstance(each, str)])
    for path in wanted:
        write_image(tmp_path / "people" / "S0001" / path.name, read_image(path))
    mean = embeddings.mean(axis=0)
    cosine = float(embeddings[0] @ mean / np.linalg.norm(mean))
    [line] = identify("--model", export, "--gallery", tmp_path / "people", next(iter(wanted)))
    assert float(line.split()[-1]) == pytest.approx(cosine, abs=2e-3)
    assert cosine < 0.99  # so that a nearest picture would show


# The other examples

TO_NPY = """
import numpy
model, out, *paths = sys.argv
read = lambda path: example.cv2.cvtColor(example.cv2.imread(path), example.cv2.COLOR_BGR2RGB)
found = [WHAT for path in paths]
numpy.savez(out, **{f"{row}_{place}": each for row, one in enumerate(found) for place, each in enumerate(one)})
"""


def computed(example: str, what: str, model: Path, paths: Sequence[Path], out: Path) -> list[list[NDArray[np.float32]]]:
    """For each picture the arrays of `what`, an expression of the example's `model` and of `read(path)`."""
    bare(TO_NPY.replace("WHAT", what), model, out, *paths, example=example)
    with np.load(out) as found:
        names = [name.split("_") for name in found.files]
        rows = range(len(paths))
        return [[found[f"{row}_{place}"] for number, place in names if int(number) == row] for row in rows]


def show(example: str, *arguments: object) -> list[str]:
    return bare("example.main()", example, *arguments, example=example).splitlines()


@pytest.mark.slow
def test_ears_are_encoded_and_decoded_as_in_earface(pictures: Path, tmp_path: Path) -> None:
    from ear_teacher.onnx_export import write_onnx as write_vae
    from tests.ear_teacher.test_export import SHAPES, trained

    model, paths = trained(**SHAPES["conv with linear path"]), list_images(pictures / "S0001")
    write_vae(tmp_path / "out", model, 1e-4)
    of_one = "lambda vae, ear: (*(latents := vae.encode(ear)), vae.decode(latents[0]))"
    what = f"({of_one})(example.EarVAE(pathlib.Path(model)), read(path))"
    found = computed("encode_ears.py", what, tmp_path / "out", paths, tmp_path / "found.npz")
    ears = torch.stack([to_model_range(torch.from_numpy(ear)[None])[0] for ear in stretched(paths)])
    with torch.no_grad():
        mu, logvar = model.encode_posterior(ears)
        decoded = model.decode(mu)
    for row, (own_mu, own_logvar, picture) in enumerate(found):
        np.testing.assert_allclose(own_mu, mu[row], atol=1e-4)
        np.testing.assert_allclose(own_logvar, logvar[row], atol=1e-4)
        np.testing.assert_allclose(picture.transpose(2, 0, 1) / 127.5 - 1, decoded[row], atol=0.02)
    printed = show("encode_ears.py", "--model", tmp_path / "out", "--out", tmp_path / "decoded", *paths)
    assert len(printed) == len(list((tmp_path / "decoded").iterdir())) == len(paths)
    assert printed[0].split()[-len(paths)] == "1.000"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ears/ of a VAE of canonical ears, detector.onnx and dsr.onnx."""
    from dsr.onnx_export import write_onnx as write_dsr
    from ear_teacher.detector.onnx_export import write_onnx as write_detector
    from ear_teacher.onnx_export import write_onnx as write_vae
    from tests.dsr.test_export import small
    from tests.ear_teacher.detector.test_model import detector
    from tests.ear_teacher.test_export import SHAPES, trained

    folder, vae = tmp_path_factory.mktemp("exported"), trained(**SHAPES["conv with linear path"])
    vae.config = dataclasses.replace(vae.config, contract=EarContract.canonical(EarLandmarker()).id)
    write_vae(folder / "ears", vae, 1e-4)
    write_detector(folder, detector(num_landmarks=0), 1e-4)
    write_dsr(folder, small("16"), 1e-4)
    return folder


def run_example(example: str, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "model"),
    [("encode_ears.py", "ears"), ("detect_ears.py", "detector.onnx"), ("upscale_faces.py", "dsr.onnx")],
)
def test_pictures_of_one_name_are_written_apart_and_nothing_is_replaced_unasked(
    example: str, model: str, exported: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("anna/01.png", "ben/01.png", "anna/left.png", "ben/left.png", "ben/own.png")]
    for path in paths:
        write_image(path, rng.integers(0, 256, (32, 32, 3), np.uint8))
    out = tmp_path / "out"
    given = ("--model", exported / model, "--out", out)
    code, note = run_example(example, *given, *paths)
    assert code == 0, note
    assert ("takes canonical ears" in note and "earface ears prepare" in note) == (model == "ears")
    names = {"anna_01.png", "ben_01.png", "anna_left.png", "ben_left.png", "own.png"}
    assert {path.name for path in out.iterdir()} == names
    (out / "own.png").write_bytes(b"mine")
    assert run_example(example, *given, paths[-1]) == (
        2,
        f"error: {out / 'own.png'}: is there already; --overwrite replaces\n",
    )
    assert (out / "own.png").read_bytes() == b"mine"
    assert run_example(example, *given, "--overwrite", paths[-1])[0] == 0
    assert (out / "own.png").read_bytes() != b"mine"
    code, line = run_example(example, *given, "--overwrite", paths[-1], paths[-1])
    assert code == 2
    assert "ben_own.png: would be written twice" in line


def stretched(paths: Sequence[Path]) -> list[Pixels]:
    from earface.data.images import resize_image

    return [resize_image(read_image(path), 64) for path in paths]


@pytest.mark.slow
def test_ears_are_detected_as_in_earface(tmp_path: Path) -> None:
    from ear_teacher.detector.onnx_export import write_onnx as write_detector
    from tests.ear_teacher.detector.test_model import PHOTOGRAPHS, detector

    model = detector(num_landmarks=0)
    model.score_threshold = 0.55
    write_detector(tmp_path / "out", model, 1e-4)
    paths = [tmp_path / f"{number}.png" for number in range(len(PHOTOGRAPHS))]
    for path, photograph in zip(paths, PHOTOGRAPHS, strict=True):
        write_image(path, photograph)
    what = "example.EarDetector(pathlib.Path(model))(read(path))"
    network = tmp_path / "out" / "detector.onnx"
    found = computed("detect_ears.py", what, network, paths, tmp_path / "found.npz")
    wanted = model.detect(paths)
    for (boxes, scores), each in zip(found, wanted, strict=True):
        assert len(boxes) == len(each["boxes"]) > 0
        np.testing.assert_allclose(boxes, each["boxes"], atol=0.02 * max(map(len, each["boxes"])))
        np.testing.assert_allclose(scores, each["scores"], atol=1e-4)
    printed = show("detect_ears.py", "--model", network, "--min-score", 0.6, "--out", tmp_path / "marked", *paths)
    assert len(printed) == sum(int((each["scores"] >= 0.6).sum()) for each in wanted)
    assert len(list((tmp_path / "marked").iterdir())) == len(paths)


@pytest.mark.slow
@pytest.mark.parametrize("vlr_size", ["16", "14x16", "12-16"])
def test_faces_are_upscaled_as_in_earface(vlr_size: str, pictures: Path, tmp_path: Path) -> None:
    from dsr.onnx_export import write_onnx as write_dsr
    from tests.dsr.test_export import small

    model = small(vlr_size)
    write_dsr(tmp_path / "out", model, 1e-4)
    paths = [path for path in list_images(pictures) if read_image(path).shape[0] == read_image(path).shape[1]][:4]
    write_image(
        tmp_path / "there.png", np.ascontiguousarray(read_image(paths[0])[:16, : 16 if vlr_size == "16" else 14])
    )
    paths.append(tmp_path / "there.png")
    network = tmp_path / "out" / "dsr.onnx"
    what = "[example.DSR(pathlib.Path(model))(read(path))]"
    found = computed("upscale_faces.py", what, network, paths, tmp_path / "found.npz")
    for (picture,), wanted in zip(found, model.upscale(paths), strict=True):
        difference = np.abs(picture.astype(int) - wanted)
        assert (difference.mean(), difference.max()) < (0.5, 12)  # a pixel of the VLR may round otherwise
        assert picture.std() > 10
    show("upscale_faces.py", "--model", network, "--out", tmp_path / "upscaled", *paths)
    assert read_image(tmp_path / "upscaled" / "there.png").shape == (128, 128, 3)


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["arcface", "center"])
def test_faces_are_embedded_as_in_earface(crop: Any, pictures: Path, tmp_path: Path) -> None:
    from facial_rec.contract import FaceContract
    from facial_rec.embedding import read_face
    from facial_rec.hub import EdgeFaceProvenance
    from facial_rec.model import EdgeFace
    from facial_rec.onnx_export import write_onnx as write_edgeface
    from tests.support.edgeface import random_edgeface

    model = EdgeFace.from_weights(random_edgeface(tmp_path / "weights.pt", 0))
    model.provenance = EdgeFaceProvenance(crop)
    write_edgeface(tmp_path / "out", model, 1e-4)
    paths = [path for path in list_images(pictures) if read_image(path).shape[0] == read_image(path).shape[1]][:3]
    for side in (112, 128):
        write_image(tmp_path / f"{side}.png", np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8))
        paths.append(tmp_path / f"{side}.png")
    network = tmp_path / "out" / "edgeface.onnx"
    what = "[example.EdgeFace(pathlib.Path(model))(read(path))]"
    found = computed("compare_faces.py", what, network, paths, tmp_path / "found.npz")
    with torch.no_grad():
        wanted = model.embed(torch.stack([read_face(path, FaceContract(crop)) for path in paths])).numpy()
    ours = np.stack([each for (each,) in found])
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-2
    printed = show("compare_faces.py", "--model", network, *paths)
    assert [float(line.split()[-1]) for line in printed] == pytest.approx((wanted[1:] @ wanted[0]).tolist(), abs=2e-3)


def test_files_of_two_exports_are_refused(models: dict[str, tuple[EarRecognizer, Path]], tmp_path: Path) -> None:
    form = json.loads((models["canonical"][1] / "ear_form.json").read_text())
    for name in ("recognizer.onnx", "landmarks.onnx"):
        (tmp_path / name).write_bytes((models["canonical"][1] / name).read_bytes())
    for key, value in (("recognizer", "digest"), ("landmarker", "sha256")):
        (tmp_path / "ear_form.json").write_text(json.dumps(form | {key: form[key] | {value: "another"}}))
        with pytest.raises(AssertionError, match=r"error: .* different exports|error: .* not the landmarker"):
            identify("--model", tmp_path, "--gallery", tmp_path, tmp_path / "a.png")
