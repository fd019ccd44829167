"""The pipeline: enrol, identify, and evaluate VLR probe -> DSR -> EdgeFace -> gallery."""

from importlib import import_module
from typing import Any

import earface  # noqa: F401  # first: Ctrl-C during the imports of a program is one line

_NAMES = {
    "Gallery": ("pipeline.gallery", "Gallery"),
    "Recognizer": ("facial_rec.recognizer", "FaceRecognizer"),
    "load_recognizer": ("pipeline.recognizers", "load_any"),
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    # on first use: a gallery alone then needs no super-resolver
    if name in _NAMES:
        module, original = _NAMES[name]
        return getattr(import_module(module), original)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
