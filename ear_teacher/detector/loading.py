"""A trained ear detector, from wherever it is kept."""

from __future__ import annotations

from ear_teacher.detector.model import EarDetector
from earface.core.files import is_exported


def load_detector(path: str, device: str = "cpu", weights: str = "averaged") -> EarDetector:
    """Of a checkpoint, a pattern (the newest match), or a folder that `save_pretrained` wrote, in evaluation mode.

    weights: of a checkpoint, `averaged` or `raw`. Raises InputError for anything else.
    """
    if is_exported(path):
        return EarDetector.from_pretrained(path, map_location=device)
    return EarDetector.load_from_checkpoint(path, device, weights)
