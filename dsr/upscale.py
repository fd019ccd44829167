"""Small faces to 128x128 PNG files: `earface dsr upscale`, or `python -m dsr.upscale`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dsr.config import HR_SIZE
from dsr.options import COMPARISON, UpscaleOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_path, require_trained
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(UpscaleOptions, argv, prog="earface dsr upscale")
    require_path(options.input)
    require_trained(options.checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from dsr.model import DSR
        from dsr.upscaling import plan_targets, read_small_faces, write_comparison, write_faces
        from earface.data.aligned_faces import small_face_finder
        from earface.nn.inference import choose_device

    out = Path(options.out)
    targets = plan_targets(options.input, out, options.compare, options.overwrite)
    device = choose_device(options.device)
    model = DSR.load(options.checkpoint, device, options.weights)
    finder = small_face_finder(options) if options.photographs else None
    faces = read_small_faces(list(targets), model.config.vlr, finder)
    start = time.perf_counter()
    write_faces(model, faces, targets, device, options.precision, options.batch_size)
    if options.compare:
        write_comparison(model, faces, out / COMPARISON, device, options.precision)
    count, seconds = len(faces.paths), time.perf_counter() - start
    print(f"{count} faces in {seconds:.1f} s, {count / seconds:.0f} a second on {device}")
    if faces.skipped:
        print(f"{len(faces.skipped)} of {len(targets)} pictures cannot be used and are left out:")
        for path, reason in faces.skipped:
            print(f"  {path}: {reason}")
    print(f"{HR_SIZE}x{HR_SIZE} PNG{f', and {COMPARISON}' if options.compare else ''}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
