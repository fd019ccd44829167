"""The ear teacher: a variational autoencoder over ear crops, and what stands on its encoder."""

from importlib import import_module
from typing import Any

_MODULES = {
    "EarVAE": "ear_teacher.model",
    "EarVAELightning": "ear_teacher.module",
    "EarDetector": "ear_teacher.detector.model",
    "EarDetectorLightning": "ear_teacher.detector.module",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # on first use: `EarVAE` alone then needs no Lightning, and `python -m ear_teacher.model` is not imported twice
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
