"""A fine-tuned recogniser as an ONNX file, checked against the source."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from earface.export.onnx_export import BATCHES, Difference, OnnxPart, write_parts
from earface.nn.inference import weights_digest
from facial_rec.contract import SIZE
from facial_rec.model import EdgeFace, unit
from facial_rec.options import ONNX_FILE

CHECK_SEED = 7


class Embedder(torch.nn.Module):
    """Faces (N, 3, 112, 112) in [-1, 1] -> embeddings (N, 512) of length 1."""

    def __init__(self, model: EdgeFace) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> Tensor:
        return unit(self.model(faces))


def write_onnx(
    folder: Path, model: EdgeFace, tolerance: float, half: bool = False, opset: int | None = None
) -> list[Difference]:
    """edgeface.onnx: faces (N, 3, 112, 112), as the contract gives them -> embeddings (N, 512) of length 1.

    The contract and the weights' digest are kept in the file. model: in evaluation mode, on the CPU.
    Raises InputError as `write_parts` does.
    """
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(max(BATCHES), 3, 8, 8, generator=generator) * 2.0 - 1.0
    faces = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    about = {"contract": model.provenance.contract, "variant": model.variant, "digest": weights_digest(model)}
    part = OnnxPart(ONNX_FILE, Embedder(model).eval(), faces, "faces", ("embeddings",))
    return write_parts(folder, [part], tolerance, about, half, opset)
