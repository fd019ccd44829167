"""Faces without identity beside a prepared set: what gets in, and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, lists_of_warnings, warnings_given
from earface.data.data_digest import DataDigest, face_pictures
from earface.data.extra_faces import extra_faces, extra_pictures
from earface.data.face_rows import read_faces
from earface.synthetic.face_set import FaceSet, write_face_set


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight faces in folders of folders."""
    folder = tmp_path_factory.mktemp("strangers")
    write_face_set(folder / "deep" / "er", FaceSet(4, 2, 128, seed=77))
    return folder


def recompressed(face: Image.Image, path: Path) -> None:
    face.save(path.with_suffix(".jpg"), quality=60)


def brighter(face: Image.Image, path: Path) -> None:
    ImageEnhance.Brightness(face).enhance(1.25).save(path)


def shifted(face: Image.Image, path: Path) -> None:
    pixels = np.pad(np.asarray(face), ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]
    Image.fromarray(pixels).save(path)


def mirrored(face: Image.Image, path: Path) -> None:
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def unchanged(face: Image.Image, path: Path) -> None:
    face.save(path)


def test_no_copy_of_a_face_that_is_validated_or_tested_on_gets_in_and_all_others_do(
    face_set: Path, strangers: Path, tmp_path: Path
) -> None:
    roles: dict[str, set[str]] = {}
    for row in (held_out := read_faces(face_set, ("val", "test"))):
        roles.setdefault(row.role, set()).add(row.identity)
    assert roles.keys() == {"tune", "score", "nonmated"}
    (tmp_path / "copies").mkdir()
    for change in (unchanged, recompressed, brighter, shifted, mirrored):
        for row in held_out:
            change(Image.open(row.path).convert("RGB"), tmp_path / "copies" / f"{change.__name__}-{row.path.stem}.png")
    others = sorted(path for path in strangers.rglob("*.png"))
    trained = read_faces(face_set, ("train",))
    (tmp_path / "own").mkdir()
    for row in trained:  # the run trains on them anyway
        unchanged(Image.open(row.path), tmp_path / "own" / row.path.name)
    folders = [str(strangers), str(tmp_path / "copies"), str(tmp_path / "own")]
    with collecting_warnings():
        rows = extra_faces(folders, face_set)
        (line,) = warnings_given()
        (listed,) = lists_of_warnings().values()
    kept = {row.path for row in rows}
    assert kept == {*others, *(tmp_path / "own" / row.path.name for row in trained)}
    assert f"{5 * len(held_out)} of {len(kept) + 5 * len(held_out)} faces are near duplicates of faces that" in line
    assert len(listed) == 5 * len(held_out)
    assert all(row.identity == "" and row.vlr_path is None for row in rows)


def test_a_folder_below_another_counts_once(face_set: Path, strangers: Path) -> None:
    once = extra_faces([str(strangers)], face_set)
    twice = extra_faces([str(strangers), str(strangers / "deep"), str(strangers)], face_set)
    assert [row.path for row in once] == [row.path for row in twice]
    assert len(once) == 8
    assert extra_faces([], face_set) == []


def test_pictures_that_are_none_and_of_another_size_are_as_in_a_prepared_set(
    face_set: Path, strangers: Path, tmp_path: Path
) -> None:
    for copy in range(3):
        for number, path in enumerate(sorted(strangers.rglob("*.png"))):
            Image.open(path).save(tmp_path / f"{copy}-{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with collecting_warnings():
        assert len(extra_faces([str(tmp_path)], face_set)) == 24
        (line,) = warnings_given()
    assert "1 faces cannot be read and are left out" in line
    Image.new("RGB", (112, 112)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png: 112x112, expected 128x128: `extra_hr` takes aligned faces"):
        extra_faces([str(tmp_path)], face_set)


def test_an_empty_folder_is_one_line(face_set: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^`extra_hr` .*: holds no pictures"):
        extra_faces([str(tmp_path)], face_set)


def test_the_digest_refuses_other_extra_faces_and_still_knows_people(face_set: Path, strangers: Path) -> None:
    rows = extra_faces([str(strangers)], face_set)
    pictures = extra_pictures(rows)
    people = read_faces(face_set, ("train",))
    digest = DataDigest.of(face_pictures(people), [], pictures)
    assert digest.of_people
    assert len(digest.extra) == len(rows)
    again = DataDigest.of(face_pictures(people), [], reversed(pictures))
    assert again.continues(DataDigest.read(digest.stored()), None).extra == digest.extra
    changed = [*pictures[:-1], pictures[-1]._replace(content="other")]
    for other in (pictures[1:], [], changed):
        now = DataDigest.of(face_pictures(people), [], other)
        with pytest.raises(InputError, match=rf"`extra_hr` .*\(8 then, {len(other)} now, "):
            now.continues(DataDigest.read(digest.stored()), None)
    before = DataDigest.of(face_pictures(people), [])
    assert "extra" not in before.stored()
    assert DataDigest.read(before.stored()).extra == {}
