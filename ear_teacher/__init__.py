"""The ear teacher: a variational autoencoder over ear crops, and what stands on its encoder."""

from ear_teacher.model import EarVAE
from ear_teacher.module import EarVAELightning

__all__ = ["EarVAE", "EarVAELightning"]
