"""Templates of enrolled pictures, and exact searches among them, beside loops over NumPy vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings, write_embeddings
from facial_rec.contract import FaceContract
from facial_rec.embed import main as embed
from facial_rec.recognizer import load_recognizer
from pipeline.gallery import Gallery
from pipeline.search import top_candidates
from tests.support.edgeface import random_edgeface

OWNERS = ["bo", "al", "bo", "cy", "al", "bo"]  # in no order, with three, two and one pictures


def unit_rows(count: int, dimensions: int = 512, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def table_of(owners: list[str], rows: NDArray[np.float32] | None = None) -> IdentityEmbeddings:
    rows = unit_rows(len(owners)) if rows is None else rows
    paths = [f"{owner}/{number}.png" for number, owner in enumerate(owners)]
    return IdentityEmbeddings(rows, paths, owners, FaceContract().id, "0" * 64, {"weights": "a.pt", "crop": "arcface"})


def test_a_template_is_the_mean_of_its_unit_rows_brought_to_length_1() -> None:
    table = table_of(OWNERS)
    gallery = Gallery.of(table)
    for name, template in zip(gallery.identities, gallery.templates, strict=True):
        own = [row.astype(np.float64) for row, owner in zip(table.embeddings, OWNERS, strict=True) if owner == name]
        mean = sum(own) / len(own)
        np.testing.assert_allclose(template.numpy(), mean / np.linalg.norm(mean), rtol=0, atol=1e-7)
    assert gallery.templates.dtype == torch.float32


def test_templates_come_in_the_order_of_first_pictures() -> None:
    gallery = Gallery.of(table_of(OWNERS))
    assert gallery.identities == ["bo", "al", "cy"]
    assert gallery.pictures == [["bo/0.png", "bo/2.png", "bo/5.png"], ["al/1.png", "al/4.png"], ["cy/3.png"]]
    assert len(gallery) == 3


def test_a_gallery_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    table = table_of(OWNERS)
    write_embeddings(tmp_path / "g.npz", table)
    found, wanted = Gallery.load(tmp_path / "g.npz"), Gallery.of(table)
    assert torch.equal(found.templates, wanted.templates)
    without = {field.name for field in dataclasses.fields(Gallery)} - {"templates"}
    assert {name: getattr(found, name) for name in without} == {name: getattr(wanted, name) for name in without}


def test_a_table_of_embeddings_is_a_gallery(edgeface: Path, face_set: Path, tmp_path: Path) -> None:
    """What facial_rec.embed writes, of a folder for each person."""
    for number, path in enumerate(sorted((face_set / "test_processed" / "hr_images").iterdir())[:4]):
        own = tmp_path / "faces" / f"p{number // 2}"
        own.mkdir(parents=True, exist_ok=True)
        (own / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "g.npz"
    given = ["--input", str(tmp_path / "faces"), "--recognizer", str(edgeface), "--out", str(out), "--device", "cpu"]
    assert embed(given) == 0
    gallery, table = Gallery.load(out), read_embeddings(out)
    assert gallery.identities == ["p0", "p1"]
    assert [len(own) for own in gallery.pictures] == [2, 2]
    np.testing.assert_allclose(gallery.templates[1], unit_mean(table.embeddings[2:]), rtol=0, atol=1e-7)
    gallery.check_key(load_recognizer(str(edgeface), "arcface").key, out)


def unit_mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    mean = rows.astype(np.float64).mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_another_contract_or_other_weights_are_refused(edgeface: Path, tmp_path: Path) -> None:
    own = load_recognizer(str(edgeface), "arcface")
    gallery = Gallery.of(dataclasses.replace(table_of(OWNERS), contract=own.contract.id, digest=own.digest))
    gallery.check_key(own.key, Path("g.npz"))
    with pytest.raises(InputError, match=r"g\.npz: was enrolled under another contract .*-arcface-.*-center-"):
        gallery.check_key(load_recognizer(str(edgeface), "center").key, Path("g.npz"))
    other = load_recognizer(str(random_edgeface(tmp_path / "other.pt", 1)), "arcface")
    with pytest.raises(
        InputError, match=rf"g\.npz: was enrolled with other weights \({own.digest[:48]}\).*{other.digest[:48]}"
    ):
        gallery.check_key(other.key, Path("g.npz"))


def test_nameless_pictures_are_no_gallery(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "g.npz", table_of(["al", "", "bo", ""]))
    with pytest.raises(InputError, match=r"g\.npz: 2 of 4 pictures have no identity \(/1\.png\)"):
        Gallery.load(tmp_path / "g.npz")


def test_pictures_that_point_in_opposite_directions_have_no_template(tmp_path: Path) -> None:
    rows = unit_rows(3)
    rows[2] = -rows[1]
    write_embeddings(tmp_path / "g.npz", table_of(["al", "bo", "bo"], rows))
    with pytest.raises(InputError, match=r"g\.npz: the 2 pictures of bo have no mean direction: are they of one"):
        Gallery.load(tmp_path / "g.npz")
    assert len(Gallery.of(table_of(["al", "bo", "cy"], rows))) == 3


# Searching


@pytest.fixture(scope="module")
def crowd() -> Gallery:
    """200 people with two pictures each, in 32 dimensions."""
    return Gallery.of(table_of([f"p{number % 200:03d}" for number in range(400)], unit_rows(400, 32)))


@pytest.mark.parametrize("count", [1, 7, 500])
def test_a_search_is_a_sorted_loop(crowd: Gallery, count: int) -> None:
    probes = unit_rows(9, 32, seed=1)
    found = crowd.search(torch.from_numpy(probes), count)
    for probe, candidates in zip(probes, found, strict=True):
        scores = {
            name: float(probe @ template.numpy())
            for name, template in zip(crowd.identities, crowd.templates, strict=True)
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:count]
        assert [candidate.identity for candidate in candidates] == best
        assert len(candidates) == min(count, 200)
        np.testing.assert_allclose(
            [candidate.score for candidate in candidates], [scores[name] for name in best], atol=1e-6
        )
        for candidate in candidates:
            assert candidate.picture == crowd.pictures[crowd.identities.index(candidate.identity)][0]


def test_faiss_finds_the_same(crowd: Gallery) -> None:
    pytest.importorskip("faiss")
    probes = torch.from_numpy(unit_rows(50, 32, seed=2))
    for own, other in zip(crowd.search(probes, 10), crowd.search(probes, 10, "faiss"), strict=True):
        assert [candidate.identity for candidate in own] == [candidate.identity for candidate in other]
        np.testing.assert_allclose([each.score for each in own], [each.score for each in other], atol=1e-6)


def test_of_equal_scores_who_was_enrolled_first_comes_first() -> None:
    """Scores of .5, -.5 and 0, each by many people."""
    kinds = np.array([[0.5, 0.5, 0.5, 0.5], [-0.5, 0.5, 0.5, 0.5], [0.0, 0.6, 0.8, 0.0]])
    of = np.random.default_rng(3).integers(0, len(kinds), 300)
    probe = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    table = table_of([f"p{number:03d}" for number in range(300)], kinds[of].astype(np.float32))
    (found,) = Gallery.of(table).search(probe, 300)
    score = {0: 0.5, 1: -0.5, 2: 0.0}
    wanted = sorted(range(300), key=lambda number: (-score[int(of[number])], number))
    assert [candidate.identity for candidate in found] == [f"p{number:03d}" for number in wanted]


@pytest.mark.parametrize("scores", [1, 999, 2**23])
def test_chunks_change_nothing(crowd: Gallery, scores: int) -> None:
    probes = torch.from_numpy(unit_rows(40, 32, seed=4))
    found = top_candidates(probes, crowd.templates, 5, scores=scores)
    everything = (probes.double() @ crowd.templates.double().T).sort(dim=1, descending=True)
    assert torch.equal(found[1], everything.indices[:, :5])
    torch.testing.assert_close(found[0].double(), everything.values[:, :5], rtol=0, atol=1e-6)
