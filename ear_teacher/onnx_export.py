"""A trained ear VAE as two ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from ear_teacher.hub import FROM_FACES, image_contract
from ear_teacher.model import EarVAE
from ear_teacher.options import ONNX_FILES
from earface.data.pixels import to_model_range
from earface.export.losses import embedding_loss, picture_loss
from earface.export.onnx_export import BATCHES, Derive, Difference, OnnxPart, write_parts
from earface.export.quantization import Quantization

CHECK_SEED = 7


class EncoderPart(nn.Module):
    """images (N, C, S, S) in [-1, 1] -> mu, logvar, each (N, D)."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.model.encoder(images)
        return mu, logvar


class DecoderPart(nn.Module):
    """latent (N, D) -> images (N, C, S, S) in [-1, 1]."""

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


def write_onnx(
    folder: Path,
    model: EarVAE,
    tolerance: float,
    half: bool = False,
    opset: int | None = None,
    int8: Quantization | None = None,
    **metadata: str,
) -> list[Difference]:
    """encoder.onnx and decoder.onnx, both or neither. model: in evaluation mode, on the CPU.

    int8: of `calibration_ears`, writes an int8 file of each, too. metadata: kept in the files beside the image
    contract. Raises InputError as `write_parts` does.
    """
    images, latents = _examples(model)
    parts = [
        OnnxPart(ONNX_FILES[0], EncoderPart(model), images, "images", ("mu", "logvar")),
        OnnxPart(ONNX_FILES[1], DecoderPart(model), latents, "latent", ("images",)),
    ]
    config = model.config
    about = {"latent_dim": str(config.latent_dim), "image": json.dumps(image_contract(config))}
    about |= {"identity_dim": str(config.identity_dim)} if config.identity_dim else {}
    about |= ({"licence": FROM_FACES} if model.from_faces else {}) | metadata
    derived = None if int8 is None else _int8_files(model, int8)
    return write_parts(folder, parts, tolerance, about, half, opset, derived)


@torch.no_grad()
def _int8_files(model: EarVAE, int8: Quantization) -> dict[str, Derive]:
    """The encoder is judged by mu, the decoder by the pictures that it makes of the float encoder's mu."""
    ears = int8.calibration.inputs
    latents = torch.cat([model.encode(to_model_range(part)) for part in torch.from_numpy(ears).split(64)]).numpy()
    encoder = int8.derived(ONNX_FILES[0], ears, embedding_loss())
    return encoder | int8.derived(ONNX_FILES[1], latents, picture_loss(ears))


@torch.no_grad()
def _examples(model: EarVAE) -> tuple[Tensor, Tensor]:
    """Images sampled from the model, a fourth of them noise, and latents: realistic inputs of both parts."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    images = model.sample(max(BATCHES), "prior" if model.posterior is None else "posterior", generator)
    noise = torch.rand(images.shape, generator=generator) * 2.0 - 1.0
    images[::4] = noise[::4]
    return images, model.encode(images)
