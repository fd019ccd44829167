"""The table of a recogniser's embeddings: against the model alone, whatever the pictures come as; sides; refusals."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ear_teacher import EarRecognizer
from ear_teacher.ear_reader import EarReader, sources_of
from ear_teacher.recognition.embed import main
from earface.data.ear_contract import EarAligner
from earface.data.ear_networks import EAR_LANDMARKS, EarLandmarker
from earface.data.folders import list_images
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings
from earface.data.images import read_image, write_image
from earface.data.npy import read_teacher_npy, write_teacher_npy
from tests.conftest import only_line
from tests.support.ear_boxes import write_fixed_boxes

pytestmark = pytest.mark.runs


def embed(recognizer: Path, out: Path, given: object, *flags: object) -> int:
    return main([*map(str, ["--recognizer", recognizer, "--input", given, "--out", out, "--device", "cpu", *flags])])


def embedded(recognizer: Path, out: Path, given: object, *flags: object) -> IdentityEmbeddings:
    assert embed(recognizer, out, given, *flags) == 0
    return read_embeddings(out)


def tensor(path: str) -> Tensor:
    """(1, 3, S, S) in [-1, 1], loaded by hand."""
    pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0


def by_name(table: IdentityEmbeddings) -> dict[str, tuple[bytes, str, str]]:
    """Of each picture's name: the bits of its embedding, its identity and its side."""
    rows = zip(table.paths, table.embeddings, table.identities, table.sides or [], strict=True)
    return {Path(path).name: (row.tobytes(), identity, side) for path, row, identity, side in rows}


@pytest.fixture(scope="module")
def prepared(prepared_crops: Path) -> Path:
    return prepared_crops / "canonical"


