"""Pictures as Python code gives them to embeddings, by a recogniser of faces or of ears."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from earface.core.errors import InputError
from earface.data.given import Picture, Pictures, each_picture
from pipeline.quality import Quality
from pipeline.recognizers import Recognizer


def _embedded(recognizer: Recognizer, pictures: Pictures, detector: str | PathLike[str] | None) -> Tensor:
    """(N, D). Raises InputError for a picture that cannot be used, and for a detector of faces where ears are given."""
    if recognizer.modality == "face":
        return recognizer.embed(pictures, detector=detector)
    _refuse_detector(detector)
    return recognizer.embed(pictures)


def measured(
    recognizer: Recognizer, pictures: Pictures, detector: str | PathLike[str] | None
) -> tuple[Tensor, Quality]:
    """The same, and the quality of each picture."""
    if recognizer.modality == "face":
        embeddings, quality = recognizer.embed_measured(pictures, detector=detector)
    else:
        _refuse_detector(detector)
        embeddings, quality = recognizer.embed_measured(pictures)
    return embeddings, {name: own.numpy() for name, own in quality.items()}


def _refuse_detector(detector: str | PathLike[str] | None) -> None:
    if detector is not None:
        raise InputError(f"`detector` {detector}: finds faces, and the recogniser is one of ears")


def embedded_together(
    recognizer: Recognizer, given: Sequence[Pictures], detector: str | PathLike[str] | None
) -> Tensor:
    """The same of several people's pictures, with one warning for all."""
    if any(isinstance(own, Tensor) and own.is_floating_point() for own in given):  # not a picture, but a model's input
        return torch.cat([_embedded(recognizer, own, detector) for own in given])
    return _embedded(recognizer, [picture for own in given for _, picture in each_picture(own)], detector)


def written(name: str, picture: Picture) -> str:
    return str(Path(picture).resolve()) if isinstance(picture, str | PathLike) else name
