"""Multi-PIE's file names, `SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION_crop_SIZE.png`, and what their codes mean.

Gross et al., "Multi-PIE", 2010. `001_01_02_140_07_crop_128.png` is subject 1, session 1, recording 2 (an expression),
camera 14_0, flash 7, cropped to 128 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from earface.core.notices import warn

# Degrees of the 13 cameras at head height, 15 apart; 081 and 191 look down from above. Positive: the picture shows the
# person's right side, and the nose points to the picture's right.
CAMERA_YAW: Mapping[str, int] = {
    "110": -90, "120": -75, "090": -60, "080": -45, "130": -30, "140": -15, "051": 0,
    "050": 15, "041": 30, "190": 45, "200": 60, "010": 75, "240": 90,
}  # fmt: skip
FRONTAL = "051"
ILLUMINATIONS = tuple(f"{number:02d}" for number in range(20))
NO_FLASH = ("00", "19")
FRONTAL_FLASH = "07"
NEUTRAL = "01"  # the recording without expression, in every session
PROFILE = 45  # degrees from which on a face hides an eye
# what stands behind the codes says nothing of the picture: ` (1)`, `-copy`, `_aligned`; but two underscores separate an
# identity from a picture, earface/data/face_rows.py
_NAME = re.compile(
    r"(?!.*__)(\d{3,})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(?:_crop_(\d+)(?!\d))?(?:\D.*)?\.[A-Za-z0-9]+", re.DOTALL
)


@dataclass(frozen=True, order=True)
class MultiPieName:
    """What a Multi-PIE file name says."""

    subject: str
    session: str
    recording: str
    camera: str
    illumination: str
    size: int | None = 128  # None: not cropped

    @classmethod
    def parse(cls, name: str) -> MultiPieName | None:
        """From a file's name without its folder; None where it does not begin as Multi-PIE's do."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        subject, session, recording, camera, illumination, size = found.groups()
        return cls(subject, session, recording, camera, illumination, None if size is None else int(size))

    def __str__(self) -> str:
        codes = (self.subject, self.session, self.recording, self.camera, self.illumination)
        return "_".join(codes) + ("" if self.size is None else f"_crop_{self.size}") + ".png"

    @property
    def yaw(self) -> int | None:
        """Degrees; None for a camera that is not at head height."""
        return CAMERA_YAW.get(self.camera)


def decide_by_names(names: Sequence[str]) -> bool:
    """Whether the Multi-PIE names among those of a set's pictures decide whose they are: they are most of them.

    names: without folders. The others are strays then, such as copies by other programs.
    """
    return sum(MultiPieName.parse(name) is not None for name in names) * 2 > len(names)


def warn_of_profiles(paths: Iterable[Path]) -> None:
    """Warn of pictures to be enrolled that show a face from the side, by their Multi-PIE names."""
    paths = list(paths)
    yaws = [(path, name.yaw) for path in paths if (name := MultiPieName.parse(path.name)) and name.yaw is not None]
    if aside := [(path, yaw) for path, yaw in yaws if abs(yaw) >= PROFILE]:
        warn(
            f"{len(aside)} of {len(paths)} enrolled pictures show a face from the side, such as {aside[0][0]} "
            f"({aside[0][1]:+d}°): enrol frontal pictures (camera {FRONTAL})"
        )
