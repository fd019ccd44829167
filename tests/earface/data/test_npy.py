"""The NPY and NPZ files: both forms, paths, refusals, and pickles that try to run something."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest

from earface.core.errors import InputError, entry_point
from earface.core.files import ABANDONED_AFTER_S, atomic_write, remove_abandoned
from earface.data.npy import MAX_NPZ_BYTES, read_teacher_npy, write_teacher_npy
from earface.data.restricted_pickle import RestrictedUnpickler
from tests.support.disk import files_of_at_most

LABELS: dict[str, Any] = {
    "image_paths": ["a.png", "sub/b.png", "c.png"],
    "bboxes": [[1, 2, 30, 40], [0, 0, 5, 5], [7, 8, 9, 10.5]],
    "subjects": ["x", "y", "x"],
    "landmarks": np.arange(12.0).reshape(3, 2, 2),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def save_dict(path: Path, content: object) -> Path:
    np.save(path, np.array(content, dtype=object))
    return path


def save_pickle(path: Path, pickled: bytes) -> Path:
    """An NPY with an object array whose pickle is `pickled`."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(buffer.getvalue() + pickled)
    return path


def with_changes(**changes: object) -> dict[str, Any]:
    return {**LABELS, **changes}


@pytest.mark.parametrize("extension", ["npy", "npz"])
@pytest.mark.parametrize("as_arrays", [False, True])
def test_the_labels_are_read_as_written(tmp_path: Path, extension: str, as_arrays: bool) -> None:
    content = {key: np.array(value) for key, value in LABELS.items()} if as_arrays else LABELS
    path = tmp_path / f"t.{extension}"
    save_dict(path, content) if extension == "npy" else np.savez_compressed(path, **content)
    data = read_teacher_npy(path)
    assert data.image_paths == [tmp_path / "a.png", tmp_path / "sub" / "b.png", tmp_path / "c.png"]
    assert data.subjects == ["x", "y", "x"]
    assert data.bboxes is not None
    assert data.landmarks is not None
    assert data.bboxes.dtype == data.landmarks.dtype == np.float32
    np.testing.assert_array_equal(data.bboxes, np.float32(LABELS["bboxes"]))
    np.testing.assert_array_equal(data.landmarks, LABELS["landmarks"])
    assert data.images is None
    assert len(data) == 3


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.npy"
    landmarks = np.full((2, 3, 2), np.nan)
    elsewhere = tmp_path / "elsewhere.png"
    write_teacher_npy(path, image_paths=["a.png", elsewhere], subjects=["1", "2"], landmarks=landmarks)
    data = read_teacher_npy(path)
    assert data.image_paths == [tmp_path / "new" / "a.png", elsewhere]
    assert data.bboxes is None
    assert data.subjects == ["1", "2"]
    assert data.landmarks is not None
    assert np.isnan(data.landmarks).all()
    assert np.load(path, allow_pickle=True).item()["image_paths"] == ["a.png", elsewhere.as_posix()]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old_names", [False, True])
def test_every_pickle_protocol_and_both_numpy_spellings_are_read(
    tmp_path: Path, protocol: int, old_names: bool
) -> None:
    content = {
        "image_paths": np.array([PurePosixPath("a/b.png"), "c.png"], dtype=object),
        "bboxes": np.asfortranarray(np.arange(8, dtype=">f8").reshape(2, 4)),
        "subjects": [np.str_("x"), np.int64(7)],
        "extra": {1, None, b"bytes", frozenset([2.5])},
    }
    pickled = pickle.dumps(np.array(content, dtype=object), protocol)
    if old_names and protocol < 4:
        pickled = pickled.replace(b"numpy._core.", b"numpy.core.")
    data = read_teacher_npy(save_pickle(tmp_path / "t.npy", pickled))
    assert data.image_paths == [tmp_path / "a" / "b.png", tmp_path / "c.png"]
    assert data.bboxes is not None
    np.testing.assert_array_equal(data.bboxes, np.arange(8).reshape(2, 4))
    assert data.subjects == ["x", "7"]


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("kind", ["PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"])
def test_path_objects_of_any_system_become_pure_paths(module: str, kind: str) -> None:
    opcodes = f"c{module}\n{kind}\n(Vsub\nVa.png\ntR."  # what those systems' pickles hold, in protocol 0
    path = RestrictedUnpickler(io.BytesIO(opcodes.encode())).load()
    assert type(path) is (PureWindowsPath if "Windows" in kind else PurePosixPath)
    assert path.parts == ("sub", "a.png")


