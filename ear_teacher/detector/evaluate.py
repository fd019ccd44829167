"""Measure a trained ear detector: `earface ears detector evaluate`, or `python -m ear_teacher.detector.evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ear_teacher.detector.evaluation import EvaluationOptions, check_landmarks, evaluate
from ear_teacher.detector.metrics.evaluation_set import open_source, trained_on, validated_on
from ear_teacher.detector.metrics.report import CONVENTION, print_report
from ear_teacher.detector.model import EarDetector
from ear_teacher.loading import located
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, write_json
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.inference import choose_device


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EvaluationOptions, argv, prog="earface ears detector evaluate")
    device = choose_device(options.device)
    checkpoint = find_checkpoint(located(options.checkpoint))
    model = EarDetector.load_from_checkpoint(str(checkpoint), device, options.weights)
    run = read_checkpoint(checkpoint)["hyper_parameters"]["options"]
    images = options.images or (run["images"] if options.json is None else None)
    source = open_source(options.json or validated_on(run), images and located(images))
    check_landmarks(model, source.annotations)
    out = output_folder(options.out, checkpoint.parent.parent / "evaluation" / checkpoint.stem)

    console, on_stderr = Console(), Console(stderr=True)
    try:
        with Progress(console=on_stderr, transient=True, disable=not on_stderr.is_terminal) as progress:
            task = progress.add_task("finding ears", total=len(source.annotations))
            found = evaluate(model, source, out, options, lambda count: progress.update(task, completed=count))
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    found["notes"] = trained_on(run, source.annotations) + found["notes"]
    made_of = {"checkpoint": str(checkpoint), "weights": options.weights, "json": str(source.annotations.source)}
    metrics = made_of | found | {"convention": CONVENTION}
    write_json(out / "metrics.json", metrics)  # last: with it the evaluation is complete
    print_report(console, metrics)
    for note in metrics["notes"]:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    console.print(f"metrics.json, tables and pictures: {escape(str(out))}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
