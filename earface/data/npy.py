"""The NPY and NPZ files that training reads: image paths with labels, or the images themselves."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.files import atomic_write, refuse_lfs_pointer
from earface.core.limits import MAX_NPZ_BYTES, MAX_POINTS, MAX_TEXT
from earface.data.folders import DataRoot
from earface.data.image_arrays import images_of_array
from earface.data.names import person_name
from earface.data.npy_forms import columns_known, mapping_of
from earface.data.restricted_pickle import RestrictedUnpickler, refuse_empty_rows


@dataclass(frozen=True)
class TeacherData:
    """N rows: either `image_paths` or `images`, and what is known about each."""

    source: Path  # the file they were read from
    image_paths: list[Path] | None  # absolute or below the data root; not checked for existence
    images: NDArray[Any] | None  # uint8 (N, H, W, C), C = 1 or 3 (RGB), a memory map of a uint8 .npy; or N such objects
    bboxes: NDArray[np.float32] | None  # (N, 4) x y width height, pixels, x y = top left
    subjects: list[str] | None
    landmarks: NDArray[np.float32] | None  # (N, K, 2) x y, pixels; NaN = not visible
    sides: list[str] | None = None  # l, r or empty for unknown
    contract: str = ""  # EarContract.id of the pictures; empty: they are as they come
    collection: str = ""  # whose subjects they are: of two sets with equal names, which; empty: nothing says it

    def __len__(self) -> int:
        return len(self.image_paths if self.image_paths is not None else self.images)  # type: ignore[arg-type]


def read_teacher_npy(path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> TeacherData:
    """Read either documented form, from `.npy` or `.npz`.

    - A pickled dict (`.npz`: members) of `image_paths` or `images`, and optionally `bboxes`, `subjects`, `landmarks`,
      `sides` and the texts `contract` and `collection`; or an array of dicts, one a row; or of paths alone.
    - An image array (N, H, W, C), (N, C, H, W) or (N, H, W), C = 1 or 3: uint8, uint16, other whole numbers up to 255,
      or float in [0, 1], [-1, 1] or [0, 255]; or an object array of uint8 pictures of any sizes.

    A float array's range is taken from its smallest and largest value: within [0, 1]; negative but within [-1, 1]; or
    non-negative and up to between 16 and 255. Anything else is ambiguous and refused, and so are NaN, and shapes where
    both layouts or neither would fit.
    data_root: what relative paths resolve against and may not leave; default: the folder of `path`.
    Raises InputError, in one line, for everything that is not so.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError("not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise InputError("empty file")
        refuse_lfs_pointer(path)
        root = DataRoot(path.parent if data_root is None else data_root)
        return _teacher_data(path, _read_mapping(path), root)
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except Exception as error:  # a broken file makes numpy, zipfile and pickle raise almost anything
        raise InputError(f"{path}: damaged or not an NPY file ({type(error).__name__}: {error})") from None


def write_teacher_npy(
    path: str | os.PathLike[str],
    *,
    image_paths: Sequence[str | PurePath],
    bboxes: NDArray[Any] | None = None,
    subjects: Sequence[str] | None = None,
    landmarks: NDArray[Any] | None = None,
    sides: Sequence[str] | None = None,
    contract: str = "",
    collection: str = "",
) -> None:
    """Write the dict form, whole or not at all; paths as text with forward slashes, boxes and landmarks as float32.

    bboxes: (N, 4) x y width height in pixels. subjects: N names. landmarks: (N, K, 2) in pixels, NaN = not visible.
    sides: N of l, r and empty. contract: EarContract.id of the pictures, if they are in a form.
    collection: the same text for files that name the same people.
    Raises InputError if it could not be read back.
    """
    texts = [item.as_posix() if isinstance(item, PurePath) else str(item) for item in image_paths]
    backslash = next((text for text in texts if "\\" in text and not PureWindowsPath(text).drive), None)
    if backslash is not None:
        raise InputError(f"{path}: {backslash!r} holds a backslash, which is read as a folder: rename the file")
    content: dict[str, object] = {"image_paths": texts}
    content |= {} if bboxes is None else {"bboxes": _numbers(bboxes, "bboxes", len(texts), (4,))}
    content |= {} if subjects is None else {"subjects": _subjects(subjects, len(texts))}
    content |= {} if landmarks is None else {"landmarks": _landmarks(landmarks, len(texts))}
    content |= {} if sides is None else {"sides": _sides(sides, len(texts))}
    content |= {"contract": contract} if contract else {}
    content |= {"collection": collection} if collection else {}
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.array(content, dtype=object))


def _read_mapping(path: Path) -> Mapping[str, Any]:
    """The file as name -> array or list; an image array alone is named `images`."""
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            return _read_members(path)
        stream.seek(0)
        content = _read_array(stream, path.stat().st_size, mapped=path)
    return mapping_of(content)


