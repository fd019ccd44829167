"""A recogniser of faces or of ears: which of the two, its contract and its weights are read from what is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ear_teacher.recognition.loading import TrainedEarRecognizer, is_recognizer
from ear_teacher.recognition.loading import load_recognizer as load_ear_recognizer
from facial_rec.recognizer import FaceRecognizer
from facial_rec.recognizer import load_recognizer as load_face_recognizer

if TYPE_CHECKING:
    from earface.nn.precision import Precision
    from facial_rec.contract import Crop

Modality = Literal["face", "ear"]
Recognizer = FaceRecognizer | TrainedEarRecognizer


def modality_of(name: str) -> Modality:
    """ear for a checkpoint, a run's folder or an exported folder of an ear recogniser; face for everything else."""
    return "ear" if is_recognizer(name) else "face"


def load_any(name: str, crop: Crop | None = None, device: str = "cpu", precision: Precision = "32") -> Recognizer:
    """The recogniser that a name stands for. crop: of faces alone. Raises InputError."""
    if modality_of(name) == "ear":
        return load_ear_recognizer(name, device, precision=precision)
    return load_face_recognizer(name, crop, device, precision)
