"""The pipeline: enrol, identify, and evaluate VLR probe -> DSR -> EdgeFace -> gallery."""

from importlib import import_module
from typing import Any

_MODULES = {
    "Gallery": "pipeline.gallery",
    "Recognizer": "pipeline.embedding",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # on first use: a gallery alone then needs no super-resolver
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