def _read_members(path: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        declared = sum(info.file_size for info in members.values())
        if declared > MAX_NPZ_BYTES:
            raise InputError(
                f"unpacks to {declared:,} bytes, more than the limit of {MAX_NPZ_BYTES:,}: store it as .npy"
            )
        arrays = {}
        for name, info in members.items():
            with archive.open(info) as member:
                content = member.read(info.file_size)  # a bare read() trusts the compressed data, not the declared size
            arrays[name] = _read_array(io.BytesIO(content), len(content))
    if set(arrays) == {"arr_0"}:  # the name np.savez gives to what has none
        arrays = {"images": arrays["arr_0"]}
    return arrays


def _read_array(stream: IO[bytes], size: int, mapped: Path | None = None) -> NDArray[Any]:
    """One array of the NPY format, from `size` bytes; a memory map of the file `mapped` where there is one."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise InputError(f"NPY format version {version} is not one that plain arrays have")
    if dtype.kind == "O":
        array = RestrictedUnpickler(stream).load()
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise InputError("the pickle does not hold the array that the header declares")
        return array
    if dtype.kind not in "biufSU" or min(shape, default=0) < 0 or len(shape) > 8:
        raise InputError(f"an array of {dtype} {shape} is not one of images, boxes, landmarks or text")
    declared, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if declared > held:
        raise InputError(f"declares {shape} {dtype}, {declared:,} bytes, but holds {held:,}: truncated or forged")
    if declared == 0:
        refuse_empty_rows(shape)
        return np.empty(shape, dtype)
    order: Any = "F" if fortran else "C"
    if mapped is not None:
        return np.memmap(mapped, dtype, mode="r", offset=stream.tell(), shape=shape, order=order)
    return np.frombuffer(stream.read(declared), dtype).reshape(shape, order=order)


def _teacher_data(path: Path, mapping: Mapping[str, Any], root: DataRoot) -> TeacherData:
    known = columns_known(mapping, path)
    image_paths = images = None
    if "image_paths" in known:
        image_paths = _paths(known["image_paths"], root)
    else:
        images = images_of_array(known["images"])
    count = len(image_paths) if image_paths is not None else len(images)  # type: ignore[arg-type]
    return TeacherData(
        source=path,
        image_paths=image_paths,
        images=images,
        bboxes=_numbers(known["bboxes"], "bboxes", count, (4,)) if "bboxes" in known else None,
        subjects=_subjects(known["subjects"], count) if "subjects" in known else None,
        landmarks=_landmarks(known["landmarks"], count) if "landmarks" in known else None,
        sides=_sides(known["sides"], count) if "sides" in known else None,
        contract=_text(known["contract"], "contract") if "contract" in known else "",
        collection=_text(known["collection"], "collection") if "collection" in known else "",
    )


def _rows(values: object, name: str, count: int | None = None) -> list[Any]:
    if not isinstance(values, list | tuple | np.ndarray) or (isinstance(values, np.ndarray) and values.ndim == 0):
        raise InputError(f"{name} is a {type(values).__name__}, not a list or an array")
    if count is not None and len(values) != count:
        raise InputError(f"{name} has {len(values)} rows, the images {count}")
    return list(values)


def _paths(values: object, root: DataRoot) -> list[Path]:
    rows = _rows(values, "image_paths")
    if not rows:
        raise InputError("image_paths has zero rows")
    paths = []
    for row, item in enumerate(rows):
        if not isinstance(item, str | PurePath):
            raise InputError(f"image_paths row {row} is a {type(item).__name__}, not text or a path")
        try:
            paths.append(root.resolve(item))
        except InputError as error:
            raise InputError(f"image_paths row {row}: {error}") from None
    return paths


def _subjects(values: object, count: int) -> list[str]:
    rows = _rows(values, "subjects", count)
    for row, item in enumerate(rows):
        if not isinstance(item, str | int | np.integer) or isinstance(item, bool):
            raise InputError(f"subjects row {row} is of type {type(item).__name__}, not a name or a whole number")
    names = [person_name(str(item)) for item in rows]
    if "" in names:
        raise InputError(f"subjects row {names.index('')} is empty")
    return names


def _sides(values: object, count: int) -> list[str]:
    sides = [str(item) for item in _rows(values, "sides", count)]
    wrong = next((row for row, side in enumerate(sides) if side not in ("", "l", "r")), None)
    if wrong is not None:
        raise InputError(f"sides row {wrong} is {sides[wrong]!r}, neither l nor r nor empty")
    return sides


def _text(value: object, name: str) -> str:
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "U":
        value = value.item()  # as np.savez stores it
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InputError(f"{name} is no text of at most {MAX_TEXT} characters")
    return value


def _landmarks(values: object, count: int) -> NDArray[np.float32]:
    rows = _rows(values, "landmarks", count)
    num_landmarks = len(rows[0]) if hasattr(rows[0], "__len__") else 0
    if not 1 <= num_landmarks <= MAX_POINTS:
        raise InputError(f"landmarks has {num_landmarks} points per row: expected 1 to {MAX_POINTS}, (N, K, 2)")
    return _numbers(rows, "landmarks", count, (num_landmarks, 2), nan_means_missing=True)


def _numbers(
    values: object, name: str, count: int, row_shape: tuple[int, ...], nan_means_missing: bool = False
) -> NDArray[np.float32]:
    """(count, *row_shape) float32; row by row, so that a nested list is refused before it is expanded."""
    numbers = np.empty((count, *row_shape), np.float32)
    rows = _rows(values, name, count)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.shape == numbers.shape:
        numbers[:], rows = values, []
    for row, value in enumerate(rows):
        try:
            numbers[row] = _checked_row(value, row_shape)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name} row {row} does not hold numbers of shape {row_shape}") from None
    unusable = np.isinf(numbers) if nan_means_missing else ~np.isfinite(numbers)
    if unusable.any():
        raise InputError(f"{name} row {int(np.argwhere(unusable)[0, 0])} holds NaN or infinity")
    return numbers


def _checked_row(value: Any, shape: tuple[int, ...]) -> Any:
    """`value` if it is numbers of that shape; a few shared lists nested deep would expand without end in numpy."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.shape == shape:
        return value
    if not shape and isinstance(value, int | float | np.integer | np.floating):
        return value
    if not shape or not isinstance(value, list | tuple | np.ndarray) or len(value) != shape[0]:
        raise TypeError
    return [_checked_row(item, shape[1:]) for item in value]
