"""All pictures of one person, of a folder or of a video, for one decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from earface.core.errors import InputError
from earface.data.folders import pictures_at
from earface.data.picture_formats import EXTENSIONS
from earface.data.video import write_frames
from earface.nn.embedding import PictureFile
from pipeline.embedding import EmbeddedPictures
from pipeline.gallery import Gallery
from pipeline.identified import Identified, Rule
from pipeline.options import Fusion
from pipeline.quality import fused, mean_quality, two_people, weights_of


def pictures_of_track(track: Path, frames: Path, every: int) -> list[PictureFile]:
    """Those of a folder, or every n-th frame of a video, written to the folder `frames`. Raises InputError."""
    film = track.is_file() and track.suffix.lower() not in EXTENSIONS
    paths = write_frames(track, frames, every) if film else pictures_at(track)
    return [PictureFile(path, "") for path in paths]


def identify_track(
    gallery: Gallery,
    track: Path,
    embedded: EmbeddedPictures,
    paths: Sequence[Path],
    sides: Sequence[str] | None,
    fusion: Fusion,
    rule: Rule,
    count: int,
) -> Identified:
    """Who the track shows. paths: of the pictures that could be used; sides: of ears.

    An ear whose pictures differ in side is of unknown side. Raises InputError for a track of two people, as
    `two_people` tells it.
    """
    refuse_two_people(track, embedded, paths)
    template = fused(embedded.embeddings, weights_of(fusion, embedded.quality, len(paths)))
    own = set(sides or [""])
    side = own.pop() if len(own) == 1 else ""
    (found,) = gallery.search(torch.from_numpy(template[None]), count, sides=None if sides is None else [side])
    typical = paths[int(np.argmax(embedded.embeddings @ template))]
    return Identified(track, found, rule, side, mean_quality(embedded.quality), len(paths), typical)


def refuse_two_people(track: Path, embedded: EmbeddedPictures, paths: Sequence[Path]) -> None:
    groups = two_people(embedded.embeddings)
    if groups is not None:
        one, other = (np.flatnonzero(own) for own in (~groups, groups))
        raise InputError(
            f"`track` {track}: shows two people: {len(one)} pictures are like {paths[one[0]].name} and {len(other)} "
            f"like {paths[other[0]].name}: give a track of one, or each picture by itself as `input`"
        )
