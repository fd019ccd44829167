"""A recogniser of faces or of ears: which of the two, its contract and its weights are read from what is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ear_teacher.recognition.hub import FORMAT
from ear_teacher.recognition.loading import TrainedEarRecognizer
from ear_teacher.recognition.loading import load_recognizer as load_ear_recognizer
from earface.core.errors import InputError
from earface.core.files import CONFIG, is_exported
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from facial_rec.recognizer import FaceRecognizer
from facial_rec.recognizer import load_recognizer as load_face_recognizer

if TYPE_CHECKING:
    from earface.nn.precision import Precision
    from facial_rec.contract import Crop

Modality = Literal["face", "ear"]
Recognizer = FaceRecognizer | TrainedEarRecognizer


def modality_of(name: str) -> Modality:
    """ear for a checkpoint, a run's folder or an exported folder of an ear recogniser; face for everything else."""
    if is_exported(name):
        kind = json.loads((Path(name) / CONFIG).read_text(encoding="utf-8")).get("kind")
        return "ear" if kind == FORMAT.kind else "face"
    try:
        checkpoint = find_checkpoint(name)
    except InputError:
        return "face"
    if checkpoint.suffix != ".ckpt":
        return "face"
    kind = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("kind")
    return "ear" if kind == FORMAT.kind else "face"


def load_any(name: str, crop: Crop | None, device: str = "cpu", precision: Precision = "32") -> Recognizer:
    """The recogniser that a name stands for. crop: of faces alone. Raises InputError."""
    if modality_of(name) == "ear":
        return load_ear_recognizer(name, device, precision=precision)
    return load_face_recognizer(name, crop, device, precision)
