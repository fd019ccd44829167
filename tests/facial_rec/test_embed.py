"""The table of embeddings: against one face at a time, what may be compared, what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from earface.core.errors import InputError
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings, write_embeddings
from earface.data.images import read_image
from earface.nn.edgeface_weights import VARIANTS
from earface.nn.embedding import pictures_of
from earface.nn.inference import weights_digest
from facial_rec.contract import FaceContract
from facial_rec.embed import main
from facial_rec.embedding import INFERENCE_BATCH, embed_faces, embed_pictures
from facial_rec.model import EdgeFace
from tests.conftest import only_line
from tests.support.edgeface import INT8_VARIANTS, AuthorsWrapper, random_int8_edgeface
from tests.support.shared_files import LFW, needs, official_edgeface

pytestmark = pytest.mark.runs

SIDES = (128, 112, 160)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 smooth pictures of three sizes in the folders of 6 people."""
    folder = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    for person in range(6):
        (folder / f"person_{person}").mkdir()
        for number, side in enumerate(SIDES):
            small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"person_{person}" / f"{number}.png")
    return folder


def run(weights: Path, given: Path, out: Path, *extra: str) -> int:
    return main(["--input", str(given), "--recognizer", str(weights), "--out", str(out), "--device", "cpu", *extra])


