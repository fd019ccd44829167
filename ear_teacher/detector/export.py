"""A trained ear detector for other programs: `earface export detector`, or `python -m ear_teacher.detector.export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ear_teacher.detector.options import EarDetectorExportOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarDetectorExportOptions, argv, prog="earface export detector")
    options.check_files()
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from ear_teacher.detector.int8_boxes import calibration_photographs
        from ear_teacher.detector.model import EarDetector
        from ear_teacher.detector.onnx_export import write_onnx
        from earface.export.command import export_model
        from earface.export.onnx_export import require_onnx
        from earface.nn.inference import choose_device

    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model = EarDetector.load(options.checkpoint, weights=options.weights)
    export_model(
        options,
        model,
        lambda out, int8: write_onnx(out, model, options.tolerance, options.half, options.opset, int8),
        lambda source: calibration_photographs(model.config, source),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