def test_windows_paths_mean_the_same_files(tmp_path: Path) -> None:
    paths = ["images\\a.png", PureWindowsPath("images\\sub\\b.png"), "images/c\\d.png"]
    data = read_teacher_npy(save_dict(tmp_path / "t.npy", {"image_paths": paths}))
    images = tmp_path / "images"
    assert data.image_paths == [images / "a.png", images / "sub" / "b.png", images / "c" / "d.png"]


def test_absolute_paths_are_used_as_written(tmp_path: Path) -> None:
    paths = ["/elsewhere/a.png", PurePosixPath("/b/../c.png"), "C:\\data\\d.png"]
    data = read_teacher_npy(save_dict(tmp_path / "t.npy", {"image_paths": paths}))
    assert data.image_paths == [Path("/elsewhere/a.png"), Path("/b/../c.png"), Path("C:/data/d.png")]


def test_relative_paths_start_at_the_data_root_and_stay_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = save_dict(tmp_path / "t.npy", {"image_paths": ["a.png"]})
    assert read_teacher_npy(path, root).image_paths == [root / "a.png"]
    for escape in ("../a.png", "b/../../a.png", "..\\a.png", PureWindowsPath("..\\a.png")):
        path = save_dict(tmp_path / "t.npy", {"image_paths": ["ok.png", escape]})
        with pytest.raises(InputError, match=r"image_paths row 1: .* leaves"):
            read_teacher_npy(path, root)
    with pytest.raises(InputError, match="no such folder"):
        read_teacher_npy(path, tmp_path / "nothing")


def test_missing_pictures_are_not_looked_for(tmp_path: Path) -> None:
    assert len(read_teacher_npy(save_dict(tmp_path / "t.npy", LABELS))) == 3


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("channels_first", [False, True])
def test_a_uint8_array_of_either_layout_is_mapped(tmp_path: Path, channels_first: bool, fortran: bool) -> None:
    array = IMAGES.transpose(0, 3, 1, 2) if channels_first else IMAGES
    np.save(tmp_path / "t.npy", np.asfortranarray(array) if fortran else np.ascontiguousarray(array))
    images = read_teacher_npy(tmp_path / "t.npy").images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize("name", ["images", "arr_0"])
def test_an_npz_may_hold_images(tmp_path: Path, name: str) -> None:
    np.savez_compressed(tmp_path / "t.npz", **{name: IMAGES})
    np.testing.assert_array_equal(read_teacher_npy(tmp_path / "t.npz").images, IMAGES)


def test_images_may_have_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", images=IMAGES, subjects=["a", "b", "c", "d"])
    data = read_teacher_npy(tmp_path / "t.npz")
    assert data.subjects == ["a", "b", "c", "d"]
    assert data.image_paths is None
    assert len(data) == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (127.5, -1.0), (1.0, 0.0)])
