"""A trained ear VAE for other programs: `earface export ears`, or `python -m ear_teacher.export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ear_teacher.options import EarVAEExportOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarVAEExportOptions, argv, prog="earface export ears")
    options.check_files()
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from ear_teacher.calibration_ears import calibration_ears
        from ear_teacher.loading import load_trained
        from ear_teacher.onnx_export import write_onnx
        from earface.export.command import export_model
        from earface.export.onnx_export import require_onnx
        from earface.nn.inference import choose_device

    if options.format != "safetensors":
        require_onnx()
    trained = load_trained(options.checkpoint, choose_device("cpu"), options.weights)
    model = trained.model
    about = {"digest": trained.digest, "encoder": model.config.encoder}
    export_model(
        options,
        model,
        lambda out, int8: write_onnx(out, model, options.tolerance, options.half, options.opset, int8, **about),
        lambda source: calibration_ears(model.config, source),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
