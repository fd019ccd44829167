"""A fine-tuned recogniser for other programs: `earface export edgeface`, or `python -m facial_rec.export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from facial_rec.options import EdgeFaceExportOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EdgeFaceExportOptions, argv, prog="earface export edgeface")
    options.check_files()
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from earface.export.command import export_model
        from earface.export.onnx_export import require_onnx
        from earface.nn.inference import choose_device
        from facial_rec.model import EdgeFace
        from facial_rec.onnx_export import calibration_faces, write_onnx

    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model = EdgeFace.load(options.checkpoint, weights=options.weights)
    export_model(
        options,
        model,
        lambda out, int8: write_onnx(out, model, options.tolerance, options.half, options.opset, int8),
        lambda source: calibration_faces(model, source),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
