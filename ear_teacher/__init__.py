"""The ear teacher: a variational autoencoder of ear crops, an ear detector and an ear recogniser beside it."""

from importlib import import_module
from typing import Any

import earface  # noqa: F401  # first: Ctrl-C during the imports of a program is one line

_MODULES = {
    "EarVAE": "ear_teacher.model",
    "EarVAEConfig": "ear_teacher.config",
    "EarVAETrainingConfig": "ear_teacher.config",
    "EarVAELightning": "ear_teacher.module",
    "EarVAEDataModule": "ear_teacher.datamodule",
    "EarVAELoss": "ear_teacher.losses",
    "EarContract": "earface.data.ear_contract",
    "EarDetector": "ear_teacher.detector.model",
    "EarDetectorConfig": "ear_teacher.detector.config",
    "EarDetectorTrainingConfig": "ear_teacher.detector.config",
    "EarDetectorLightning": "ear_teacher.detector.module",
    "EarDetectorDataModule": "ear_teacher.detector.datamodule",
    "EarDetectorLoss": "ear_teacher.detector.losses",
    "EarRecognizer": "ear_teacher.recognition.model",
    "EarRecognizerConfig": "ear_teacher.recognition.config",
    "EarRecognizerTrainingConfig": "ear_teacher.recognition.config",
    "EarRecognizerLightning": "ear_teacher.recognition.module",
    "EarRecognizerDataModule": "ear_teacher.recognition.datamodule",
    "EarRecognizerLoss": "ear_teacher.recognition.losses",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # on first use: `EarVAE` alone then needs no Lightning, and `python -m ear_teacher.model` is not imported twice
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
