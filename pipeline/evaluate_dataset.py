"""Does VLR -> DSR -> EdgeFace find the right person? `earface evaluate`, or `python -m pipeline.evaluate_dataset`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.progress import progress
from earface.data.face_folders import require_face_set
from pipeline.options import AUTO, FILES, NONE, RESULTS, USUAL_DSR, USUAL_FINETUNED, PipelineEvaluationOptions

if TYPE_CHECKING:
    from rich.console import Console

    from facial_rec.recognizer import FaceRecognizer
    from pipeline.configurations import Models
    from pipeline.protocol import Protocol

TABLE_WIDTH = 150


def check_files(options: PipelineEvaluationOptions) -> None:
    """Raise InputError for faces or a super-resolver that are not there."""
    lists = [path for path in (options.gallery, options.probes, options.pairs) if path is not None]
    for path in lists:
        require_path(path)
    if options.gallery is None:
        require_face_set(options.dataset_root)
    for path in given(options.dsr_checkpoint, USUAL_DSR):
        require_trained(path)


def protocol_of(options: PipelineEvaluationOptions) -> Protocol:
    from pipeline.protocol import GalleryRule, from_dataset, from_lists, from_pairs

    if options.pairs is not None:
        return from_pairs(options.dataset_root, options.pairs)
    if options.gallery is not None and options.probes is not None:
        return from_lists(options.gallery, options.probes, options.calibration_fraction, options.seed)
    rule = GalleryRule(options.gallery_camera, options.gallery_illumination, options.gallery_recording)
    return from_dataset(options.dataset_root, rule, options.calibration_fraction, options.seed)


def given(names: Sequence[str], usual: str) -> list[str]:
    """The models that are named; `auto`: the usual one if it is there."""
    if list(names) == [AUTO]:
        return [usual] if Path(usual).exists() else []
    return [] if list(names) == [NONE] else list(names)


def load_models(options: PipelineEvaluationOptions, device: str) -> Models:
    """Raises InputError also for a recogniser in the place of a fine-tuned one that was not finetuned."""
    from dsr.upsampler import super_resolution
    from facial_rec.recognizer import load_recognizer
    from pipeline.configurations import Models

    def recognizer(name: str) -> FaceRecognizer:
        return load_recognizer(name, options.crop, device, options.precision)

    with Needed() as needed:
        pretrained = needed(
            lambda: recognizer(options.recognizer), f"--recognizer FILE (the authors' {options.recognizer}.pt)"
        )
        finetuned = [needed(partial(recognizer, name)) for name in given(options.finetuned, USUAL_FINETUNED)]
        names = given(options.dsr_checkpoint, USUAL_DSR)
        resolvers = [needed(partial(super_resolution, name, device, options.precision)) for name in names]
    for each in finetuned:
        if not each.provenance.upsampler:
            raise InputError(f"--tuned {each.name}: weights as published; give a folder of earface faces finetune")
    return Models(pretrained, finetuned, resolvers)


def run(options: PipelineEvaluationOptions, console: Console) -> None:
    from earface.data.face_dataset import refuse_training_identities
    from earface.nn.inference import choose_device
    from pipeline.configurations import EmbeddingCache, FaceLoader, conditions_of, known_people
    from pipeline.evaluation import Settings, Stages, embeddings_wanted, evaluate, notes_of
    from pipeline.leakage import leakless
    from pipeline.protocol_checks import check_people, readable
    from pipeline.report import print_report, write_report
    from pipeline.report_data import About, models_told

    device, stages = choose_device(options.device), Stages()
    models = load_models(options, device)
    protocol = protocol_of(options)
    check_people(protocol)
    conditions = conditions_of(options.vlr_size or models.sizes, options.degradation)
    grids = {condition: models.rows_of(condition) for condition in conditions}
    refuse_training_identities([*protocol.score.rows, *protocol.tune.rows], "this evaluation", known_people(grids))
    with stages("reading"):
        own = next((condition.vlr for condition in conditions if condition.degradation == FILES), None)
        protocol, left_out = readable(protocol, own)
    pictures = len(protocol.score.rows) + len(protocol.tune.rows)
    with stages("leakage"), progress("looking for duplicates", pictures) as state:
        protocol, leaking = leakless(protocol, options.leakage, state.update)
    faces = FaceLoader(options.seed, options.batch_size, options.num_workers, device)
    settings = Settings(
        options.threshold, options.bootstrap, options.seed, options.failures, options.max_comparisons, device
    )
    measured, wanted = itertools.count(1), sum(map(len, grids.values()))
    with progress("embedding faces", embeddings_wanted(protocol, grids)) as state:

        def row_done() -> None:
            state.what = f"{next(measured)} of {wanted} configurations measured; embedding faces"

        results = evaluate(protocol, grids, EmbeddingCache(faces, state.advance), settings, stages, row_done)
    about = About(
        dataset=options.pairs or options.gallery or options.dataset_root,
        protocol=protocol,
        threshold=options.threshold,
        bootstrap=options.bootstrap,
        options=asdict(options),
        models=models_told(grids),
        notes=[*protocol.notes(), *models.notes(grids), *notes_of(results)],
        left_out=[*left_out, *leaking],
        seconds=stages.seconds,
    )
    answers = write_report(Path(options.out), about, results, faces)
    print_report(console, about, results, answers)
    console.print(
        f"report.html, report.json, probes.csv, plots, tensorboard: {options.out}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(PipelineEvaluationOptions, argv, prog="earface evaluate")
    check_files(options)
    output_folder(Path(options.out), RESULTS, options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    run(options, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
