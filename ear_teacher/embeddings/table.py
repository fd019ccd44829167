"""Tables of embeddings: what earface ears extract writes as `.npz` or `.parquet`, and reads again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError, reading
from earface.core.files import atomic_write
from earface.core.limits import MAX_EMBEDDINGS_BYTES
from earface.data.names import person_name

EXTENSIONS = (".npz", ".parquet")
METADATA_KEY = b"ear_teacher.extract"  # of a parquet file's own metadata
COLUMNS = ("paths", "embeddings", "logvar", "subjects", "boxes", "cluster")


@dataclass(frozen=True)
class Embeddings:
    """N >= 1 ears. What is None is not in the file."""

    paths: list[str]
    embeddings: NDArray[np.float32]  # (N, D): mu
    metadata: dict[str, Any]  # how they were made: digest, weights, image_size, ...; plain values
    logvar: NDArray[np.float32] | None = None  # (N, D)
    subjects: list[str] | None = None  # as `person_name` writes them, whatever was given; empty where unknown
    boxes: NDArray[np.float32] | None = None  # (N, 4) x y width height; NaN: the whole picture
    cluster: NDArray[np.int32] | None = None  # (N,)

    def __post_init__(self) -> None:
        if self.subjects is not None and all(isinstance(name, str) for name in self.subjects):
            object.__setattr__(self, "subjects", [person_name(name) for name in self.subjects])

    def __len__(self) -> int:
        return len(self.paths)


def check_extension(path: Path) -> None:
    """Raise InputError for an unknown extension, and for .parquet without pyarrow."""
    if path.suffix not in EXTENSIONS:
        raise InputError(f"{path}: unknown extension {path.suffix!r}; use {' or '.join(EXTENSIONS)}")
    if path.suffix == ".parquet":
        _pyarrow()


def is_table(path: Path) -> bool:
    """Whether a file is a table of embeddings, by its extension or, for .npz, its members."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return path.suffix == ".parquet"
    with zipfile.ZipFile(path) as archive:
        return "embeddings.npy" in archive.namelist()


def write_embeddings(path: Path, table: Embeddings) -> None:
    """Whole or not at all; the same table gives the same bytes."""
    check_extension(path)
    columns = {name: getattr(table, name) for name in COLUMNS if getattr(table, name) is not None}
    metadata = json.dumps(table.metadata)
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
        with atomic_write(path, private=True) as temporary, temporary.open("wb") as stream:
            np.savez(stream, metadata=np.array(metadata), **arrays)
        return
    pa, parquet = _pyarrow()
    arrow = pa.table({name: _to_arrow(pa, values) for name, values in columns.items()})
    arrow = arrow.replace_schema_metadata({METADATA_KEY: metadata.encode()})
    with atomic_write(path, private=True) as temporary:
        parquet.write_table(arrow, temporary)


def read_embeddings(path: Path) -> Embeddings:
    """What `write_embeddings` wrote. Nothing in the file is run. Raises InputError for anything else."""
    check_extension(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with reading(path, "damaged, or not written by earface ears extract"):
        columns, metadata = (_read_npz if path.suffix == ".npz" else _read_parquet)(path)
        return _checked(columns, json.loads(metadata))


def joined(tables: Sequence[Embeddings], metadata: dict[str, Any]) -> Embeddings:
    """Their rows one after the other. A column is kept if all have it, subjects and boxes if any has; no clusters."""
    subjects = [table.subjects or [""] * len(table) for table in tables]
    boxes = [np.full((len(table), 4), np.nan, np.float32) if table.boxes is None else table.boxes for table in tables]
    logvar = [table.logvar for table in tables if table.logvar is not None]
    return Embeddings(
        paths=[path for table in tables for path in table.paths],
        embeddings=np.concatenate([table.embeddings for table in tables]),
        metadata=metadata,
        logvar=np.concatenate(logvar) if len(logvar) == len(tables) else None,
        subjects=list(chain.from_iterable(subjects)) if any(map(any, subjects)) else None,
        boxes=np.concatenate(boxes) if np.isfinite(np.concatenate(boxes)).any() else None,
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(".parquet needs pyarrow: pip install pyarrow, or use .npz") from None
    return pyarrow, pyarrow.parquet


def _to_arrow(pa: Any, values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    try:
        return pa.array(values)
    except UnicodeEncodeError:  # a file's name that is not UTF-8, which text in parquet is: bytes, as on the disk
        return pa.array([value.encode("utf-8", "surrogateescape") for value in values], pa.binary())


def _read_npz(path: Path) -> tuple[dict[str, Any], str]:
    with zipfile.ZipFile(path) as archive:
        _check_bytes(sum(info.file_size for info in archive.infolist()))
    with np.load(path, allow_pickle=False) as archive:
        if "identities" in archive.files:
            raise InputError("is a table of earface ears recognize embed or faces embed; give one of ears extract")
        columns: dict[str, Any] = {name: archive[name] for name in COLUMNS if name in archive.files}
        metadata = str(archive["metadata"])
    for name in ("paths", "subjects"):
        if name in columns:
            columns[name] = columns[name].tolist()
    return columns, metadata


def _read_parquet(path: Path) -> tuple[dict[str, Any], str]:
    _, parquet = _pyarrow()
    with parquet.ParquetFile(path) as file:
        groups = range(file.metadata.num_row_groups)
        _check_bytes(sum(file.metadata.row_group(group).total_byte_size for group in groups))
        arrow = file.read()
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name not in arrow.column_names:
            continue
        column = arrow.column(name).combine_chunks()
        if hasattr(column.type, "list_size"):
            columns[name] = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        else:
            columns[name] = column.to_numpy() if name == "cluster" else [_text(value) for value in column.to_pylist()]
    return columns, (arrow.schema.metadata or {})[METADATA_KEY].decode()


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _check_bytes(declared: int) -> None:
    if declared > MAX_EMBEDDINGS_BYTES:
        raise InputError(f"unpacks to {declared:,} bytes, more than the limit of {MAX_EMBEDDINGS_BYTES:,}")


def _checked(columns: Mapping[str, Any], metadata: Any) -> Embeddings:
    table = Embeddings(metadata=metadata, **columns)
    rows, dim = table.embeddings.shape
    shapes = {"embeddings": (rows, dim), "logvar": (rows, dim), "boxes": (rows, 4)}
    for name, shape in shapes.items():
        values = getattr(table, name)
        if values is not None and (values.dtype != np.float32 or values.shape != shape):
            raise InputError(f"{name} is {values.dtype} {values.shape}, not float32 {shape}")
    if not np.isfinite(table.embeddings).all():
        raise InputError("the embeddings hold NaN or infinity")
    for name in ("paths", "subjects"):
        texts = getattr(table, name)
        if texts is not None and (len(texts) != rows or not all(isinstance(text, str) for text in texts)):
            raise InputError(f"{name} is not {rows} texts")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("digest"), str) or rows == 0:
        raise InputError("no rows, or no record of the checkpoint that made them")
    return table
