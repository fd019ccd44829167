"""Evaluate a trained ear VAE: `earface ears evaluate`, or `python -m ear_teacher.evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.options import EVALUATION_RESULTS, EarVAEEvaluationOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import output_folder, require_path, require_trained, write_json
from earface.core.first_imports import first_imports
from earface.core.notices import warnings_given
from earface.core.progress import progress


def results_folder(options: EarVAEEvaluationOptions, checkpoint: Path) -> Path:
    """Where results go. Raises InputError where some are that may not be replaced."""
    default = checkpoint.parent.parent / "evaluation" / checkpoint.stem
    return output_folder(Path(options.out or default), EVALUATION_RESULTS, options.overwrite)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarVAEEvaluationOptions, argv, prog="earface ears evaluate")
    given = Path(options.checkpoint)
    if options.out or given.is_file():  # before PyTorch is loaded, which a pattern or a run's folder needs
        results_folder(options, given)
    require_trained(options.checkpoint)
    for flag, paths in (("--train-npy", options.train_npy), ("--val-npy", options.val_npy)):
        for path in paths:
            require_path(path, f"give the ears by {flag}")
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from ear_teacher.evaluation import evaluate
        from ear_teacher.loading import load_run, open_ears
        from ear_teacher.metrics.report import CONVENTION, print_report
        from earface.data.data_digest import base_folder, ear_pictures, refuse_trained_on
        from earface.data.npy import read_teacher_npy
        from earface.metrics.image_quality import warn_if_too_good
        from earface.nn.inference import choose_device

    device = choose_device(options.device)
    trained, run = load_run(options.checkpoint, device, options.weights)
    model, checkpoint = trained.model, trained.source
    out = results_folder(options, checkpoint)
    folders = options.data_root, options.cache_dir
    train = open_ears(options.train_npy or run["train_npy"], "--train-npy", model, run, *folders)
    val = open_ears(options.val_npy or run["val_npy"], "--val-npy", model, run, *folders)
    own = (*run["train_npy"], *run["val_npy"])
    for file in val.files:
        of_the_run = file.source in run["val_npy"]
        base = base_folder(own if of_the_run else [file.source])
        data = read_teacher_npy(file.source, options.data_root or run["data_root"])
        pictures = ear_pictures(data, base, apart_by_folder=len(own) > 2)
        refuse_trained_on(trained.data, pictures, file.source, of_the_run)

    console = Console()
    with progress(f"evaluating {len(val.names)} ears"):
        found = evaluate(model, train, val, out, options, device)
    warn_if_too_good(found["psnr"], val.source)
    made_of = {"checkpoint": str(checkpoint), "weights": options.weights, "train_npy": train.source}
    metrics = made_of | {"val_npy": val.source} | found | {"warnings": warnings_given(), "convention": CONVENTION}
    write_json(out / "metrics.json", metrics)  # last: it marks a complete evaluation
    print_report(console, metrics)
    for note in metrics["notes"]:
        console.print(f"[yellow]note[/] {note}", soft_wrap=True, highlight=False)
    shown = "pictures" if options.pictures else "plots"
    console.print(f"metrics.json, per_image.csv and {shown}: {out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
