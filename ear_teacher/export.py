"""A trained ear VAE for other programs: `earface export ears`, or `python -m ear_teacher.export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ear_teacher.loading import load_trained
from ear_teacher.onnx_export import ONNX_FILES, write_onnx
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option
from earface.export.command import CHECKPOINT_HELP, ExportOptions, export_model
from earface.export.onnx_export import require_onnx
from earface.nn.inference import choose_device


@dataclass(frozen=True)
class EarExportOptions(ExportOptions):
    """Write a trained ear VAE as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = ONNX_FILES

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", CHECKPOINT_HELP)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarExportOptions, argv, prog="earface export ears")
    if options.format != "safetensors":
        require_onnx()
    trained = load_trained(options.checkpoint, choose_device("cpu"), options.weights)
    model = trained.model
    about = {"digest": trained.digest, "encoder": model.config.encoder}
    export_model(options, model.save_pretrained, lambda out: write_onnx(out, model, options.tolerance, **about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
