"""A trained ear recogniser for other programs: `earface export recognizer`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ear_teacher.recognition.options import EarRecognizerExportOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_file
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarRecognizerExportOptions, argv, prog="earface export recognizer")
    options.check_files()
    if options.landmarker is not None:
        require_file(options.landmarker)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from ear_teacher.calibration_ears import calibration_ears
        from ear_teacher.recognition.model import EarRecognizer
        from ear_teacher.recognition.onnx_export import write_onnx
        from earface.data.ear_contract import landmarker_of
        from earface.export.command import export_model
        from earface.export.onnx_export import require_onnx
        from earface.nn.inference import choose_device

    if options.format != "safetensors":
        require_onnx()
    choose_device("cpu")
    model = EarRecognizer.load(options.checkpoint, weights=options.weights)
    landmarker = landmarker_of(model.config.contract, options.landmarker)
    export_model(
        options,
        model,
        lambda out, int8: write_onnx(out, model, landmarker, options.tolerance, options.half, options.opset, int8),
        lambda source: calibration_ears(model.config, source, options.landmarker),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
