"""A super-resolver as an ONNX file, checked against the source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dsr.hub import image_contract
from dsr.inference import model_input
from dsr.model import DSR
from dsr.options import ONNX_FILE
from dsr.upscaling import read_small_faces
from earface.data.face_sizes import VLRRange, VLRSize
from earface.data.folders import pictures_at
from earface.export.losses import picture_loss
from earface.export.onnx_export import BATCHES, Difference, OnnxPart, write_parts
from earface.export.quantization import Calibration, Quantization, calibration_of
from earface.nn.inference import weights_digest

CHECK_SEED = 7


def write_onnx(
    folder: Path,
    model: DSR,
    tolerance: float,
    half: bool = False,
    opset: int | None = None,
    int8: Quantization | None = None,
) -> list[Difference]:
    """dsr.onnx: vlr (N, 3, h, w) -> sr (N, 3, 128, 128), both RGB in [-1, 1]. model: in evaluation mode, on the CPU.

    Of a range, h and w are its grid's, as the image contract says. The contract and the weights' digest are kept in the
    file. int8: of `calibration_faces`, writes dsr_int8.onnx, too. Raises InputError as `write_parts` does.
    """
    about = {
        "vlr_size": str(model.config.vlr),
        "image": json.dumps(image_contract(model.config)),
        "digest": weights_digest(model, str(model.config.vlr)),
    }
    size = model.config.vlr
    if isinstance(size, VLRRange):
        given = examples(VLRSize(model.config.grid, model.config.grid), max(BATCHES))
        given[1::2, :, size.low :], given[::3, :, :, size.low :] = torch.nan, torch.nan
    else:
        given = examples(size, max(BATCHES))
    part = OnnxPart(ONNX_FILE, model, given, "vlr", ("sr",))
    derived = None if int8 is None else int8.derived(ONNX_FILE, int8.calibration.inputs, picture_loss())
    return write_parts(folder, [part], tolerance, about, half, opset, derived)


def calibration_faces(model: DSR, source: str) -> Calibration:
    """Faces of a folder, as the ONNX file takes them. Raises InputError, also for too few."""
    paths = pictures_at(source)

    def read(rows: list[int]) -> tuple[Sequence[int], NDArray[np.float32]]:
        chosen = [paths[row] for row in rows]
        faces = read_small_faces(chosen, model.config.vlr)
        return [chosen.index(path) for path in faces.paths], model_input(faces.pixels, model.config).numpy()

    return calibration_of(source, [""] * len(paths), read)


def examples(size: VLRSize, count: int) -> Tensor:
    """Smooth pictures that reach both ends of [-1, 1], so that the result is clipped; a fourth of them noise."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 4.0 - 2.0
    faces = F.interpolate(coarse, (size.height, size.width), mode="bicubic").clamp(-1.0, 1.0)
    noise = torch.rand(faces.shape, generator=generator) * 2.0 - 1.0
    faces[::4] = noise[::4]
    return faces
