"""Every option of the commands that make synthetic pictures. No numpy: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import ToolOptions

MIN_SIZE, MAX_SIZE = 32, 512  # of the square pictures, pixels
MIN_SIDE, MAX_SIDE = 64, 2048  # of photographs, pixels
Variation = Literal["usual", "wide"]
Layout = Literal["multipie", "folders"]


@dataclass(frozen=True)
class EarSetOptions:
    """Ears of the population `seed`."""

    subjects: int = option(200, "persons", low=1, high=9999)  # what the file names have digits for
    images_per_subject: int = option(10, "pictures of each", low=1, high=1000)
    image_size: int = option(128, "side of the square pictures in pixels", low=MIN_SIZE, high=MAX_SIZE)
    seed: int = option(42, "another seed makes another population; 0 to 2**32 - 1")
    variation: Variation = option(
        "usual", "usual; wide: every pose and light alike, more hair, earrings and glasses, to train landmarkers on"
    )


@dataclass(frozen=True)
class FaceSetOptions:
    """Faces of the population `seed`, seen by the cameras within `max_yaw` degrees."""

    subjects: int = option(200, "persons", low=1, high=999)  # what the file names have digits for
    images_per_subject: int = option(10, "pictures of each", low=1)
    image_size: int = option(128, "side of the square pictures in pixels", low=MIN_SIZE, high=MAX_SIZE)
    max_yaw: int = option(45, "cameras up to this many degrees to either side", low=0, high=90)
    seed: int = option(42, "another seed makes another population; 0 to 2**32 - 1")


@dataclass(frozen=True)
class SceneSetOptions:
    """Photographs of the population `seed`."""

    photographs: int = option(2000, "how many", low=1, high=1_000_000)
    width: int = option(480, "pixels", low=MIN_SIDE, high=MAX_SIDE)
    height: int = option(360, "pixels", low=MIN_SIDE, high=MAX_SIDE)
    seed: int = option(42, "another seed makes other people and places; 0 to 2**32 - 1")


@dataclass(frozen=True)
class SyntheticSetOptions(ToolOptions):
    """What the three commands share."""

    out: str = option("", "folder to write, new or empty")
    num_workers: int | None = option(None, "processes; default: one for each core", low=1)
    image_grid: str | None = option(None, "also write an image grid of the set to this file (.png)")

    def check(self) -> None:
        check_options(self)
        if not self.out:
            raise InputError("`out`: give a new or empty folder")
        if self.image_grid is not None and not self.image_grid.lower().endswith(".png"):
            raise InputError(f"`image_grid` {self.image_grid}: give a name that ends in .png")


@dataclass(frozen=True)
class SyntheticEarOptions(EarSetOptions, SyntheticSetOptions):
    """Make synthetic ears with known factors, boxes and landmarks."""

    val_fraction: float = option(0.2, "of the subjects, to validate on", above=0, high=0.99)


@dataclass(frozen=True)
class SyntheticFaceOptions(FaceSetOptions, SyntheticSetOptions):
    """Make synthetic faces with known identities, factors and landmarks."""

    layout: Layout = option("multipie", "all pictures in one folder, or one folder per subject")


@dataclass(frozen=True)
class SyntheticSceneOptions(SceneSetOptions, SyntheticSetOptions):
    """Make synthetic photographs of heads with the boxes and landmarks of their ears."""
