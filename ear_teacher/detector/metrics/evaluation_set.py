"""The photographs that a detector is measured on, and what is known of them from its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ear_teacher.loading import located
from earface.core.errors import InputError
from earface.data.annotations import Annotations
from earface.data.coco import CATEGORY, read_coco


@dataclass(frozen=True)
class Source:
    """What is measured on: the photographs of one file, and what that file calls them."""

    annotations: Annotations
    ids: dict[Path, int | str]
    names: dict[Path, str]
    category: int | str


def open_source(path: str, images: str | None) -> Source:
    """Raises InputError, also for a file without ears."""
    annotations = read_coco(path, images)
    if not annotations.num_ears:
        raise InputError(f"{path}: none of its {len(annotations)} photographs has an ear: nothing can be measured")
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # read_coco has checked it, and drops the ids
    categories = content["categories"]
    named = [entry for entry in categories if str(entry.get("name", "")).lower() == CATEGORY]
    paths = [photograph.path for photograph in annotations.photographs]
    ids = dict(zip(paths, (image["id"] for image in content["images"]), strict=True))
    names = dict(zip(paths, (image["file_name"] for image in content["images"]), strict=True))
    return Source(annotations, ids, names, (named if len(categories) > 1 else categories)[0]["id"])


def validated_on(run: Mapping[str, Any]) -> str:
    """The file that a run was validated on. Raises InputError if it has several, or if it is not here."""
    files = run["val_json"]
    if len(files) != 1 or not Path(located(files[0])).is_file():
        raise InputError(f"the run was validated on {', '.join(files)}: say by `json` on what to measure")
    return located(files[0])


def trained_on(run: Mapping[str, Any], annotations: Annotations) -> list[str]:
    """A sentence if photographs or people were trained on; training files that are no longer here tell nothing."""
    seen = []
    for path in run["train_json"]:
        with suppress(InputError):
            seen += read_coco(located(path), run["images"] and located(run["images"])).photographs
    paths = {photograph.path.resolve() for photograph in seen}
    subjects = {photograph.subject for photograph in seen} - {""}
    photographs = sum(photograph.path.resolve() in paths for photograph in annotations.photographs)
    people = len(subjects & {photograph.subject for photograph in annotations.photographs})
    if not photographs and not people:
        return []
    return [f"{photographs} of the photographs and {people} of the people were trained on: these are not unseen ones"]