def test_float_images_of_the_three_ranges(tmp_path: Path, dtype: type, scale: float, offset: float) -> None:
    np.save(tmp_path / "t.npy", (IMAGES / scale + offset).astype(dtype))
    images = read_teacher_npy(tmp_path / "t.npy").images
    assert images is not None
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize(
    ("low", "high"), [(-2.1, 2.6), (0.0, 1.5), (0.0, 4.0), (-1.0, 255.0), (0.0, 65535.0), (-3.0, 0.5)]
)
def test_a_float_range_that_could_be_anything_is_refused(tmp_path: Path, low: float, high: float) -> None:
    np.save(tmp_path / "t.npy", np.linspace(low, high, 300, dtype=np.float32).reshape(1, 10, 10, 3))
    with pytest.raises(InputError, match="float images from"):
        read_teacher_npy(tmp_path / "t.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_with_nan_are_refused(tmp_path: Path, value: float) -> None:
    images = np.zeros((600, 2, 2, 3), np.float32)
    images[599, 1, 1, 2] = value
    np.save(tmp_path / "t.npy", images)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        read_teacher_npy(tmp_path / "t.npy")


BAD_ARRAYS = {
    "zero rows": np.zeros((0, 8, 8, 3), np.uint8),
    "of shape": np.zeros((4, 8, 8, 3, 1), np.uint8),
    "no axis of 1 or 3": np.zeros((4, 8, 8, 5), np.uint8),
    "fourth channel is not read": np.zeros((4, 8, 8, 4), np.uint8),
    "either axis could be": np.zeros((4, 3, 8, 3), np.uint8),
    "of whole numbers or floats": np.zeros((4, 8, 8, 3), np.bool_),
    "from 0 to 4095: expected 0 to 255": np.full((4, 8, 8, 3), [0, 9, 4095], np.uint16),
    "from -1 to -1": np.full((4, 8, 8, 3), -1, np.int64),
    "not one of images": np.zeros(4, [("a", "i4")]),
    "(N, H, W, C) or (N, C, H, W)": np.zeros((4, 0, 8, 3), np.uint8),
    "row 1 has the keys b, row 0 a": np.array([{"a": 1}, {"b": 2}], dtype=object),
    "holds an array of dict, str": np.array([{"a": 1}, "b"], dtype=object),
    "it has y": np.array([{"y": 1}, {"y": 2}], dtype=object),
}


@pytest.mark.parametrize("problem", BAD_ARRAYS)
def test_arrays_that_are_no_images_are_one_line(tmp_path: Path, problem: str) -> None:
    np.save(tmp_path / "t.npy", BAD_ARRAYS[problem])
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        read_teacher_npy(tmp_path / "t.npy")
    assert str(caught.value).startswith(f"{tmp_path / 't.npy'}: ")
    assert "\n" not in str(caught.value)


BAD_LABELS = {
    "keys image_paths": {"paths": ["a.png"]},
    "keys image_paths and images": with_changes(images=IMAGES),
    "image_paths has zero rows": {"image_paths": []},
    "image_paths is a str": {"image_paths": "a.png"},
    "image_paths row 1 is a int": {"image_paths": ["a.png", 3]},
    "image_paths row 0: '' is not a path": {"image_paths": [""]},
    "bboxes has 2 rows, the images 3": with_changes(bboxes=LABELS["bboxes"][:2]),
    "bboxes row 2 holds NaN": with_changes(bboxes=[[1, 2, 3, 4], [1, 2, 3, 4], [1, float("nan"), 3, 4]]),
    "bboxes row 0 holds NaN": with_changes(bboxes=np.full((3, 4), np.inf)),
    "bboxes row 0 does not hold": with_changes(bboxes=np.zeros((3, 5))),
    "bboxes row 1 does not hold": with_changes(bboxes=[[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4]]),
    "bboxes row 2 does not hold numbers": with_changes(bboxes=[[1, 2, 3, 4], [1, 2, 3, 4], [5]]),
    "bboxes row 0 does not hold numbers": with_changes(bboxes=[None, None, None]),
    "bboxes row 2 does not hold": with_changes(bboxes=[[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, "x"]]),
    "subjects has 1 rows": with_changes(subjects=["x"]),
    "subjects row 1 is of type NoneType": with_changes(subjects=["x", None, "y"]),
    "subjects row 2 is of type float": with_changes(subjects=["x", "y", float("nan")]),
    "landmarks row 0 does not hold": with_changes(landmarks=np.zeros((3, 5, 3))),
    "landmarks row 0 holds NaN": with_changes(landmarks=np.full((3, 2, 2), np.inf)),
    "subjects row 1 is empty": with_changes(subjects=["x", "", "y"]),
    "landmarks has 0 points": with_changes(landmarks=np.zeros((3, 0, 2))),
}


@pytest.mark.parametrize("problem", BAD_LABELS)
def test_labels_that_do_not_fit_are_one_line(tmp_path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)) as caught:
        read_teacher_npy(save_dict(tmp_path / "t.npy", BAD_LABELS[problem]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"bboxes": np.full((3, 4), np.nan)}, {"subjects": ["x"]}, {"image_paths": ["a\\b"] * 3}]
)
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        write_teacher_npy(tmp_path / "t.npy", **with_changes(**changes))
    assert not list(tmp_path.iterdir())


def test_a_nested_list_that_would_explode_is_refused(tmp_path: Path) -> None:
    bomb: list[Any] = [0.0] * 10
    for _ in range(30):
        bomb = [bomb] * 10
    for key in ("image_paths", "subjects"):
        with pytest.raises(InputError, match=f"{key} row 0 is"):
            read_teacher_npy(save_dict(tmp_path / "t.npy", with_changes(**{key: [bomb] * 3})))
    with pytest.raises(InputError, match="does not hold"):
        read_teacher_npy(save_dict(tmp_path / "t.npy", with_changes(bboxes=[[bomb] * 4] * 3)))
    with pytest.raises(InputError, match="does not hold"):
        read_teacher_npy(save_dict(tmp_path / "t.npy", with_changes(landmarks=[[[bomb] * 2] * 9] * 3)))


