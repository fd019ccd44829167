"""Evaluate a trained ear detector: `earface ears detector evaluate`, or `python -m ear_teacher.detector.evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.detector.options import EVALUATION_RESULTS, EarDetectorEvaluationOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import output_folder, require_checkpoint, require_file, write_json
from earface.core.first_imports import first_imports
from earface.core.notices import warnings_given
from earface.core.progress import progress


def results_folder(options: EarDetectorEvaluationOptions, checkpoint: Path) -> Path:
    """Where results go. Raises InputError where some are that may not be replaced."""
    default = checkpoint.parent.parent / "evaluation" / checkpoint.stem
    return output_folder(Path(options.out or default), EVALUATION_RESULTS, options.overwrite)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarDetectorEvaluationOptions, argv, prog="earface ears detector evaluate")
    given = Path(options.checkpoint)
    if options.out or given.is_file():  # before PyTorch is loaded, which a pattern or a run's folder needs
        results_folder(options, given)
    require_checkpoint(options.checkpoint)
    if options.json is not None:
        require_file(options.json)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console
        from rich.markup import escape

        from ear_teacher.detector.evaluation import check_landmarks, evaluate
        from ear_teacher.detector.metrics.evaluation_set import open_source, trained_on, validated_on
        from ear_teacher.detector.metrics.report import CONVENTION, print_report
        from ear_teacher.detector.model import EarDetector
        from earface.data.data_digest import base_folder, photograph_pictures, refuse_trained_on
        from earface.nn.checkpoint import find_checkpoint, read_checkpoint
        from earface.nn.inference import choose_device

    device, checkpoint = choose_device(options.device), find_checkpoint(options.checkpoint)
    content = read_checkpoint(checkpoint)
    model = EarDetector.from_checkpoint(content, checkpoint, device, options.weights)
    run = content["hyper_parameters"]["options"]
    images = options.images or (run["images"] if options.json is None else None)
    out = results_folder(options, checkpoint)
    source = open_source(options.json or validated_on(run), images)
    check_landmarks(model, source.annotations)
    files = [*run["train_json"], *run["val_json"]] if options.json is None else [options.json]
    pictures = photograph_pictures(source.annotations.photographs, base_folder(files))
    refuse_trained_on(content.get("data"), pictures, str(source.annotations.source), options.json is None)

    console = Console()
    with progress("finding ears", len(source.annotations)) as state:
        found = evaluate(model, source, out, options, state.update)
    found["notes"] = trained_on(run, source.annotations) + found["notes"]
    made_of = {"checkpoint": str(checkpoint), "weights": options.weights, "json": str(source.annotations.source)}
    metrics = made_of | found | {"warnings": warnings_given(), "convention": CONVENTION}
    write_json(out / "metrics.json", metrics)  # last: it marks a complete evaluation
    print_report(console, metrics)
    for note in metrics["notes"]:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    console.print(f"metrics.json, tables and pictures: {escape(str(out))}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
