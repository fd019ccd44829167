"""Which synthetic pictures there are by default. No numpy: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = ("multipie", "folders")
MIN_SIDE, MAX_SIDE = 64, 2048  # of photographs, pixels


@dataclass(frozen=True)
class EarSetOptions:
    """Ears of the population `seed`."""

    subjects: int = 200
    images_per_subject: int = 10
    image_size: int = 128
    seed: int = 42


@dataclass(frozen=True)
class FaceSetOptions:
    """Faces of the population `seed`, seen by the cameras within `max_yaw` degrees."""

    subjects: int = 200
    images_per_subject: int = 10
    image_size: int = 128
    max_yaw: int = 45
    seed: int = 42


@dataclass(frozen=True)
class SceneSetOptions:
    """Photographs of the population `seed`."""

    photographs: int = 2000
    width: int = 480
    height: int = 360
    seed: int = 42
