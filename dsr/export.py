"""A trained face super-resolver for other programs: `python -m dsr.export`, or `python dsr/export.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import torch.nn.functional as F
from torch import Tensor

from dsr.hub import image_contract
from dsr.model import DSR, load_dsr
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option
from earface.data.degradation import VLRSize
from earface.export.command import CHECKPOINT_HELP, ExportOptions, export_model
from earface.export.onnx_export import BATCHES, Difference, OnnxPart, require_onnx, write_parts
from earface.nn.inference import choose_device, weights_digest

ONNX_FILE = "dsr.onnx"
CHECK_SEED = 7


@dataclass(frozen=True)
class DSRExportOptions(ExportOptions):
    """Write a trained face super-resolver as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (ONNX_FILE,)

    checkpoint: str = option("dsr/checkpoints/last.ckpt", CHECKPOINT_HELP)


def write_onnx(folder: Path, model: DSR, tolerance: float) -> list[Difference]:
    """dsr.onnx: vlr (N, 3, h, w) -> sr (N, 3, 128, 128), both RGB in [-1, 1]. model: in evaluation mode, on the CPU.

    The image contract and the weights' digest are kept in the file. Raises InputError as `write_parts` does.
    """
    about = {
        "vlr_size": str(model.config.vlr),
        "image": json.dumps(image_contract(model.config)),
        "digest": weights_digest(model, str(model.config.vlr)),
    }
    part = OnnxPart(ONNX_FILE, model, examples(model.config.vlr, max(BATCHES)), "vlr", ("sr",))
    return write_parts(folder, [part], tolerance, about)


def examples(size: VLRSize, count: int) -> Tensor:
    """Smooth pictures that reach both ends of [-1, 1], so that the result is clipped; a fourth of them noise."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 4.0 - 2.0
    faces = F.interpolate(coarse, (size.height, size.width), mode="bicubic").clamp(-1.0, 1.0)
    noise = torch.rand(faces.shape, generator=generator) * 2.0 - 1.0
    faces[::4] = noise[::4]
    return faces


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(DSRExportOptions, argv, prog="python -m dsr.export")
    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model = load_dsr(options.checkpoint, weights=options.weights)
    export_model(options, model.save_pretrained, lambda out: write_onnx(out, model, options.tolerance))
    return 0


if __name__ == "__main__":
    sys.exit(main())
