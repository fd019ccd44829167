"""Eigenears of a trained ear VAE: `earface ears eigenears`, or `python -m ear_teacher.eigenears.create_eigenears`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: its folder is on the path, the project's is not
    FOLDER = Path(__file__).resolve().parent
    sys.path[0] = str(FOLDER.parent.parent)
    PATHS = "--(config|checkpoint|npy|factors|landmarker|data|cache|out)"
    if Path.cwd() in (FOLDER, FOLDER.parent) and not any(re.match(PATHS, each) for each in sys.argv):
        os.chdir(sys.path[0])  # where the default paths start

from ear_teacher.eigenears.config import RESULTS, EigenearOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import output_folder, require_path, require_trained, write_json
from earface.core.first_imports import first_imports
from earface.core.progress import progress


def results_folder(options: EigenearOptions, checkpoint: Path) -> Path:
    """Where results go. Raises InputError where some are that may not be replaced."""
    default = checkpoint.parent.parent / "eigenears"
    return output_folder(Path(options.out or default), RESULTS, options.overwrite)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EigenearOptions, argv, prog="earface ears eigenears")
    given = Path(options.checkpoint)
    if options.out or given.is_file():  # before PyTorch is loaded, which a pattern or a run's folder needs
        results_folder(options, given)
    require_trained(options.checkpoint)
    paths = [
        *(("--npy", path) for path in options.npy),
        ("--factors", options.factors),
        ("--landmarker", options.landmarker),
    ]
    for flag, path in paths:
        if path:
            require_path(path, f"give it by {flag}")
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from ear_teacher.eigenears.analysis import create_eigenears, find_factors
        from ear_teacher.eigenears.report import CONVENTION, print_report
        from ear_teacher.loading import load_run, open_ears
        from earface.data.ear_contract import EarAligner
        from earface.data.ear_networks import EarLandmarker
        from earface.nn.inference import choose_device

    device = choose_device(options.device)
    aligner = EarAligner("canonical", EarLandmarker(Path(options.landmarker) if options.landmarker else None))
    trained, run = load_run(options.checkpoint, device, options.weights)
    model, checkpoint = trained.model, trained.source
    out = results_folder(options, checkpoint)
    ears = open_ears(options.npy or run["train_npy"], "--npy", model, run, options.data_root, options.cache_dir)
    index, factors = find_factors(options, ears)

    console = Console()
    with progress(f"eigenears of {len(ears.names)} ears"):
        found, sentences = create_eigenears(model, ears, factors, aligner, out, options, device)
    results = {
        "checkpoint": str(checkpoint),
        "weights": options.weights,
        "npy": ears.source,
        "ears": len(ears.names),
        "factors": index,
        "metric": options.metric,
        "landmarker": aligner.contract.landmarks,
        "landmark_noise": found.landmark_noise,
        "first": found.first,
        "components": found.rows,
        "pixel_pca": found.pixel_pca.tolist(),
        "plain_pca_of_latents": found.plain.tolist(),
        "notes": sentences,
        "convention": CONVENTION,
    }
    write_json(out / "eigenears.json", results)  # last: it marks complete results
    print_report(console, found, options.metric)
    for note in sentences:
        console.print(f"[yellow]note[/] {note}", soft_wrap=True, highlight=False)
    shown = "pictures" if options.pictures else "plots"
    console.print(f"eigenears.json, CSVs and {shown}: {out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
