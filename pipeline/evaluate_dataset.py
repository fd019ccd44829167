"""Does a recogniser find the right person? `earface evaluate`, or `python -m pipeline.evaluate_dataset`.

Of faces VLR -> DSR -> EdgeFace beside simpler configurations, of ears an ear recogniser beside HOG.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.progress import progress
from earface.data.face_folders import require_face_set
from earface.data.face_sizes import FILES
from pipeline.ear_options import teacher_file
from pipeline.options import AUTO, MOVEMENTS, NONE, RESULTS, USUAL_DSR, USUAL_FINETUNED, PipelineEvaluationOptions

if TYPE_CHECKING:
    from rich.console import Console

    from facial_rec.recognizer import FaceRecognizer
    from pipeline.configurations import Models
    from pipeline.enrolment_searches import Settings
    from pipeline.evaluation import ConditionResult
    from pipeline.protocol import Protocol
    from pipeline.report_data import About
    from pipeline.report_page import ReportPictures

TABLE_WIDTH = 150


def check_files(options: PipelineEvaluationOptions) -> None:
    """Raise InputError for missing faces or a missing super-resolver."""
    lists = [path for path in (options.gallery, options.probes, options.pairs) if path is not None]
    for path in lists:
        require_path(path)
    ears = teacher_file(options.dataset_root)
    if options.gallery is None and ears is None:
        require_face_set(options.dataset_root)
    elif options.gallery is None:
        require_path(options.dataset_root)
    for path in named_models(options.dsr_checkpoint, USUAL_DSR):
        require_trained(path)


def protocol_of(options: PipelineEvaluationOptions) -> Protocol:
    from pipeline.pairs import from_pairs
    from pipeline.protocol import GalleryRule, from_dataset, from_lists

    if options.pairs is not None:
        return from_pairs(options.dataset_root, options.pairs)
    if options.gallery is not None and options.probes is not None:
        return from_lists(options.gallery, options.probes, options.calibration_fraction, options.seed)
    view = options.gallery_camera, options.gallery_illumination, options.gallery_recording
    rule = GalleryRule(*view, options.template_pictures)
    return from_dataset(options.dataset_root, rule, options.calibration_fraction, options.seed)


def named_models(names: Sequence[str], usual: str) -> list[str]:
    """The models that are named; `auto` is the usual one if it exists."""
    if list(names) == [AUTO]:
        return [usual] if Path(usual).exists() else []
    return [] if list(names) == [NONE] else list(names)


def load_models(options: PipelineEvaluationOptions, device: str) -> Models:
    """Raises InputError also if one of `finetuned` is a pretrained recogniser."""
    from dsr.upsampler import build_dsr_upsampler
    from facial_rec.recognizer import load_recognizer
    from pipeline.configurations import Models

    def recognizer(name: str) -> FaceRecognizer:
        return load_recognizer(name, options.crop, device, options.precision)

    with Needed() as needed:
        pretrained = needed(
            lambda: recognizer(options.recognizer), f"--recognizer FILE (the authors' {options.recognizer}.pt)"
        )
        finetuned = [needed(partial(recognizer, name)) for name in named_models(options.finetuned, USUAL_FINETUNED)]
        names = named_models(options.dsr_checkpoint, USUAL_DSR)
        resolvers = [needed(partial(build_dsr_upsampler, name, device, options.precision)) for name in names]
    for each in finetuned:
        if not each.provenance.upsampler:
            raise InputError(f"`finetuned` {each.name}: pretrained weights; give a folder of earface faces finetune")
    return Models(pretrained, finetuned, resolvers)


def evaluate_faces(options: PipelineEvaluationOptions, console: Console) -> None:
    from earface.data.face_dataset import refuse_training_identities
    from earface.data.vlr_rule import Movement
    from earface.nn.inference import choose_device
    from pipeline.configurations import FaceLoader, conditions_of, count_embeddings, known_identities
    from pipeline.evaluation import Stages, evaluate, notes_of
    from pipeline.face_embeddings import EmbeddingCache
    from pipeline.leakage import resolve_leakage
    from pipeline.protocol_checks import check_identities, keep_readable
    from pipeline.report_data import About, describe_models

    device, stages = choose_device(options.device), Stages()
    if options.gallery is None and teacher_file(options.dataset_root) is not None:
        raise InputError(f"`dataset_root` {options.dataset_root}: holds ears; give an ear recogniser as `recognizer`")
    models = load_models(options, device)
    protocol = protocol_of(options)
    check_identities(protocol)
    movements = [Movement(kind, amount) for kind in MOVEMENTS for amount in getattr(options, kind)]
    conditions = conditions_of(options.vlr_size or models.sizes, options.degradation, movements)
    configurations = {condition: models.configurations_of(condition) for condition in conditions}
    rows = [*protocol.test.rows, *protocol.calibration.rows]
    refuse_training_identities(rows, "this evaluation", known_identities(configurations))
    with stages("reading"):
        own = next((condition.vlr for condition in conditions if condition.degradation == FILES), None)
        protocol, left_out = keep_readable(protocol, own)
    pictures = len(protocol.test.rows) + len(protocol.calibration.rows)
    with stages("leakage"), progress("looking for duplicates", pictures) as state:
        protocol, leaking = resolve_leakage(protocol, options.leakage, state.update)
    faces = FaceLoader(options.seed, options.batch_size, options.num_workers, device)
    measured, wanted = itertools.count(1), sum(map(len, configurations.values()))
    with progress("embedding faces", count_embeddings(protocol, configurations)) as state:

        def configuration_done() -> None:
            state.what = f"{next(measured)} of {wanted} configurations measured; embedding faces"

        embeddings = EmbeddingCache(faces, state.advance, mirrored=protocol.pairs is None)
        settings = settings_of(options, device)
        results = evaluate(protocol, configurations, embeddings, settings, stages, configuration_done)
    about = About(
        dataset=options.pairs or options.gallery or options.dataset_root,
        protocol=protocol,
        threshold=options.threshold,
        bootstrap=options.bootstrap,
        options=asdict(options),
        models=describe_models(configurations),
        notes=[*protocol.notes(), *models.notes(configurations), *notes_of(results)],
        left_out=[*protocol.left_out, *left_out, *leaking],
        seconds=stages.seconds,
    )
    report(options, about, results, faces, console)


def evaluate_ears(options: PipelineEvaluationOptions, console: Console) -> None:
    from ear_teacher.recognition.loading import load_recognizer
    from earface.nn.inference import choose_device
    from pipeline.ear_configurations import EarEmbeddings, ear_configurations
    from pipeline.ear_protocol import EarGalleryRule, describe_sides, from_ear_lists, from_ear_set, names_trained_on
    from pipeline.evaluation import Stages, evaluate, notes_of
    from pipeline.leakage import resolve_leakage
    from pipeline.protocol_checks import check_identities, keep_pictures
    from pipeline.report_data import EARS, About, describe_models

    device, stages = choose_device(options.device), Stages()
    recognizer = load_recognizer(options.recognizer, device, precision=options.precision)
    people = options.calibration_fraction, options.seed
    rule = EarGalleryRule(options.template_pictures, options.enroll_sides)
    if options.gallery is not None and options.probes is not None:
        protocol = from_ear_lists(options.gallery, options.probes, options.sides, *people)
    else:
        protocol = from_ear_set(options.dataset_root, rule, options.sides, *people)
    check_identities(protocol)
    notes = names_trained_on(protocol, recognizer, options.known_names)
    rows = protocol.ears
    ears = EarEmbeddings(recognizer, options.batch_size, options.num_workers)
    with stages("embedding"), progress("embedding ears", len(rows)) as state:
        skipped = ears.embed(rows, state.update)
    protocol, left_out = keep_pictures(protocol, {row for row in rows if row.path not in skipped})
    with stages("leakage"), progress("looking for duplicates", len(protocol.ears)) as state:
        protocol, leaking = resolve_leakage(protocol, options.leakage, state.update)
    configurations = ear_configurations(recognizer)
    with progress("measuring", sum(map(len, configurations.values()))) as state:
        settings = settings_of(options, device)
        results = evaluate(protocol, configurations, ears, settings, stages, lambda: state.advance(1))
    about = About(
        dataset=options.gallery or options.dataset_root,
        protocol=protocol,
        threshold=options.threshold,
        bootstrap=options.bootstrap,
        options=asdict(options),
        models=describe_models(configurations),
        notes=[*notes, *protocol.notes(), *notes_of(results)],
        left_out=[*protocol.left_out, *left_out, *leaking],
        seconds=stages.seconds,
        wording=EARS,
        facts={
            "form": recognizer.contract.id,
            "enrolled": "all pictures of `gallery`" if options.gallery is not None else str(rule),
            "sides": f"{options.sides}: {describe_sides(options.sides)}",
        },
    )
    report(options, about, results, ears, console)


def settings_of(options: PipelineEvaluationOptions, device: str) -> Settings:
    from pipeline.enrolment_searches import Settings

    return Settings(
        *(options.threshold, options.bootstrap, options.seed, options.failures, options.max_comparisons, device),
        options.fusion,
        options.probe_pictures,
    )


def report(
    options: PipelineEvaluationOptions,
    about: About,
    results: Sequence[ConditionResult],
    pictures: ReportPictures,
    console: Console,
) -> None:
    """Write and print it."""
    from pipeline.report import print_report, write_report

    summary = write_report(Path(options.out), about, results, pictures if options.pictures else None)
    print_report(console, about, results, summary)
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

        from pipeline.recognizers import modality_of

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    modality = modality_of(options.recognizer)
    options.refuse_foreign(modality)
    evaluate_faces(options, console) if modality == "face" else evaluate_ears(options, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
