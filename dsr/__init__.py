"""DSR: very-low-resolution faces to 128x128, trained so that a face recogniser still sees the same person."""

from importlib import import_module
from typing import Any

import earface  # noqa: F401  # first: Ctrl-C during the imports of a program is one line

_MODULES = {
    "DSR": "dsr.model",
    "DSRConfig": "dsr.config",
    "DSRTrainingConfig": "dsr.config",
    "DSRLightning": "dsr.module",
    "DSRDataModule": "dsr.datamodule",
    "DSRLoss": "dsr.losses",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # on first use: `DSR` alone then needs no Lightning
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
