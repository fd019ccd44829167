"""The ear teacher: a variational autoencoder over ear crops, and what stands on its encoder."""

from typing import Any

__all__ = ["EarVAE", "EarVAELightning"]


def __getattr__(name: str) -> Any:
    # on first use: `EarVAE` alone then needs no Lightning, and `python -m ear_teacher.model` is not imported twice
    if name == "EarVAE":
        from ear_teacher.model import EarVAE

        return EarVAE
    if name == "EarVAELightning":
        from ear_teacher.module import EarVAELightning

        return EarVAELightning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
