"""Where prepared ears are. No numpy: a set that is missing is reported at once."""

from __future__ import annotations

from pathlib import Path

from earface.data.options import TEACHER_FILES


def teacher_file(root: str) -> Path | None:
    """The teacher file that is named, or the validation ears of a prepared folder; None where it is neither."""
    path = Path(root)
    if path.suffix in (".npy", ".npz"):
        return path
    inside = path / TEACHER_FILES["val"]
    return inside if inside.is_file() else None
