"""Which pictures a folder holds: what people's disks, clouds and tools put beside them does no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, warnings_given
from earface.data.folders import DataRoot, list_images, pictures_at, scan_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in scan_images(folder).paths]


def test_listing_is_sorted_recursive_and_without_hidden_names(tmp_path: Path) -> None:
    names = ("b/2.png", "b/10.JPG", "a.webp", "b-c/1.tiff", "c/notes.txt", ".hidden/1.png", "._a.png", "a/1.jpeg")
    assert listed(touch(tmp_path, *names)) == ["a/1.jpeg", "a.webp", "b/10.JPG", "b/2.png", "b-c/1.tiff"]


@pytest.mark.parametrize("system", ["@eaDir", "__MACOSX", ".thumbnails", "#recycle", "$RECYCLE.BIN", "@Recycle"])
def test_folders_of_the_system_are_none_of_the_user_s(tmp_path: Path, system: str) -> None:
    touch(tmp_path, "ada/1.png", f"{system}/1.png", f"ada/{system}/1.png/SYNOPHOTO_THUMB_M.jpg")
    assert listed(tmp_path) == ["ada/1.png"]


def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "annex/0a1b", "bob/1.png", "bob/2.png")
    folder = touch(tmp_path / "set", "ada/1.png")
    (folder / "ada" / "2.png").symlink_to(store / "annex" / "0a1b")
    (folder / "bob").symlink_to(store / "bob")
    assert listed(folder) == ["ada/1.png", "ada/2.png", "bob/1.png", "bob/2.png"]


def test_links_to_a_hidden_store_inside_the_folder_are_followed(tmp_path: Path) -> None:
    folder = touch(tmp_path, ".git/annex/objects/1", "blobs/0a1b")
    (folder / "ada").mkdir()
    (folder / "ada" / "1.png").symlink_to(folder / ".git" / "annex" / "objects" / "1")
    (folder / "ada" / "2.png").symlink_to(Path("..") / "blobs" / "0a1b")
    assert listed(folder) == ["ada/1.png", "ada/2.png"]


def test_no_picture_is_listed_twice_whatever_the_links(tmp_path: Path) -> None:
    folder = touch(tmp_path / "set", "all/1.png", "all/2.png")
    (folder / "all" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "all")
    (folder / "1.png").symlink_to(folder / "all" / "1.png")
    for name in ("gone.png", "gone"):
        (folder / name).symlink_to(folder / "nothing")
    found = scan_images(folder)
    assert listed(folder) == ["all/1.png", "all/2.png"]
    assert [name for name, _ in found.names_left_out()] == ["1.png", "again", "all/loop", "gone", "gone.png"]


def test_what_looks_like_a_picture_and_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "ada/1.png", "ada/a.CR2", "bob/b.psd", "notes.txt", "table.csv", "model.ckpt", "unknown")
    Image.new("RGB", (8, 8)).save(tmp_path / "subject01.happy", "GIF")
    with collecting_warnings():
        assert len(list_images(tmp_path)) == 1
        (warning,) = warnings_given()
    assert "3 left out" in warning
    for name in ("ada/a.CR2", "bob/b.psd", "subject01.happy", "rename it", ".psd, which is not read"):
        assert name in warning
    with pytest.raises(InputError, match=r"holds no pictures .*1 left out: 1 \.psd"):
        list_images(tmp_path / "bob")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "ada/1.png", "bob/1.png")
    (tmp_path / "bob").chmod(0)
    try:
        assert [name for name, _ in scan_images(tmp_path).names_left_out()] == ["bob"]
    finally:
        (tmp_path / "bob").chmod(0o700)


def test_no_folder_no_picture_and_no_pictures_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "empty/notes.txt", "1.png")
    for path, problem in (("nothing", "no such"), ("notes.txt", "neither a picture"), ("empty", "holds no pictures")):
        with pytest.raises(InputError, match=problem):
            pictures_at(tmp_path / path)
    assert pictures_at(tmp_path / "1.png") == pictures_at(tmp_path) == [tmp_path / "1.png"]


def test_relative_paths_may_not_leave_the_root_but_links_may(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    inside = DataRoot(root)
    for name in ("a.png", "sub/../a.png", "sub/b.png", "..a.png", "link/a.png", "link/../a.png", "sub\\..\\a.png"):
        resolved = inside.resolve(name)
        assert resolved == Path(os.path.normpath(root / name.replace("\\", "/")))
        assert resolved.is_relative_to(root)
    for name in ("../a.png", "sub/../../a.png", "..", "link/../../a.png", "sub\\..\\..\\a.png", "../root2/a.png"):
        with pytest.raises(InputError, match="leaves"):
            inside.resolve(name)
    for name in ("", "a\0.png"):
        with pytest.raises(InputError, match="not a path"):
            inside.resolve(name)


@given(st.lists(st.sampled_from(["..", ".", "a", "b b", "..c"]), max_size=8).map("/".join))
def test_whatever_is_written_stays_inside_or_is_refused(written: str) -> None:
    root = DataRoot(Path.cwd())
    try:
        resolved = root.resolve(written)
    except InputError:
        assert written == "" or os.path.normpath(written).startswith("..")
    else:
        assert Path(os.path.normpath(resolved)).is_relative_to(root.folder)
        assert root.resolve(root.written(resolved)) == resolved
