"""Files of small faces to files of 128x128 faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsr.comparison_grid import comparison_rows
from dsr.inference import ALIGN_FIRST, KEEPS_DETAIL, at_size, model_input, super_resolve
from dsr.model import DSR
from dsr.options import COMPARISON
from earface.core.errors import InputError
from earface.core.files import refuse_to_replace
from earface.core.progress import tracked
from earface.data.aligned_faces import FaceReader, LargeFaces, OtherSizes
from earface.data.face_inspection import FaceFinder
from earface.data.face_sizes import VLRRange, VLRSize
from earface.data.folders import pictures_at
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.image_grid import save_image_grid
from earface.data.images import Pixels, read_ahead, write_image
from earface.data.pixels import to_uint8

GRID_FACES = 12


@dataclass(frozen=True)
class SmallFaces:
    """The pictures that could be read, at a size that the model takes."""

    paths: list[Path]  # (N,)
    pixels: list[Pixels]  # N of (h, w, 3), RGB
    skipped: list[tuple[Path, str]]  # the others, and why


def plan_targets(given: str, out: Path, compare: bool, overwrite: bool) -> dict[Path, Path]:
    """The PNG file of each picture of a folder, or of a single picture.

    Raises InputError if there is no picture, two would become one file, or a file exists already.
    """
    path = Path(given)
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise InputError(f"`out` {out} lies in `input` {path}: the next run would take its faces for small ones")
    below = path if path.is_dir() else path.parent
    targets = {picture: out / picture.relative_to(below).with_suffix(".png") for picture in pictures_at(path)}
    taken = {str(out / COMPARISON).casefold(): Path("the image grid of `compare`")} if compare else {}
    for picture, target in targets.items():
        other = taken.setdefault(str(target).casefold(), picture)  # on some file systems A.png is a.png
        if other != picture:
            raise InputError(f"{picture}: would become {target}, as would {other}: rename one of them")
    _check_free([*targets.values(), *([out / COMPARISON] if compare else [])], set(targets), overwrite)
    return targets


def _check_free(targets: Sequence[Path], pictures: set[Path], overwrite: bool) -> None:
    """Raise InputError if a target exists and may not be replaced, or is one of the inputs."""
    for folder in dict.fromkeys(target.parent for target in targets):
        nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        if not nearest.is_dir():
            raise InputError(f"`out`: {nearest} is a file; give a folder")
    real = {picture.resolve() for picture in pictures}
    if own := [target for target in targets if target.resolve() in real]:
        raise InputError(f"`out`: {own[0]} is one of the pictures that are read; give another folder")
    if folders := [target for target in targets if target.is_dir()]:
        raise InputError(f"`out`: {folders[0]} is a folder; give another `out`")
    refuse_to_replace(targets, overwrite)


def read_small_faces(paths: Sequence[Path], size: VLRSize | VLRRange, finder: FaceFinder | None = None) -> SmallFaces:
    """RGB, at `size`, of a range in it; 3 KB each at 32x32. finder: for photographs; None: aligned faces.

    Raises InputError if more than 5 % of aligned faces cannot be used (read, or not square), or no photograph can.
    """
    large, other_sizes = LargeFaces(), OtherSizes()
    reader, allowed = FaceReader(finder), MAX_UNREADABLE if finder is None else 1.0

    def read(path: Path) -> Pixels | InputError:
        try:
            face = reader(path)
            small = at_size(face, size)
        except InputError as error:
            return error
        large.look(path, face)
        other_sizes.look(path, reader.size_of(path, face), size)
        return small

    found: list[tuple[Path, Pixels]] = []
    skipped: list[tuple[Path, str]] = []
    for path, result in zip(paths, read_ahead(read, paths), strict=True):
        if isinstance(result, InputError):
            skipped.append((path, str(result).removeprefix(f"{path}: ")))
            if len(skipped) > allowed * len(paths) or len(skipped) == len(paths):
                raise InputError(_too_many(skipped, len(paths), allowed))
        else:
            found.append((path, result))
    large.warn(len(paths), ALIGN_FIRST)
    other_sizes.warn(len(found), size, KEEPS_DETAIL)
    reader.warn(len(paths))
    return SmallFaces([path for path, _ in found], [each for _, each in found], skipped)


def _too_many(skipped: Sequence[tuple[Path, str]], count: int, allowed: float) -> str:
    first = "; ".join(f"{path}: {reason}" for path, reason in skipped[:3])
    if count == 1:
        return first
    if len(skipped) == count:
        return f"none of {count} pictures can be used: {first}"
    return f"{len(skipped)} or more of {count} pictures cannot be used, over {allowed:.0%}: {first}"


def write_faces(
    model: DSR, faces: SmallFaces, targets: dict[Path, Path], device: str, precision: str, batch_size: int
) -> None:
    """A PNG file for each, whole or not at all."""
    batches = range(0, len(faces.paths), batch_size)
    for start in tracked(batches, "upscaling, batches"):
        vlr = model_input(faces.pixels[start : start + batch_size], model.config).to(device)
        pictures = to_uint8(super_resolve(model, vlr, precision)).cpu().numpy()
        for path, picture in zip(faces.paths[start : start + batch_size], pictures, strict=True):
            write_image(targets[path], picture)


def write_comparison(model: DSR, faces: SmallFaces, path: Path, device: str, precision: str) -> None:
    """An image grid of up to GRID_FACES of them, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(faces.paths) - 1, GRID_FACES).round().astype(int))
    vlr = model_input([faces.pixels[place] for place in chosen], model.config).to(device)
    padded = isinstance(model.config.vlr, VLRRange)
    save_image_grid(path, comparison_rows(vlr, {"DSR": super_resolve(model, vlr, precision)}, padded=padded))
