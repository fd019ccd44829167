"""Face recognition: EdgeFace, the face contract of every embedding, and tables of embeddings."""

from importlib import import_module
from typing import Any

import earface  # noqa: F401  # first: Ctrl-C during the imports of a program is one line

_MODULES = {
    "EdgeFace": "facial_rec.model",
    "EdgeFaceConfig": "facial_rec.config",
    "EdgeFaceTrainingConfig": "facial_rec.config",
    "EdgeFaceLightning": "facial_rec.module",
    "EdgeFaceDataModule": "facial_rec.datamodule",
    "EdgeFaceLoss": "facial_rec.losses",
    "FaceContract": "facial_rec.contract",
    "FaceRecognizer": "facial_rec.recognizer",
    "load_recognizer": "facial_rec.recognizer",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # on first use: the contract alone then needs no timm
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
