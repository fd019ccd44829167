"""Evaluate recognisers on low-resolution faces: `earface faces evaluate`, or `python -m facial_rec.evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import atomic_write, output_folder, require_checkpoint, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.notices import warnings_given
from earface.data.face_folders import require_face_set
from earface.data.face_sizes import parse_vlr_size
from facial_rec.config import parse_upsamplers
from facial_rec.options import METRICS, EdgeFaceEvaluationOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EdgeFaceEvaluationOptions, argv, prog="earface faces evaluate")
    for name in options.recognizer:
        if name.endswith(".ckpt"):
            require_checkpoint(name)
    if "dsr" in parse_upsamplers(options.upsampler):
        require_trained(options.dsr_checkpoint)
    require_face_set(options.dataset_root)
    out = output_folder(Path(options.out), [METRICS], options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from dsr.upsampler import build_upsamplers
        from earface.data.face_dataset import evaluation_faces, usable_faces
        from earface.data.face_sizes import HR
        from earface.nn.inference import choose_device
        from facial_rec.evaluation import CONVENTION, measure, print_table
        from facial_rec.recognizer import load_recognizer

    device = choose_device(options.device)
    with Needed() as needed:
        recognizers = {
            name: needed(
                partial(load_recognizer, name, options.crop, device),
                f"--recognizer FILE (the authors' {name}.pt)",
            )
            for name in options.recognizer
        }
        names = parse_upsamplers(options.upsampler)
        upsamplers = needed(lambda: build_upsamplers(names, options.dsr_checkpoint, options.vlr_size, device))
    known = {Path(name): each.trained_on for name, each in recognizers.items()}
    known |= {Path(options.dsr_checkpoint): upsampler.trained_on for upsampler in upsamplers if upsampler.name == "dsr"}
    rows = evaluation_faces(options.dataset_root, options.split, known)
    rows = usable_faces(rows, parse_vlr_size(options.vlr_size) if options.degradation == "files" else None)
    found = measure(recognizers, upsamplers, rows, options)
    people = len({row.identity for row in rows})
    content = {
        "faces": len(rows),
        "identities": people,
        **{name: getattr(options, name) for name in ("vlr_size", "degradation", "upsampler", "dsr_checkpoint")},
        "convention": CONVENTION,
        "figures": found,
        "warnings": warnings_given(),
    }
    with atomic_write(out / METRICS) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    title = f"{options.vlr_size} px, {options.degradation}: {len(rows)} faces of {people} identities"
    print_table(title, found, [HR, *(upsampler.name for upsampler in upsamplers)])
    Console().print(f"{METRICS}: {options.out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