@pytest.mark.parametrize("crop", ["arcface", "center"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_table_holds_what_one_face_at_a_time_gives(
    edgeface: Path, people: Path, tmp_path: Path, crop: str, flip: bool
) -> None:
    out = tmp_path / "e.npz"
    assert run(edgeface, people, out, "--crop", crop, *(["--flip"] if flip else [])) == 0
    model = EdgeFace.from_weights(edgeface)
    contract = FaceContract(crop)  # type: ignore[arg-type]
    table = read_embeddings(out, contract=contract.id, digest=weights_digest(model))
    wanted = sorted(people.rglob("*.png"))
    assert table.paths == [str(path) for path in wanted]
    assert table.identities == [path.parent.name for path in wanted]
    assert table.metadata["flip"] is flip
    for path, row in zip(wanted, table.embeddings, strict=True):
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            embedding = model(contract(pixels))[0]
            direction = embedding / embedding.norm()
            if flip:
                mirrored = model(contract(pixels).flip(3))[0]
                direction = direction + mirrored / mirrored.norm()
                direction = direction / direction.norm()
        np.testing.assert_allclose(row, direction.numpy(), rtol=0, atol=2e-6)
    assert np.std(table.embeddings, axis=0).max() > 1e-3


def test_the_numbers_depend_on_the_face_alone(edgeface: Path, people: Path) -> None:
    """Bit for bit: not on batch size, threads, order, or what else is there."""
    model, contract, faces = EdgeFace.from_weights(edgeface), FaceContract(), pictures_of(str(people))
    assert len(faces) > INFERENCE_BATCH
    wanted = embed_pictures(model, faces, contract).embeddings
    for batch_size, workers in ((7, 1), (INFERENCE_BATCH + 1, 3)):
        found = embed_pictures(model, faces, contract, batch_size=batch_size, workers=workers)
        assert np.array_equal(found.embeddings, wanted)
    assert np.array_equal(embed_pictures(model, faces[::-1], contract).embeddings[::-1], wanted)
    assert np.array_equal(embed_pictures(model, faces[4:5], contract).embeddings, wanted[4:5])


def test_with_flip_a_mirror_image_is_the_same_face(edgeface: Path, people: Path, tmp_path: Path) -> None:
    for index, path in enumerate(sorted(people.rglob("0.png"))):
        picture = Image.open(path)
        picture.save(tmp_path / f"{index}_a.png")
        ImageOps.mirror(picture).save(tmp_path / f"{index}_b.png")
    model, faces = EdgeFace.from_weights(edgeface), pictures_of(str(tmp_path))
    flipped = embed_pictures(model, faces, FaceContract(), flip=True).embeddings
    plain = embed_pictures(model, faces, FaceContract()).embeddings
    np.testing.assert_allclose(flipped[::2], flipped[1::2], rtol=0, atol=1e-6)
    assert np.abs(plain[::2] - plain[1::2]).max() > 1e-3


def test_no_faces_give_no_embeddings(edgeface: Path) -> None:
    assert embed_faces(EdgeFace.from_weights(edgeface), torch.zeros(0, 3, 112, 112), FaceContract()).shape == (0, 512)


def test_identities_are_the_first_folders(people: Path, tmp_path: Path) -> None:
    deep = tmp_path / "Ada" / "2024"
    deep.mkdir(parents=True)
    for place in (deep / "x.png", tmp_path / "y.png"):
        Image.new("RGB", (112, 112)).save(place)
    assert {face.path.name: face.identity for face in pictures_of(str(tmp_path))} == {"x.png": "Ada", "y.png": ""}
    assert [face.identity for face in pictures_of(str(tmp_path / "y.png"))] == [""]


def test_unreadable_and_unaligned_pictures_are_left_out_and_listed(
    edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "faces"
    for index in range(45):
        (faces / f"p{index}").mkdir(parents=True)
        Image.new("RGB", (112, 112), (index, 0, 0)).save(faces / f"p{index}" / "a.png")
    (faces / "p3" / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (128, 100)).save(faces / "p4" / "wide.png")
    assert run(edgeface, faces, tmp_path / "e.npz") == 0
    said = capsys.readouterr().out
    assert "2 of 47 pictures cannot be used and are left out:" in said
    assert "wide.png: 128x100 is not square" in said
    table = read_embeddings(tmp_path / "e.npz")
    assert len(table) == 45
    assert [Path(path).name for path, _ in table.metadata["skipped"]] == ["broken.jpg", "wide.png"]
    Image.new("RGB", (128, 100)).save(faces / "p5" / "wide.png")
    assert run(edgeface, faces, tmp_path / "more.npz") == 2
    assert "3 or more of 48 pictures cannot be used, over 5%" in only_line(capsys)
    assert not (tmp_path / "more.npz").exists()


def test_what_looks_like_photographs_is_embedded_with_a_warning(
    edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faces").mkdir()
    for name, side in (("small", 16), ("usual", 192), ("lfw", 250)):
        Image.new("RGB", (side, side)).save(tmp_path / "faces" / f"{name}.png")
    assert run(edgeface, tmp_path / "faces", tmp_path / "e.npz") == 0
    said = capsys.readouterr().err
    assert "1 of 3 pictures are larger than aligned faces usually are" in said
    assert "lfw.png, 250x250): if they are photographs, align them first (earface faces prepare)" in said
    (warning,) = read_embeddings(tmp_path / "e.npz").metadata["warnings"]
    assert "250x250" in warning


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--input", "NOWHERE"], "NOWHERE: no such file or folder"),
        (["--input", ""], "--input: give a picture or a folder"),
        (["--input", "WEIGHTS"], "neither a picture"),
        (["--recognizer", "none"], "--recognizer none: random weights recognise nobody"),
        (["--recognizer", "nowhere.pt"], "nowhere.pt: neither a file nor one of edgeface_xxs"),
        (["--variant", "edgeface_base"], "holds edgeface_xxs, not edgeface_base"),
        (["--variant", "tiny"], "--variant tiny: choose one of edgeface_xxs"),
        (["--out", "table.csv"], "table.csv: unknown extension '.csv'; use .npz"),
        (["--crop", "middle"], "--crop middle: choose one of arcface, center"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
        (["--frobnicate", "1"], "frobnicate"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    edgeface: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    options = {"--input": str(people), "--recognizer": str(edgeface), "--out": str(tmp_path / "e.npz")}
    options[extra[0]] = str(edgeface) if extra[1] == "WEIGHTS" else extra[1]
    assert main([part for pair in options.items() for part in pair]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "e.npz").exists()


def test_a_folder_without_pictures_is_one_line(
    edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(edgeface, tmp_path, tmp_path / "e.npz") == 2
    assert "holds no pictures" in only_line(capsys)


# The table


def table_of(count: int = 3) -> IdentityEmbeddings:
    rows = np.random.default_rng(0).normal(size=(count, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"ñ/{index}.png" for index in range(count)]
    return IdentityEmbeddings(
        rows, names, ["ñ"] * count, FaceContract().id, "0" * 64, {"weights": "a.pt", "skipped": []}
    )


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = table_of()
    for name in ("a.npz", "b.npz"):
        write_embeddings(tmp_path / name, table)
    found = read_embeddings(tmp_path / "a.npz", contract=table.contract, digest=table.digest)
    assert np.array_equal(found.embeddings, table.embeddings)
    assert (found.paths, found.identities, found.metadata) == (table.paths, table.identities, table.metadata)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as plain:  # without this project, and without pickle
        assert json.loads(str(plain["metadata"])) == table.metadata
        assert str(plain["contract"]) == table.contract


def test_a_table_of_another_contract_or_of_other_weights_is_refused(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.npz", table_of())
    with pytest.raises(InputError, match=r"a\.npz: made under the contract .*arcface.*, not .*center.*: embed its"):
        read_embeddings(tmp_path / "a.npz", contract=FaceContract("center").id)
    with pytest.raises(InputError, match=r"a\.npz: made by other weights \(a\.pt\) than those given"):
        read_embeddings(tmp_path / "a.npz", digest="1" * 64)


@pytest.mark.parametrize("fault", ["nan", "length", "double", "rows", "names", "none"])
def test_a_wrong_table_is_neither_written_nor_read(tmp_path: Path, fault: str) -> None:
    table = table_of()
    values: dict[str, object] = dict(vars(table))
    match fault:
        case "nan":
            values["embeddings"] = np.full_like(table.embeddings, np.nan)
        case "length":
            values["embeddings"] = table.embeddings * 1.01
        case "double":
            values["embeddings"] = table.embeddings.astype(np.float64)
        case "rows":
            values["paths"] = table.paths[:-1]
        case "names":
            values["identities"] = [1, 2, 3]
        case "none":
            values |= {"embeddings": table.embeddings[:0], "paths": [], "identities": []}
    with pytest.raises(InputError, match=r"w\.npz: not written: "):
        write_embeddings(tmp_path / "w.npz", IdentityEmbeddings(**values))  # type: ignore[arg-type]
    assert not (tmp_path / "w.npz").exists()
    with (tmp_path / "r.npz").open("wb") as stream:
        np.savez(stream, **{**values, "metadata": json.dumps(table.metadata)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"r\.npz: "):
        read_embeddings(tmp_path / "r.npz")


@pytest.mark.parametrize("fault", ["missing", "text", "truncated", "pickle", "member", "metadata"])
def test_damaged_tables_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "a.npz"
    write_embeddings(path, table_of())
    match fault:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("no archive")
        case "truncated":
            path.write_bytes(path.read_bytes()[:500])
        case "pickle" | "member" | "metadata":
            with np.load(path) as plain:
                members = dict(plain)
            if fault == "pickle":
                members["paths"] = np.array(members["paths"].tolist(), dtype=object)
            elif fault == "member":
                del members["digest"]
            else:
                members["metadata"] = np.array("[]")
            np.savez(path, **members)
    with pytest.raises(
        InputError, match=r"a\.npz: (no such|damaged, or not written by|holds .* no digest|metadata is no)"
    ):
        read_embeddings(path)


# int8 weights: random ones beside the authors' network, the authors' own on real faces


@pytest.mark.parametrize("variant", INT8_VARIANTS)
@pytest.mark.filterwarnings("ignore")
def test_int8_weights_embed_a_picture_as_the_authors_network_does(variant: str, people: Path, tmp_path: Path) -> None:
    """A wrong channel order, range, crop or layer gives another direction."""
    path = random_int8_edgeface(tmp_path / "q.pt", variant)
    theirs = AuthorsWrapper(VARIANTS[variant].network, None).eval()
    state = {}
    for key, value in torch.load(path, weights_only=True).items():
        layer = key.removesuffix("._packed_params._packed_params")
        if layer != key:
            whole = value[0].int_repr().float()
            state |= {
                f"{layer}.weight": (whole - value[0].q_zero_point()) * value[0].q_scale(),
                f"{layer}.bias": value[1],
            }
        elif key in theirs.state_dict():
            state[key] = value
    theirs.load_state_dict(state)
    pictures = sorted(people.rglob("1.png"))  # of 112x112, which `center` takes as they are
    crops = torch.from_numpy(np.stack([np.asarray(Image.open(picture)) for picture in pictures]))
    with torch.no_grad():
        wanted = theirs(crops.permute(0, 3, 1, 2).float() / 255 * 2 - 1)
    wanted /= wanted.norm(dim=1, keepdim=True)
    assert wanted.std(0).max() > 0.01
    faces = [face for picture in pictures for face in pictures_of(str(picture))]
    found = embed_pictures(EdgeFace.from_weights(path), faces, FaceContract("center")).embeddings
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("variant", INT8_VARIANTS)
@needs(LFW, *map(official_edgeface, INT8_VARIANTS))
def test_the_official_weights_tell_people_apart(variant: str) -> None:
    """40 people, one gallery picture and one probe each. The gallery of all 871 gives 97.8 and 98.4 %; a smaller one is
    easier, while a wrong channel order, range, crop or layer loses many."""
    folders = [folder for folder in sorted(LFW.iterdir()) if len(list(folder.iterdir())) >= 2][:40]
    pictures = [face for folder in folders for face in pictures_of(str(folder))[:2]]
    found = embed_pictures(
        EdgeFace.from_weights(official_edgeface(variant)), pictures, FaceContract("arcface")
    ).embeddings
    nearest = (found[1::2] @ found[::2].T).argmax(axis=1)
    assert (nearest == np.arange(len(folders))).mean() >= 0.95
