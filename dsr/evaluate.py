"""Evaluate face super-resolvers beside bicubic interpolation: `earface dsr evaluate`, or `python -m dsr.evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dsr.options import FACES, RESULTS, DSREvaluationOptions
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import is_exported, output_folder, remove_results, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.data.face_folders import require_face_set


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(DSREvaluationOptions, argv, prog="earface dsr evaluate")
    for given in options.checkpoint:
        require_trained(given)
    require_face_set(options.dataset_root)
    out = output_folder(Path(options.out), RESULTS, options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from dsr.evaluation import EvaluationFaces, evaluate, report, save_faces, short_names
        from dsr.model import DSR
        from earface.data.face_dataset import evaluation_faces
        from earface.nn.checkpoint import find_checkpoint
        from earface.nn.inference import choose_device
        from facial_rec.recognizer import load_frozen_recognizers

    device = choose_device(options.device)
    paths = [Path(given) if is_exported(given) else find_checkpoint(given) for given in options.checkpoint]
    with Needed() as needed:
        models = [needed(partial(DSR.load, path, device, options.weights)) for path in paths]
        recognizers = load_frozen_recognizers(options, needed)
    shape = models[0].config
    if options.vlr_size is not None:
        shape = replace(shape, vlr_size=options.vlr_size)
    for path, model in zip(paths, models, strict=True):
        if not model.config.vlr.takes(shape.vlr):
            taken = f"{path}: takes {model.config.vlr_size} px"
            if options.vlr_size is not None:
                raise InputError(f"{taken}, not {options.vlr_size}: give another `vlr_size`")
            raise InputError(f"{taken} and {paths[0]} {shape.vlr_size}; give one size at a time")
    names = short_names(paths)
    known = {path: frozenset(model.provenance.trained_on) for path, model in zip(paths, models, strict=True)}
    rows = evaluation_faces(options.dataset_root, options.split, known)
    faces = EvaluationFaces(rows, shape, options.degradation or models[0].provenance.degradation or "bicubic", options)
    known_by = [each for each in recognizers if each is not None]
    methods = dict(zip(names, models, strict=True))
    found = evaluate(methods, faces, known_by, out)
    if options.pictures:
        save_faces(out / FACES, methods, faces)
    else:
        remove_results(out, [FACES])
    report(found, faces, dict(zip(names, map(str, paths), strict=True)), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
