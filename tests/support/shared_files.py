"""Weights, photographs of people and documents in `shared` beside the repository, where they are there.

None of them may be part of the repository. What is tested with them is tested with synthetic ones too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
YUNET = SHARED / "weights" / "face_detection_yunet_2023mar.onnx"
PHOTOGRAPHS = SHARED / "data" / "face_photos_lfw"
LFW = SHARED / "data" / "faces_lfw_128"
DOCUMENTS_OF_ORIGIN = SHARED / "reference"


def needs(*paths: Path) -> pytest.MarkDecorator:
    """Skip where one of the paths is not there, and say which."""
    missing = [f"../{path.relative_to(SHARED.parent)}" for path in paths if not path.exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not on this machine: {', '.join(missing)}")


def official_edgeface(variant: str) -> Path:
    """The authors' own int8 file."""
    return SHARED / "weights" / f"{variant}.pt"
