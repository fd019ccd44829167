"""A trained face super-resolver for other programs: `earface export dsr`, or `python -m dsr.export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


from dsr.model import load_dsr
from dsr.onnx_export import ONNX_FILE, write_onnx
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option
from earface.export.command import CHECKPOINT_HELP, ExportOptions, export_model
from earface.export.onnx_export import require_onnx
from earface.nn.inference import choose_device


@dataclass(frozen=True)
class DSRExportOptions(ExportOptions):
    """Write a trained face super-resolver as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (ONNX_FILE,)

    checkpoint: str = option("dsr/checkpoints/last.ckpt", CHECKPOINT_HELP)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(DSRExportOptions, argv, prog="earface export dsr")
    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model = load_dsr(options.checkpoint, weights=options.weights)
    export_model(options, model.save_pretrained, lambda out: write_onnx(out, model, options.tolerance))
    return 0


if __name__ == "__main__":
    sys.exit(main())
