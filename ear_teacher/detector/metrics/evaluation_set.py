"""The photographs that a detector is evaluated on, and which of them it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.data.annotations import Annotations
from earface.data.coco import read_coco, read_coco_file


@dataclass(frozen=True)
class Source:
    """The photographs of one file, with their ids and names in it."""

    annotations: Annotations
    ids: dict[Path, int | str]
    names: dict[Path, str]
    category: int | str


def open_source(path: str, images: str | None) -> Source:
    """Raises InputError, also for a file without ears."""
    file = read_coco_file(path, images)
    annotations = file.annotations
    if not annotations.num_ears:
        raise InputError(f"{path}: none of its {len(annotations)} photographs has an ear: nothing can be measured")
    paths = [photograph.path for photograph in annotations.photographs]
    ids = dict(zip(paths, file.image_ids, strict=True))
    names = dict(zip(paths, file.file_names, strict=True))
    return Source(annotations, ids, names, file.category_id)


def validated_on(run: Mapping[str, Any]) -> str:
    """The file that a run was validated on. Raises InputError if there are several, or if it does not exist."""
    files: list[str] = run["val_json"]
    if len(files) != 1 or not Path(files[0]).is_file():
        raise InputError(f"the run was validated on {', '.join(files)}: choose the file by `json`")
    return files[0]


def trained_on(run: Mapping[str, Any], annotations: Annotations) -> list[str]:
    """A sentence if photographs or people were trained on. Training files that no longer exist are ignored."""
    seen = []
    for path in run["train_json"]:
        with suppress(InputError):
            seen += read_coco(path, run["images"]).photographs
    paths = {photograph.path.resolve() for photograph in seen}
    subjects = {photograph.subject for photograph in seen} - {""}
    photographs = sum(photograph.path.resolve() in paths for photograph in annotations.photographs)
    people = len(subjects & {photograph.subject for photograph in annotations.photographs})
    if not photographs and not people:
        return []
    return [f"{photographs} of the photographs and {people} of the people were trained on: they are not unseen"]
