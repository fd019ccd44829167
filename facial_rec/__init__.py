"""Face recognition: EdgeFace, the face contract that every embedding is made by, and tables of embeddings."""

from importlib import import_module
from typing import Any

_MODULES = {
    "EdgeFace": "facial_rec.model",
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
