"""A trained ear detector as ONNX files: for boxes of every place, for landmarks, and for detections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.detector.box_detector import BoxDetector
from ear_teacher.detector.detections_onnx import write_detections
from ear_teacher.detector.hub import image_contract, provenance
from ear_teacher.detector.int8_boxes import box_loss
from ear_teacher.detector.landmarker import Landmarker
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.options import ONNX_FILES
from earface.data.ear_networks import check_picture
from earface.data.pixels import to_model_range
from earface.export.onnx_export import BATCHES, Derive, Difference, OnnxPart, write_parts
from earface.export.quantization import Quantization

CHECK_SEED = 7


class BoxesPart(nn.Module):
    """images (B, C, S, S) in [-1, 1] -> boxes (B, N, 4), x1 y1 x2 y2 in pixels, and scores (B, N) in [0, 1]."""

    def __init__(self, network: BoxDetector) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.network(images)
        return boxes, logits.sigmoid()


class LandmarksPart(nn.Module):
    """crops (B, C, T, T) in [-1, 1] -> points (B, K, 2) in pixels and visibility (B, K) in [0, 1]."""

    def __init__(self, network: Landmarker) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        points, visibility, _ = self.network(crops)
        return points, visibility.sigmoid()


def write_onnx(
    folder: Path,
    model: EarDetector,
    tolerance: float,
    half: bool = False,
    opset: int | None = None,
    int8: Quantization | None = None,
) -> list[Difference]:
    """boxes.onnx, detector.onnx (what suppression leaves of them) and, with landmarks, landmarks.onnx; all or none.

    model: in evaluation mode, on the CPU. The files keep the image contract, the landmarks' names and the provenance.
    int8: of `calibration_photographs`, writes detector_int8.onnx, too.
    An earlier landmarks.onnx is deleted if this model has no landmarks. Raises InputError as `write_parts` does.
    """
    config = model.config
    squares = examples(config.in_channels, config.image_size, max(BATCHES))
    parts = [OnnxPart(ONNX_FILES[0], BoxesPart(model.boxes), squares, "images", ("boxes", "scores"))]
    if model.landmarks is not None:
        crops = examples(config.in_channels, config.crop_size, max(BATCHES))
        outputs = ("points", "visibility")
        parts.append(OnnxPart(ONNX_FILES[1], LandmarksPart(model.landmarks), crops, "crops", outputs))
    made = provenance(model.digest, model.score_threshold, model.suppression)
    checks = {part.file: check_values(part) for part in parts}
    kept = {"image": image_contract(config), "landmark_names": config.landmark_names, "check": checks, **made}
    metadata = {name: each if isinstance(each, str) else json.dumps(each) for name, each in kept.items()}

    def detections(made: Mapping[str, Path], out: Path) -> None:
        write_detections(made[ONNX_FILES[0]], out, model, squares.numpy())

    derived: dict[str, Derive] = {ONNX_FILES[2]: detections}
    if int8 is not None:
        derived |= int8.derived(ONNX_FILES[2], int8.calibration.inputs, box_loss(int8.calibration.boxes))
    differences = write_parts(folder, parts, tolerance, metadata, half, opset, derived)
    if model.landmarks is None:
        (folder / ONNX_FILES[1]).unlink(missing_ok=True)
    return differences


@torch.no_grad()
def check_values(part: OnnxPart) -> list[list[float]]:
    """Mean and standard deviation of each output for `check_picture`: what reads the file elsewhere can compare."""
    _, channels, side, _ = part.examples.shape
    picture = to_model_range(torch.from_numpy(check_picture(side, channels))[None])
    outputs = part.network.eval()(picture)
    return [[round(float(output.mean()), 4), round(float(output.std(correction=0)), 4)] for output in outputs]


def examples(channels: int, side: int, count: int) -> Tensor:
    """(count, channels, side, side) in [-1, 1]: smooth colours over the whole range, a fourth of them noise."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(count, channels, 6, 8, generator=generator) * 2.0 - 1.0
    images = F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1.0, 1.0)
    noise = torch.rand(images.shape, generator=generator) * 2.0 - 1.0
    images[::4] = noise[::4]
    return images
