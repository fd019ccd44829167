"""A trained ear recogniser as an ONNX file, beside what brings a photograph into the form of its ears."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.recognition.ear_form import ear_form
from ear_teacher.recognition.hub import image_contract
from ear_teacher.recognition.model import EarRecognizer
from ear_teacher.recognition.options import FORM, LANDMARKS, RECOGNIZER
from earface.core.files import atomic_write, write_json
from earface.data.ear_networks import EarLandmarker
from earface.export.losses import embedding_loss
from earface.export.onnx_export import BATCHES, Difference, OnnxPart, write_parts
from earface.export.quantization import Quantization

CHECK_SEED = 7


class Embedder(nn.Module):
    """Ears (B, 3, S, S) in [-1, 1] -> embeddings (B, D) of length 1, averaged over the flip."""

    def __init__(self, model: EarRecognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ears: Tensor) -> Tensor:
        return self.model.embeddings(ears)


def write_onnx(
    folder: Path,
    model: EarRecognizer,
    landmarker: EarLandmarker | None,
    tolerance: float,
    half: bool = False,
    opset: int | None = None,
    int8: Quantization | None = None,
) -> list[Difference]:
    """recognizer.onnx; landmarks.onnx, a copy of the landmarker's file; and ear_form.json, all or none.

    model: in evaluation mode, on the CPU. landmarker: of its contract; None: its ears are not aligned, and an earlier
    landmarks.onnx is deleted. int8: of `calibration_ears`, writes recognizer_int8.onnx, too. Raises
    InputError as `write_parts` does.
    """
    size, provenance = model.config.image_size, model.saved_provenance()
    coarse = torch.rand(max(BATCHES), 3, 8, 8, generator=torch.Generator().manual_seed(CHECK_SEED)) * 2.0 - 1.0
    ears = F.interpolate(coarse, (size, size), mode="bilinear")
    part = OnnxPart(RECOGNIZER, Embedder(model).eval(), ears, "ears", ("embeddings",))
    about = {"digest": provenance["digest"], "licence": provenance["licence"]}
    image = json.dumps(image_contract(model.config))
    metadata = {"contract": model.config.contract, "image": image, **about}
    derived = None
    if int8 is not None:
        derived = int8.derived(RECOGNIZER, int8.calibration.inputs, embedding_loss(int8.calibration.people))
    differences = write_parts(folder, [part], tolerance, metadata, half, opset, derived)
    if landmarker is None:
        (folder / LANDMARKS).unlink(missing_ok=True)
    else:
        with atomic_write(folder / LANDMARKS) as temporary:
            shutil.copyfile(landmarker.network.path, temporary)
    form = {"recognizer": {"file": RECOGNIZER, **about}, **ear_form(model.config, landmarker)}
    write_json(folder / FORM, form)  # last: it marks a complete export
    return differences
