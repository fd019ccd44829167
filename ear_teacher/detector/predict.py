"""Detect ears in photographs: `earface ears detector predict --input photographs/ --out detections`.

detections.json   boxes and landmarks as COCO keypoints: to correct in an annotation tool and train on
results.json      the same ears, by the same ids, with their scores, in COCO's form of results
overlays/         the photographs with the detections drawn in, under the names of the input
crops/            with --crops: each ear as a PNG, for earface ears extract and earface ears prepare
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from ear_teacher.detector.options import CROPS, DETECTIONS, OVERLAYS, RESULTS, PredictionOptions
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.progress import progress


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(PredictionOptions, argv, prog="earface ears detector predict")
    assert options.input is not None  # checked there
    require_path(options.input)
    require_trained(options.checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from ear_teacher.detector.model import EarDetector
        from ear_teacher.detector.prediction import (
            checked_out,
            photographs_of,
            predict_photographs,
            say,
            write_predictions,
        )
        from earface.nn.inference import choose_device

    root, paths = photographs_of(options.input)
    out = checked_out(options)
    device = choose_device(options.device)
    model = EarDetector.load(options.checkpoint, device, options.weights)
    model.score_threshold = options.score_threshold

    console = Console()
    start = time.perf_counter()
    with progress("finding ears", len(paths)) as state:
        found = predict_photographs(model, paths, root, out, options, state)
    seconds = time.perf_counter() - start
    if len(found.unreadable) == len(paths):
        path, reason = found.unreadable[0]
        others = (
            f" (and {len(paths) - 1} more: none of the {len(paths)} pictures can be read)" if len(paths) > 1 else ""
        )
        raise InputError(f"{path}: {reason}{others}")
    write_predictions(out, found, model)
    if found.unreadable:
        say(console, f"{len(found.unreadable)} of {len(paths)} pictures cannot be read and are left out:")
        for path, reason in found.unreadable:
            say(console, f"  {path}: {reason}")
    say(console, f"{out / DETECTIONS}, {RESULTS}{f', {OVERLAYS}/' * options.overlays}{f', {CROPS}/' * options.crops}")
    empty = sum(not len(photograph.boxes) for photograph in found.photographs)
    say(
        console,
        f"photographs {len(paths)}, ears {len(found.scores)}, without ears {empty}, unreadable {len(found.unreadable)} "
        f"({len(paths) / seconds:.1f} photographs/s on {device})",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