@pytest.fixture(scope="module")
def table(ear_recognizer: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> IdentityEmbeddings:
    """Of the folder of prepared ears."""
    return embedded(ear_recognizer, tmp_path_factory.mktemp("table") / "ears.npz", prepared / "ears")


# What is written


def test_the_table_holds_what_the_model_makes_of_each_ear(
    ear_recognizer: Path, prepared: Path, table: IdentityEmbeddings
) -> None:
    model = EarRecognizer.load(ear_recognizer)
    assert table.paths == [str(path) for path in list_images(prepared / "ears")]
    assert table.identities == [Path(path).parent.name for path in table.paths]
    with torch.no_grad():
        wanted = torch.cat([model.embed(tensor(path)) for path in table.paths])
    np.testing.assert_allclose(table.embeddings, wanted.numpy(), rtol=0, atol=2e-6)
    assert np.std(table.embeddings, axis=0).max() > 1e-2
    assert (table.contract, table.digest) == (model.config.contract, model.digest)
    assert table.metadata == {"weights": str(ear_recognizer), "backbone": "conv", "skipped": [], "warnings": []}


def test_the_sides_of_prepared_ears_are_those_of_their_index(prepared: Path, table: IdentityEmbeddings) -> None:
    with (prepared / "ears" / "index.csv").open() as stream:
        sides = {row["file"]: row["side"] for row in csv.DictReader(stream)}
    assert table.sides == [sides[Path(path).relative_to(prepared / "ears").as_posix()] for path in table.paths]
    assert set(table.sides) == {"l", "r"}


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_bits_depend_neither_on_the_batch_nor_on_the_order(
    ear_recognizer: Path, table: IdentityEmbeddings, tmp_path: Path, batch: int
) -> None:
    order = np.random.default_rng(batch).permutation(len(table))
    write_teacher_npy(
        tmp_path / "shuffled.npy",
        image_paths=[Path(table.paths[row]) for row in order],
        subjects=[table.identities[row] for row in order],
        sides=[table.sides[row] for row in order],
        contract=table.contract,
    )
    found = embedded(ear_recognizer, tmp_path / "e.npz", tmp_path / "shuffled.npy", "--batch-size", batch)
    assert np.array_equal(found.embeddings, table.embeddings[order])
    assert found.identities == [table.identities[row] for row in order]
    assert found.sides == [table.sides[row] for row in order]


def test_crops_are_aligned_to_the_same_bits_and_prepared_ears_are_not_aligned_again(
    ear_recognizer: Path, crops: Path, prepared: Path, table: IdentityEmbeddings, tmp_path: Path
) -> None:
    raw = embedded(ear_recognizer, tmp_path / "raw.npz", crops)
    known, found = by_name(table), by_name(raw)
    assert known.items() <= found.items()
    aligner = EarAligner("canonical", EarLandmarker())
    fits = [aligner.locate(read_image(path)).fit for path in raw.paths]
    assert raw.sides == [fit.side for fit in fits if fit is not None]
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", [[0, 0, 10, 10]], [0.9])  # in no ear
    again = embedded(ear_recognizer, tmp_path / "again.npz", prepared / "ears", "--detector", detector)
    assert by_name(again) == known


def test_a_teacher_file_and_one_picture_give_the_folders_rows(
    ear_recognizer: Path, prepared: Path, table: IdentityEmbeddings, tmp_path: Path
) -> None:
    rows = by_name(table)
    for part in ("train", "val"):
        found = embedded(ear_recognizer, tmp_path / f"{part}.npz", prepared / f"{part}_teacher.npy")
        assert by_name(found).items() <= rows.items()
        assert len(found) == len(read_teacher_npy(prepared / f"{part}_teacher.npy"))
    alone = embedded(ear_recognizer, tmp_path / "one.npz", table.paths[5])
    assert (alone.identities, alone.sides) == ([""], [table.sides[5]])
    assert np.array_equal(alone.embeddings[0], table.embeddings[5])


def test_sides_and_identities_that_nobody_knows_are_empty(
    ear_recognizer: Path, table: IdentityEmbeddings, tmp_path: Path
) -> None:
    """Pixels in an array, in their form by what the file says."""
    images = np.stack([np.asarray(Image.open(path)) for path in table.paths])
    np.savez(tmp_path / "pixels.npz", images=images, contract=table.contract)
    found = embedded(ear_recognizer, tmp_path / "e.npz", tmp_path / "pixels.npz")
    assert found.identities == found.sides == [""] * len(table)
    assert np.array_equal(found.embeddings, table.embeddings)
    assert found.paths[3] == f"{tmp_path / 'pixels.npz'} row 3"


def test_an_exported_folder_gives_the_same_table(
    ear_recognizer: Path, prepared: Path, table: IdentityEmbeddings, tmp_path: Path
) -> None:
    EarRecognizer.load(ear_recognizer).save_pretrained(tmp_path / "exported")
    found = embedded(tmp_path / "exported", tmp_path / "e.npz", prepared / "ears")
    assert by_name(found) == by_name(table)
    assert (found.contract, found.digest) == (table.contract, table.digest)


def test_a_detector_finds_the_ears_of_photographs(ear_recognizer: Path, crops: Path, tmp_path: Path) -> None:
    photograph = np.full((384, 384, 3), 100, np.uint8)
    picture = list_images(crops)[0]
    photograph[96:192, 192:288] = read_image(picture)
    write_image(tmp_path / "photographs" / "Ada" / "one.png", photograph)
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", [[32, 16, 48, 32]], [0.9])
    found = embedded(ear_recognizer, tmp_path / "a.npz", tmp_path / "photographs", "--detector", detector)
    alone = embedded(ear_recognizer, tmp_path / "b.npz", picture)
    assert (found.identities, found.sides) == (["Ada"], alone.sides)
    assert found.embeddings[0] @ alone.embeddings[0] > 0.9


# What cannot be used


def test_ears_that_are_not_found_are_listed_and_unreadable_pictures_limited(
    ear_recognizer: Path, crops: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "crops"
    shutil.copytree(crops, folder)
    for number in range(2):  # more than 5 % of 27
        write_image(folder / "nobody" / f"{number}.png", np.full((96, 96, 3), 90, np.uint8))
    (folder / "nobody" / "broken.png").write_bytes(b"no picture")
    found = embedded(ear_recognizer, tmp_path / "e.npz", folder)
    assert len(found) == 24
    assert [Path(path).name for path, _ in found.metadata["skipped"]] == ["0.png", "1.png", "broken.png"]
    said = capsys.readouterr().out
    assert "3 of 27 pictures cannot be used and are left out:" in said
    assert all(f"{folder / 'nobody' / name}: " in said for name in ("0.png", "1.png", "broken.png"))
    (folder / "nobody" / "broken_too.png").write_bytes(b"no picture")
    assert embed(ear_recognizer, tmp_path / "more.npz", folder) == 2
    assert "pictures cannot be used, over 5%" in only_line(capsys)
    assert not (tmp_path / "more.npz").exists()


def test_what_cannot_be_embedded_is_one_line(
    ear_recognizer: Path, prepared_crops: Path, tmp_path: Path, capsys: Any
) -> None:
    import onnx

    landmarker = onnx.load(EAR_LANDMARKS)
    landmarker.doc_string = "another"
    onnx.save(landmarker, tmp_path / "other.onnx")
    torch.save({"state_dict": {}, "hyper_parameters": {"kind": "earface.EarVAE"}}, tmp_path / "vae.ckpt")
    ears = prepared_crops / "canonical" / "ears"
    cases: list[tuple[list[object], str]] = [
        (["--input", prepared_crops / "letterbox" / "val_teacher.npy"], "is in the form letterbox, the model takes"),
        (["--input", ears.parent], f"holds prepared ears beside other pictures; give {ears}"),
        (["--landmarker", tmp_path / "other.onnx"], "not the one that the model's ears were aligned by"),
        (["--recognizer", tmp_path / "vae.ckpt"], "holds no ear recogniser"),
        (["--input", tmp_path / "nowhere"], "nowhere: no such file or folder"),
        (["--input", ""], "--input: give a picture, a folder of ears, or a teacher file"),
        (["--out", tmp_path / "e.csv"], "unknown extension '.csv'"),
        (["--batch-size", 0], "--batch-size 0: must be at least 1"),
    ]
    for flags, message in cases:
        given = {"--recognizer": ear_recognizer, "--input": ears, "--out": tmp_path / "e.npz", flags[0]: flags[1]}
        assert main([str(part) for pair in given.items() for part in pair]) == 2, flags
        assert message in only_line(capsys)
    assert not (tmp_path / "e.npz").exists()


def test_a_damaged_index_of_sides_is_one_line(
    ear_recognizer: Path, prepared: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(prepared / "ears", tmp_path / "ears")
    (tmp_path / "ears" / "index.csv").write_text("file,subject\na.png,a\n")
    assert embed(ear_recognizer, tmp_path / "e.npz", tmp_path / "ears") == 2
    assert "index.csv: damaged; prepare the ears again" in only_line(capsys)
    (tmp_path / "ears" / "index.csv").unlink()
    assert set(embedded(ear_recognizer, tmp_path / "e.npz", tmp_path / "ears").sides) == {""}


# The reader


def test_the_reader_gives_the_picture_and_its_side(ear_recognizer: Path, crops: Path, prepared: Path) -> None:
    reader = EarReader(EarRecognizer.load(ear_recognizer).config)
    index = {path.name: path for path in list_images(prepared / "ears")}
    sides = dict(_index(prepared))
    for source in sources_of(str(crops), data_root=None, crop_to_bbox=False, folder_subjects=True):
        picture, side = reader.read(source)
        name = Path(source.name).name
        assert np.array_equal(picture, read_image(index[name]))
        assert np.array_equal(picture, reader(source))
        assert side == sides[name]


def _index(prepared: Path) -> list[tuple[str, str]]:
    with (prepared / "ears" / "index.csv").open() as stream:
        return [(Path(row["file"]).name, row["side"]) for row in csv.DictReader(stream)]
