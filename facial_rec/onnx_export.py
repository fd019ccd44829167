"""A fine-tuned recogniser as an ONNX file, checked against the source, and as an int8 one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.export.losses import embedding_loss
from earface.export.onnx_export import BATCHES, Difference, OnnxPart, write_parts
from earface.export.quantization import Calibration, Quantization, calibration_of
from earface.nn.embedding import embed_each, pictures_of
from earface.nn.inference import weights_digest
from facial_rec.contract import SIZE, FaceContract
from facial_rec.embedding import read_face
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
    folder: Path,
    model: EdgeFace,
    tolerance: float,
    half: bool = False,
    opset: int | None = None,
    int8: Quantization | None = None,
) -> list[Difference]:
    """edgeface.onnx: faces (N, 3, 112, 112), as the contract gives them -> embeddings (N, 512) of length 1.

    The contract and the weights' digest are kept in the file. model: in evaluation mode, on the CPU. int8: of
    `calibration_faces`, writes edgeface_int8.onnx, too.
    Raises InputError as `write_parts` does.
    """
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(max(BATCHES), 3, 8, 8, generator=generator) * 2.0 - 1.0
    faces = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    about = {"contract": model.provenance.contract, "variant": model.variant, "digest": weights_digest(model)}
    part = OnnxPart(ONNX_FILE, Embedder(model).eval(), faces, "faces", ("embeddings",))
    derived = None
    if int8 is not None:
        given = int8.calibration
        derived = int8.derived(ONNX_FILE, given.inputs, embedding_loss(given.people))
    return write_parts(folder, [part], tolerance, about, half, opset, derived)


def calibration_faces(model: EdgeFace, source: str) -> Calibration:
    """Aligned faces of a folder, whose first folders are the people. Raises InputError, also for too few."""
    pictures, contract = pictures_of(source), FaceContract(model.provenance.crop)

    def read(rows: list[int]) -> tuple[Sequence[int], NDArray[np.float32]]:
        found = embed_each(
            [pictures[row] for row in rows], lambda path: read_face(path, contract), lambda faces: faces.flatten(1)
        )
        return found.kept, found.embeddings.reshape(-1, 3, SIZE, SIZE)

    return calibration_of(source, [each.identity for each in pictures], read)
