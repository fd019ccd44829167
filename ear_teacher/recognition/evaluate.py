"""Evaluate a trained ear recogniser: `earface ears recognize evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.recognition.options import EVALUATION_RESULTS, FAILURES, EarRecognizerEvaluationOptions
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, remove_results, require_path, require_trained, write_json
from earface.core.first_imports import first_imports
from earface.core.notices import warnings_given


def results_folder(options: EarRecognizerEvaluationOptions, checkpoint: Path) -> Path:
    """Where results go. Raises InputError where some are that may not be replaced."""
    default = checkpoint.parent.parent / "evaluation" / checkpoint.stem
    return output_folder(Path(options.out or default), EVALUATION_RESULTS, options.overwrite)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarRecognizerEvaluationOptions, argv, prog="earface ears recognize evaluate")
    given = Path(options.checkpoint)
    if options.out or given.is_file():  # before PyTorch is loaded, which a pattern or a run's folder needs
        results_folder(options, given)
    require_trained(options.checkpoint)
    for path in options.npy:
        require_path(path)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from ear_teacher.recognition.evaluation import evaluate, save_failures
        from ear_teacher.recognition.loading import load_recognizer, open_test_ears
        from ear_teacher.recognition.report import print_report, results_of, write_per_ear
        from earface.nn.inference import choose_device

    device = choose_device(options.device)
    trained = load_recognizer(options.checkpoint, device, options.weights)
    files = options.npy or trained.val_npy
    if not files:
        raise InputError(f"{options.checkpoint}: an exported folder names no ears; give them by `npy`")
    out = results_folder(options, trained.source)
    console, results, notes = Console(), {}, []
    remove_results(out, FAILURES)
    for number, path in enumerate(files, 1):
        ears = open_test_ears(path, trained, options.data_root, options.cache_dir).evenly(options.per_subject)
        notes += trained.overlap(ears)
        found = evaluate(trained.model, ears, options.batch_size, options.replicates, device)
        suffix = f"_{number}" if len(files) > 1 else ""
        if options.pictures:
            save_failures(out / f"failures{suffix}.png", ears, found[0])
        write_per_ear(out / f"per_ear{suffix}.csv", ears, found[0])
        results[path] = results_of(ears, *found)
    about = {"checkpoint": str(trained.source), "weights": options.weights, "contract": trained.model.config.contract}
    metrics = about | {"files": results, "notes": notes, "warnings": warnings_given()}
    write_json(out / "metrics.json", metrics)  # last: it marks a complete evaluation
    print_report(console, results)
    for note in notes:
        console.print(f"[yellow]note[/] {note}", soft_wrap=True, highlight=False)
    files_written = "metrics.json, per_ear.csv and pictures" if options.pictures else "metrics.json and per_ear.csv"
    console.print(f"{files_written}: {out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
