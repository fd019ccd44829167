"""A trained ear VAE from a checkpoint or from a `save_pretrained` folder, and the digest that tells it from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ear_teacher.model import EarVAE
from ear_teacher.trained import located, trained_with
from training.checkpoint import find_checkpoint


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode and where it comes from."""

    model: EarVAE
    source: Path  # the checkpoint, or the folder
    weights: str  # averaged or raw; of a folder: exported
    digest: str  # see `weights_digest`
    run: dict[str, Any] | None  # the options it was trained with; a folder does not tell


def load_trained(path: str, device: str, weights: str) -> Trained:
    """path: a checkpoint, a pattern (the newest match), or a folder that `save_pretrained` wrote.

    Raises InputError for anything else.
    """
    path = located(path)
    if Path(path).is_dir():
        model = EarVAE.from_pretrained(path, map_location=device)
        return Trained(model, Path(path), "exported", weights_digest(model), None)
    checkpoint = find_checkpoint(path)
    run = trained_with(checkpoint)
    model = EarVAE.load_from_checkpoint(str(checkpoint), device, weights)
    return Trained(model, checkpoint, weights, weights_digest(model), run)


def weights_digest(model: EarVAE) -> str:
    """SHA-256 (64 hex digits) of the image size and of every weight's name, type, shape and bytes.

    A checkpoint and what is exported from it have the same; averaged and raw weights have not.
    """
    digest = hashlib.sha256(str(model.config.image_size).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