class Hostile:
    """Pickles as a call; the call would make a file."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "numpy.load"])
@pytest.mark.parametrize("extension", ["npy", "npz"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, function: str, protocol: int, extension: str) -> None:
    module, name = function.rsplit(".", 1)
    mark = tmp_path / "it-ran"
    call = getattr(__import__(module), name)
    argument = f"touch {mark}" if name == "system" else f"open({str(mark)!r}, 'w')"
    hostile = Hostile(call, ["touch", str(mark)] if name == "Popen" else argument)
    pickled = pickle.dumps(np.array({"image_paths": ["a.png"], "bboxes": hostile}, dtype=object), protocol)
    path = save_pickle(tmp_path / "t.npy", pickled)
    if extension == "npz":
        with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
            archive.write(path, "image_paths.npy")
        path = tmp_path / "t.npz"
    with pytest.raises(InputError, match=r"t\.np.: its pickle asks for .*\." + name):
        read_teacher_npy(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.getattr", "builtins.bytearray", "copyreg._reconstructor", "numpy.zeros", "numpy.memmap", "codecs.decode",
     "pathlib.Path.write_text", "numpy.core.multiarray.fromfile", "collections.OrderedDict", "numpy.random._pickle.x"],
)  # fmt: skip
def test_any_other_global_is_refused_by_name(name: str) -> None:
    module, attribute = name.rsplit(".", 1) if name != "pathlib.Path.write_text" else ("pathlib", "Path.write_text")
    pickled = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, attribute)) + b"\x93."
    with pytest.raises(InputError, match=f"asks for {name}"):
        RestrictedUnpickler(io.BytesIO(pickled)).load()


def object_array_pickle(spec: str, state: tuple[Any, ...], shape: tuple[int, ...], content: Any) -> bytes:
    """What numpy pickles for an array, with any dtype, dtype state, shape and content."""

    class Dtype:
        def __reduce__(self) -> Any:
            return np.dtype, (spec, False, True), state

    class Array:
        def __reduce__(self) -> Any:
            empty = np.empty(0).__reduce__()[0]
            return empty, (np.ndarray, (0,), b"b"), (1, shape, Dtype(), False, content)

    return pickle.dumps(Array(), 4)


PLAIN = (3, "<", None, None, None, -1, -1, 0)
ONE_FIELD = (3, "|", None, ("a",), {"a": (np.dtype("i8"), 0)}, 8, 1, 0)
HIDDEN_OBJECT = (3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 0)
FORGED_ARRAYS = {
    "structured": object_array_pickle("V8", ONE_FIELD, (1,), bytes(8)),
    "void": object_array_pickle("V8", PLAIN, (1,), bytes(8)),
    "objects from raw bytes": object_array_pickle("O8", PLAIN, (1,), b"A" * 8),
    "an object field hidden in a number": object_array_pickle("i8", HIDDEN_OBJECT, (1,), b"A" * 8),
    "shape too large": object_array_pickle("f8", PLAIN, (10**12,), bytes(8)),
    "negative shape": object_array_pickle("f8", PLAIN, (-1, -1), bytes(8)),
    "endless empty text": object_array_pickle("U0", PLAIN, (10**12,), b""),
    "ndarray called directly": pickle.dumps(Hostile(np.ndarray, (2**40,)), 4),
}


@pytest.mark.parametrize("forgery", FORGED_ARRAYS)
def test_forged_arrays_in_a_pickle_are_refused(forgery: str) -> None:
    with pytest.raises(InputError, match="its pickle"):
        RestrictedUnpickler(io.BytesIO(FORGED_ARRAYS[forgery])).load()


def test_a_pickle_cannot_change_what_it_is_handed(tmp_path: Path) -> None:
    """BUILD sets attributes of whatever lies on the stack, such as the stand-ins for numpy's functions."""
    before = dict(vars(RestrictedUnpickler))
    for name in ("_reconstruct", "scalar"):
        pickled = f"cnumpy.core.multiarray\n{name}\n(N(dV__defaults__\nNstb.".encode()
        with pytest.raises((AttributeError, TypeError, pickle.UnpicklingError)):
            RestrictedUnpickler(io.BytesIO(pickled)).load()
    assert dict(vars(RestrictedUnpickler)) == before


