"""Where the pictures of a prepared face set are. No numpy: a set that is missing is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import InputError
from earface.core.files import read_json

SPLITS = ("train", "val", "test")
HR_FOLDER, VLR_FOLDER = "hr_images", "vlr_images"
SPLITS_FILE = "splits.json"
USUAL_ROOT = "dataset"  # where trainers look for a set
REPORT, INDEX, WORK = "prepare_report.json", "faces.csv", ".prepare"  # the latter is there until a set is complete


def split_folder(split: str) -> str:
    """The folder of train, val or test below the root of a prepared set."""
    return f"{split}_processed"


def require_face_set(root: str) -> None:
    """Raise InputError where there is nothing."""
    if not Path(root).exists():
        raise InputError(f"`dataset_root` {root}: no such folder; earface faces prepare makes one")


def require_folders(extra_hr: Sequence[str]) -> None:
    """Raise InputError where one of them is none."""
    if missing := [folder for folder in extra_hr if not Path(folder).is_dir()]:
        raise InputError(f"`extra_hr` {missing[0]}: no such folder")


def prepared_vlr_size(root: Path) -> str | None:
    """Of the VLR pictures of a prepared set, such as 32 or 14x16; None where its report does not say."""
    try:
        report = read_json(root / REPORT)
    except InputError:
        return None
    return str(report["vlr_size"]) if isinstance(report, dict) and "vlr_size" in report else None


def training_root(dataset_root: str) -> Path:
    """The root of a prepared set, given by that or by one of its splits.

    Raises InputError unless it has training and validation faces.
    """
    root = Path(dataset_root)
    if (root / HR_FOLDER).is_dir():
        root = root.parent
    for split in ("train", "val"):
        if not (root / split_folder(split) / HR_FOLDER).is_dir():
            raise InputError(
                f"`dataset_root` {dataset_root}: no {split_folder(split)}/{HR_FOLDER} in it; earface "
                "faces prepare makes it from photographs, or with `aligned` from faces of 128x128"
            )
    return root
