"""A tuned recogniser for other programs: `python -m facial_rec.export`, or `python facial_rec/export.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option
from earface.export.command import CHECKPOINT_HELP, ExportOptions, export_model
from earface.export.onnx_export import BATCHES, Difference, OnnxPart, require_onnx, write_parts
from earface.nn.inference import choose_device, weights_digest
from facial_rec.contract import SIZE
from facial_rec.hub import Tuning, load_tuned, save_tuned
from facial_rec.model import EdgeFace, unit

ONNX_FILE = "edgeface.onnx"
CHECK_SEED = 7


@dataclass(frozen=True)
class EdgeFaceExportOptions(ExportOptions):
    """Write a tuned recogniser as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (ONNX_FILE,)

    checkpoint: str = option("facial_rec/checkpoints/tuned", CHECKPOINT_HELP)


class Embedder(torch.nn.Module):
    """Faces (N, 3, 112, 112) in [-1, 1] -> embeddings (N, 512) of length 1."""

    def __init__(self, model: EdgeFace) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> Tensor:
        return unit(self.model(faces))


def write_onnx(folder: Path, model: EdgeFace, tuning: Tuning, tolerance: float) -> list[Difference]:
    """edgeface.onnx: faces (N, 3, 112, 112), as the contract gives them -> embeddings (N, 512) of length 1.

    The contract and the weights' digest are kept in the file. model: in evaluation mode, on the CPU.
    Raises InputError as `write_parts` does.
    """
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(max(BATCHES), 3, 8, 8, generator=generator) * 2.0 - 1.0
    faces = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    about = {"contract": tuning.contract, "variant": tuning.variant, "digest": weights_digest(model)}
    part = OnnxPart(ONNX_FILE, Embedder(model).eval(), faces, "faces", ("embeddings",))
    return write_parts(folder, [part], tolerance, about)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EdgeFaceExportOptions, argv, prog="python -m facial_rec.export")
    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model, tuning = load_tuned(options.checkpoint, options.weights)
    export_model(
        options,
        lambda out: save_tuned(out, model, tuning),
        lambda out: write_onnx(out, model, tuning, options.tolerance),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