def broken_content(name: str, folder: Path) -> bytes:
    whole = save_dict(folder / "whole.npy", LABELS).read_bytes()
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, IMAGES)
    np.savez(archive, **LABELS)
    zipped = archive.getvalue()
    code = b"{'descr': __import__('os').system('true'), 'fortran_order': False}".ljust(118)
    return {
        "empty.npy": b"",
        "text.npy": b"hello\n" * 99,
        "cut_header.npy": whole[:40],
        "cut_pickle.npy": whole[:-30],
        "cut_array.npy": array.getvalue()[:-1],
        "cut.npz": zipped[: len(zipped) // 2],
        "garbled.npz": zipped[:200] + bytes(200) + zipped[400:],
        "version.npy": b"\x93NUMPY\x09\x00" + whole[8:],
        "code.npy": whole[:10] + code + whole[128:],
    }[name]


@pytest.mark.parametrize(
    "name",
    ["empty.npy", "text.npy", "cut_header.npy", "cut_pickle.npy", "cut_array.npy", "cut.npz", "garbled.npz",
     "version.npy", "code.npy"],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(broken_content(name, tmp_path))
    with pytest.raises(InputError, match=name) as caught:
        read_teacher_npy(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "reason"), [("nothing.npy", "no such file"), (".", "not a file")])
def test_what_is_no_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_teacher_npy(tmp_path / name)


@pytest.mark.parametrize("shape", [(10**9, 128, 128, 3), (2**62, 4, 1, 3), (5, 6, 5, 3), (-1, 6, 5, 3)])
@pytest.mark.parametrize("extension", ["npy", "npz"])
def test_a_header_that_declares_more_than_the_file_holds_is_refused(
    tmp_path: Path, shape: tuple[int, ...], extension: str
) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    content = buffer.getvalue() + IMAGES.tobytes()
    path = tmp_path / f"t.{extension}"
    if extension == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    with pytest.raises(InputError, match=r": declares \(|: an array of"):
        read_teacher_npy(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images", "bboxes"):
            archive.writestr(f"{name}.npy", b"x")
    content = bytearray(path.read_bytes())
    declared = struct.pack("<I", MAX_NPZ_BYTES // 2 + 1)
    for central in (content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02")):
        content[central + 24 : central + 28] = declared
    path.write_bytes(content)
    with pytest.raises(InputError, match="more than the limit"):
        read_teacher_npy(path)


def test_a_member_that_unpacks_to_more_than_declared_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, images=np.zeros((64, 64, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 500)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.npz"):
        read_teacher_npy(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("old")

    def interrupted() -> None:
        with atomic_write(tmp_path / "t.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "t.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_a_temporary_file_is_beside_its_target_and_no_glob_finds_it(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "sub" / "a.npy") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path / "sub"
        assert not list((tmp_path / "sub").glob("*.npy"))
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.npy"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Of a process that is gone at once, of a living one never, of another machine after a day."""

    program = (
        "import os, sys; from earface.core.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as path: path.touch(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a.npy")])
    assert killed.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert str(killed.pid) in left.name
    elsewhere = [tmp_path / f".b.npy.{'0' * 8}-{killed.pid}-{number:08x}.tmp" for number in (1, 2)]
    earlier = [tmp_path / f".c.npy.{number:016x}.tmp" for number in (1, 2)]  # as earlier versions named them
    others = [tmp_path / ".vim.tmp", tmp_path / "a.tmp"]
    for path in (*elsewhere, *earlier, *others):
        path.touch()
    for path in (elsewhere[0], earlier[0], *others):
        old = path.stat().st_mtime - ABANDONED_AFTER_S - 60
        os.utime(path, (old, old))
    with atomic_write(tmp_path / "d.npy") as mine:
        mine.touch()
        remove_abandoned(tmp_path)
        assert {*tmp_path.iterdir()} == {mine, elsewhere[1], earlier[1], *others}


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @entry_point
    def main(argv: object) -> None:
        write_teacher_npy(tmp_path / "t.npy", image_paths=[f"{number:0200d}.png" for number in range(1000)])

    with files_of_at_most(10_000):
        assert main(None) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "t.npy" in error
    assert not list(tmp_path.iterdir())


def test_no_space_on_the_device_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    @entry_point
    def main(argv: object) -> None:
        with Path("/dev/full").open("wb") as stream:
            np.save(stream, np.array(LABELS, dtype=object))

    assert main(None) == 2
    assert "No space left on device" in capsys.readouterr().err
