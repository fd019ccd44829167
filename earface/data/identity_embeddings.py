"""Tables of embeddings of faces or ears: the `.npz` files that `embed` writes and galleries are read from."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError, reading
from earface.core.files import atomic_write, check_npz_name
from earface.core.limits import MAX_EMBEDDINGS_BYTES
from earface.data.names import person_name

MEMBERS = ("embeddings", "paths", "identities", "contract", "digest", "metadata")
SIDES = "sides"  # a member of tables of ears
QUALITY = "quality_"  # the beginning of the members of tables with quality
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class IdentityEmbeddings:
    """N >= 1 pictures. Embeddings may be compared where contract and digest are equal."""

    embeddings: NDArray[np.float32]  # (N, D), each of length 1
    paths: list[str]
    identities: list[str]  # as `person_name` writes them, whatever was given; empty where unknown
    contract: str  # id of the FaceContract or EarContract
    digest: str  # of the weights
    metadata: dict[str, Any]  # variant, weights, flip, skipped; plain values
    sides: list[str] | None = None  # of ears: l, r, or empty where unknown
    quality: Mapping[str, NDArray[np.float32]] | None = None  # measures by name, (N,) each, NaN where unknown

    def __post_init__(self) -> None:
        if all(isinstance(name, str) for name in self.identities):  # else `_check` refuses the table
            object.__setattr__(self, "identities", [person_name(name) for name in self.identities])

    def __len__(self) -> int:
        return len(self.paths)


def write_embeddings(path: Path, table: IdentityEmbeddings) -> None:
    """Whole or not at all, readable by its owner alone; the same table gives the same bytes. Raises InputError."""
    check_npz_name(path)
    try:
        _check(table)
    except InputError as error:
        raise InputError(f"{path}: not written: {error}") from None
    members = {name: getattr(table, name) for name in MEMBERS} | {"metadata": json.dumps(table.metadata)}
    members |= {} if table.sides is None else {SIDES: table.sides}
    members |= {f"{QUALITY}{name}": own for name, own in (table.quality or {}).items()}
    with atomic_write(path, private=True) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{name: np.asarray(value) for name, value in members.items()})  # type: ignore[arg-type]


def read_embeddings(path: Path, *, contract: str | None = None, digest: str | None = None) -> IdentityEmbeddings:
    """A table of `write_embeddings`. Nothing in the file is run.

    contract, digest: that the table must have, if its embeddings are to be compared with others. Raises InputError for
    a table of another contract or of other weights, and for any other file.
    """
    check_npz_name(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with reading(path, "damaged, or not written by earface faces embed or ears recognize embed"):
        table = _read(path)
        _check(table)
    again = "embed its pictures again"
    if contract is not None and table.contract != contract:
        raise InputError(f"{path}: made under the contract {table.contract}, not {contract}: {again}")
    if digest is not None and table.digest != digest:
        made_by = table.metadata.get("weights", "unknown")
        raise InputError(f"{path}: made by other weights ({made_by}) than those given: {again}")
    return table


def _read(path: Path) -> IdentityEmbeddings:
    with zipfile.ZipFile(path) as archive:
        declared = sum(info.file_size for info in archive.infolist())
    if declared > MAX_EMBEDDINGS_BYTES:
        raise InputError(f"unpacks to {declared:,} bytes, more than the limit of {MAX_EMBEDDINGS_BYTES:,}")
    with np.load(path, allow_pickle=False) as archive:
        if lacking := [name for name in MEMBERS if name not in archive.files]:
            raise InputError(
                f"holds {', '.join(archive.files[:4]) or 'nothing'}, and no {lacking[0]}: a gallery or a table "
                "of people's embeddings is wanted, as earface enroll, faces embed or ears recognize embed write it"
            )
        found = {name: archive[name] for name in MEMBERS}
        sides = archive[SIDES].tolist() if SIDES in archive.files else None
        quality = {name.removeprefix(QUALITY): archive[name] for name in archive.files if name.startswith(QUALITY)}
    return IdentityEmbeddings(
        embeddings=found["embeddings"],
        paths=found["paths"].tolist(),
        identities=found["identities"].tolist(),
        contract=str(found["contract"]),
        digest=str(found["digest"]),
        metadata=json.loads(str(found["metadata"])),
        sides=sides,
        quality=quality or None,
    )


def _check(table: IdentityEmbeddings) -> None:
    values = table.embeddings
    if values.dtype != np.float32 or values.ndim != 2 or len(values) == 0:
        raise InputError(f"embeddings are {values.dtype} {values.shape}, not float32 (N, D) with N >= 1")
    lengths = np.linalg.norm(values, axis=1)
    if not (np.abs(lengths - 1.0) <= UNIT_TOLERANCE).all():  # false for NaN, too
        raise InputError("embeddings are not all of length 1")
    for name in ("paths", "identities"):
        texts = getattr(table, name)
        if len(texts) != len(values) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name} are not {len(values)} texts")
    if table.sides is not None and (len(table.sides) != len(values) or not set(table.sides) <= {"l", "r", ""}):
        raise InputError(f"sides are not {len(values)} of l, r and empty")
    for name, own in (table.quality or {}).items():
        if own.dtype != np.float32 or own.shape != (len(values),):
            raise InputError(f"{QUALITY}{name} is {own.dtype} {own.shape}, not float32 ({len(values)},)")
    if not isinstance(table.metadata, dict):
        raise InputError("metadata is no table of names and values")
