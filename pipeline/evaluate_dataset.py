"""Does VLR -> DSR -> EdgeFace find the right person? `earface evaluate`, or `python -m pipeline.evaluate_dataset`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dsr.upsampler import super_resolution
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.options import check_options, option
from earface.data.face_dataset import refuse_known
from earface.data.face_sizes import DEGRADATIONS, parse_vlr_size
from earface.data.multipie import FRONTAL, FRONTAL_FLASH
from earface.nn.inference import choose_device
from facial_rec.recognizer import load_recognizer
from pipeline.configurations import FILES, EmbeddingCache, FaceLoader, Models, conditions_of, known_people
from pipeline.evaluation import Settings, Stages, embeddings_wanted, evaluate, notes_of
from pipeline.leakage import leakless
from pipeline.protocol import NEUTRAL, GalleryRule, Protocol, from_dataset, from_lists, from_pairs
from pipeline.protocol_checks import check_people, readable
from pipeline.report import print_report, write_report
from pipeline.report_data import About, models_told

AUTO, NONE = "auto", "none"
USUAL_DSR, USUAL_TUNED = "dsr/checkpoints/last.ckpt", "facial_rec/checkpoints/tuned"  # where training puts them
KINDS = (*DEGRADATIONS, FILES)
TABLE_WIDTH = 150


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate VLR probes against an HR gallery: HR, interpolation and DSR, with the stock and a tuned recogniser."""

    dataset_root: str = option("dataset", "a prepared set, its test_processed, or any set of aligned 128x128 faces")
    gallery: str | None = option(None, "instead: who is enrolled, a CSV of file and identity, or a folder")
    probes: str | None = option(None, "and who is searched for, likewise")
    pairs: str | None = option(None, "instead: LFW's pairs.txt, of pictures below --dataset_root; one-to-one alone")
    gallery_camera: str = option(FRONTAL, "of the picture that is enrolled, by Multi-PIE names")
    gallery_illumination: str = option(FRONTAL_FLASH, "likewise")
    gallery_recording: str = option(NEUTRAL, "likewise")
    tune_fraction: float = option(
        0.2, "of the people, to fit thresholds on, where the set has no val_processed", low=0, high=0.9
    )
    leakage: Literal["refuse", "drop"] = option(
        "refuse", "probes that are enrolled too, or near duplicates: stop, or leave them out"
    )
    vlr_size: tuple[str, ...] = option((), "of the probes, one or more: 32, 24, 16 or 14x16; default: as the DSR takes")
    degradation: tuple[str, ...] = option(("bicubic",), "how they are made, one or more of bicubic, realistic, files")
    recognizer: str = option("edgeface_xxs", "the stock one: a published EdgeFace variant, or a file of its weights")
    tuned: tuple[str, ...] = option(
        (AUTO,), f"tuned folders or checkpoints, one for each size and degradation; auto: {USUAL_TUNED}; or none"
    )
    dsr_checkpoint: tuple[str, ...] = option(
        (AUTO,), f"super-resolvers, likewise: .ckpt files, patterns or folders; auto: {USUAL_DSR}; or none"
    )
    crop: Literal["arcface", "center"] = option("arcface", "where EdgeFace's template lies in the 128 px")
    threshold: float = option(0.35, "cosine whose errors are told beside those of fitted thresholds", low=-1, high=1)
    bootstrap: int = option(1000, "replicates of the intervals", low=100, high=100_000)
    max_comparisons: int = option(5_000_000, "non-mated ones kept for one-to-one figures, else a sample", low=1000)
    failures: int = option(8, "worst ones shown for each condition", low=0)
    seed: int = option(42, "of realistic degradation, the people who tune, and the replicates", low=0)
    precision: Literal["32", "16", "bf16"] = option("32", "16 and bf16: faster on a GPU")
    batch_size: int = option(64, "faces at once", low=1)
    num_workers: int = option(2, "loader processes", low=0)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: the GPU if there is one")
    out: str = option("pipeline/evaluation", "folder for report.html, report.json, probes.csv, plots and events")

    def check(self) -> None:
        check_options(self)
        for size in self.vlr_size:
            try:
                parse_vlr_size(size)
            except InputError as error:
                raise InputError(f"--vlr_size: {error}") from None
        if not self.degradation or not set(self.degradation) <= set(KINDS):
            raise InputError(f"--degradation {' '.join(self.degradation)}: choose of {', '.join(KINDS)}")
        if (self.gallery is None) != (self.probes is None):
            raise InputError("--gallery and --probes: give both, or neither")
        if self.gallery is not None and self.pairs is not None:
            raise InputError("--pairs: not together with --gallery and --probes")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError(f"--out {self.out}: is a file; give a folder")


def protocol_of(options: EvaluateOptions) -> Protocol:
    if options.pairs is not None:
        return from_pairs(options.dataset_root, options.pairs)
    if options.gallery is not None and options.probes is not None:
        return from_lists(options.gallery, options.probes, options.tune_fraction, options.seed)
    rule = GalleryRule(options.gallery_camera, options.gallery_illumination, options.gallery_recording)
    return from_dataset(options.dataset_root, rule, options.tune_fraction, options.seed)


def given(names: Sequence[str], usual: str) -> list[str]:
    """The models that are named; `auto`: the usual one if it is there."""
    if list(names) == [AUTO]:
        return [usual] if Path(usual).exists() else []
    return [] if list(names) == [NONE] else list(names)


def load_models(options: EvaluateOptions, device: str) -> Models:
    """Raises InputError also for a recogniser in the place of a tuned one that was not tuned."""
    precision = options.precision
    stock = load_recognizer(options.recognizer, options.crop, device, precision)
    tuned = [load_recognizer(name, options.crop, device, precision) for name in given(options.tuned, USUAL_TUNED)]
    for each in tuned:
        if not each.inputs:
            raise InputError(f"--tuned {each.name}: weights as published; give a folder of earface faces finetune")
    names = given(options.dsr_checkpoint, USUAL_DSR)
    return Models(stock, tuned, [super_resolution(name, device, precision) for name in names])


def progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def run(options: EvaluateOptions, console: Console) -> None:
    device, stages = choose_device(options.device), Stages()
    protocol = protocol_of(options)
    check_people(protocol)
    models = load_models(options, device)
    conditions = conditions_of(options.vlr_size or models.sizes, options.degradation)
    grids = {condition: models.rows_of(condition) for condition in conditions}
    refuse_known([*protocol.score.rows, *protocol.tune.rows], "this evaluation", known_people(grids))
    with stages("reading"):
        own = next((condition.vlr for condition in conditions if condition.degradation == FILES), None)
        protocol, left_out = readable(protocol, own)
    with progress_bar(console) as bar:
        with stages("leakage"):
            task = bar.add_task("duplicates", total=len(protocol.score.rows) + len(protocol.tune.rows))
            protocol, leaking = leakless(protocol, options.leakage, lambda done: bar.update(task, completed=done))
        faces = FaceLoader(options.seed, options.batch_size, options.num_workers, device)
        embedding = bar.add_task("embeddings", total=embeddings_wanted(protocol, grids))
        figures = bar.add_task("rows", total=sum(map(len, grids.values())))
        embeddings = EmbeddingCache(faces, lambda count: bar.advance(embedding, count))
        settings = Settings(
            options.threshold, options.bootstrap, options.seed, options.failures, options.max_comparisons, device
        )
        results = evaluate(protocol, grids, embeddings, settings, stages, lambda: bar.advance(figures))
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
    options = parse_options(EvaluateOptions, argv, prog="earface evaluate")
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    try:
        run(options, console)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
