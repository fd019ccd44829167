"""Synthetic ears of an anatomical model, so that every trainer runs without a download.

    earface ears synthesize --out runs/synthetic_ears --subjects 200 --images-per-subject 10

Each picture follows from (seed, subject, picture) alone.
The factors and their ranges: `earface/synthetic/ear_factors.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import refuse_to_replace, require_empty
from earface.core.first_imports import first_imports
from earface.synthetic.options import SyntheticEarOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(SyntheticEarOptions, argv, prog="earface ears synthesize")
    out = Path(options.out)
    require_empty(out, options.overwrite)
    image_grid = [] if options.image_grid is None else [Path(options.image_grid)]
    refuse_to_replace(image_grid, options.overwrite, "`image_grid`")
    # after parsing: help and a mistyped flag answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.synthetic.ear_set import EarSet, write_ear_set, write_image_grid
        from earface.synthetic.workers import num_cores, picture_progress

    ears = EarSet(options.subjects, options.images_per_subject, options.image_size, options.seed, options.variation)
    with picture_progress(ears.subjects * ears.images_per_subject) as done:
        lines = write_ear_set(
            out,
            ears,
            val_fraction=options.val_fraction,
            num_workers=options.num_workers or num_cores(),
            overwrite=options.overwrite,
            done=done,
        )
    for path in image_grid:
        write_image_grid(path, ears)
        lines.append(f"image grid: {path}")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
