"""What a picture of a person is to an evaluation, whether it shows a face or an ear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from earface.data.names import person_name


@dataclass(frozen=True)
class PictureRow:
    """One picture, and whose it is."""

    path: Path
    name: str  # the path below the folder that was read, or as a CSV writes it
    identity: str  # as `person_name` writes it, whatever was given

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", person_name(self.identity))
