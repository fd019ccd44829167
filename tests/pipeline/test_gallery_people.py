"""Who is in a gallery, and taking people out of it: nothing of them stays."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from earface.commands import main
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings, write_embeddings
from pipeline import Gallery
from tests.conftest import only_line

NAMES = ["zuzu", "bob", "zuzu", "Jos\u00e9"]


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Four ears of three people."""
    values = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    paths = [f"/people/{name}/{row}.png" for row, name in enumerate(NAMES)]
    skipped = [["/people/zuzu/dark.png", "no ear"], ["/people/bob/x.png", "no ear"]]
    metadata = {"weights": "w.pt", "warnings": ["1 person has no picture left (zuzu)", "other"], "skipped": skipped}
    table = IdentityEmbeddings(values, paths, NAMES, "stretch:0", "d", metadata, ["l", "r", "", "r"])
    write_embeddings(tmp_path / "g.npz", table)
    return tmp_path / "g.npz"


def test_everybody_is_shown(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", "show", "--gallery", str(gallery)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["zuzu", "2", "1", "0"] in shown
    assert ["Jos\u00e9", "1", "0", "1"] in shown
    assert shown[-1][:5] == ["3", "people", "by", "4", "pictures,"]


def test_nothing_of_a_person_stays_and_the_others_do(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_embeddings(gallery)
    assert main(["gallery", "remove", "--gallery", str(gallery), "--name", "zuzu", "Jose\u0301"]) == 0
    left = read_embeddings(gallery)
    assert (left.identities, left.paths, left.sides) == (["bob"], ["/people/bob/1.png"], ["r"])
    np.testing.assert_array_equal(left.embeddings, before.embeddings[1:2])
    assert left.metadata == {"weights": "w.pt", "warnings": ["other"], "skipped": [["/people/bob/x.png", "no ear"]]}
    for trace in (b"zuzu", "Jos\u00e9".encode("utf-32-le"), "zuzu".encode("utf-32-le")):
        assert trace not in gallery.read_bytes()
    shown = capsys.readouterr().out
    assert "3 pictures of zuzu" in shown
    assert "/people/zuzu" in shown


def test_the_last_person_takes_the_file_along(gallery: Path) -> None:
    assert main(["gallery", "remove", "--gallery", str(gallery), "--name", "zuzu", "bob", "Jos\u00e9"]) == 0
    assert not gallery.exists()


def test_nobody_and_somebody_unknown_are_one_line(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = gallery.read_bytes()
    for names, expected in (([], "who is to be removed?"), (["--name", "zuzu", "eve"], "'eve' is not in it")):
        assert main(["gallery", "remove", "--gallery", str(gallery), *names]) == 2
        assert expected in only_line(capsys)
    assert gallery.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_table_of_ears_of_nobody_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "e.npz", mu=np.zeros((2, 3)), files=["a", "b"])
    assert main(["gallery", "show", "--gallery", str(tmp_path / "e.npz")]) == 2
    assert "e.npz: holds mu, files, and no embeddings: a gallery or a table" in only_line(capsys)


def test_a_gallery_in_a_console_is_a_line(gallery: Path) -> None:
    found = Gallery.load(gallery)
    assert repr(found) == "Gallery(3 people by 4 embeddings of ears, recogniser w.pt)"


def test_a_gallery_is_for_its_owner_alone(gallery: Path) -> None:
    assert stat.S_IMODE(gallery.stat().st_mode) == 0o600
    main(["gallery", "remove", "--gallery", str(gallery), "--name", "bob"])
    assert stat.S_IMODE(gallery.stat().st_mode) == 0o600
