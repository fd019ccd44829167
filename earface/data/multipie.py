"""Multi-PIE's file names, `SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION_crop_SIZE.png`, and what their codes mean.

Gross et al., "Multi-PIE", 2010. `001_01_02_140_07_crop_128.png` is subject 1, session 1, recording 2 (an expression),
camera 14_0, flash 7, cropped to 128 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
_NAME = re.compile(r"(\d{3,})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(?:_crop_(\d+))?\.[A-Za-z]+")


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
        """From a file's name without its folder; None where it is not one of Multi-PIE's."""
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
