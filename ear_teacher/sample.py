"""New ears from a trained ear VAE: `earface ears sample`, or `python -m ear_teacher.sample`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.options import EarSamplingOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_empty, require_file, require_trained
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarSamplingOptions, argv, prog="earface ears sample")
    out = Path(options.out or "")
    require_empty(out, options.overwrite)
    require_trained(options.checkpoint)
    if options.landmarker:
        require_file(options.landmarker)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from ear_teacher.loading import load_trained
        from ear_teacher.sampling import write_samples
        from earface.nn.inference import choose_device

    device = choose_device(options.device)
    trained = load_trained(options.checkpoint, device, options.weights)
    print("\n".join(write_samples(trained.model, out, options, device, str(trained.source))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
