"""Does VLR -> DSR -> EdgeFace find the right person? `python -m pipeline.evaluate_dataset`, or as a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data.degradation import parse_vlr_size
from data.errors import InputError, entry_point
from data.face_rows import FaceRow
from data.multipie import FRONTAL, FRONTAL_FLASH
from facial_rec.routes import enlarging, super_resolution
from pipeline.evaluation import Settings, Stages, embeddings_wanted, evaluate
from pipeline.grid import Condition, Embeddings, Faces, GridRow, rows_of
from pipeline.protocol import (
    NEUTRAL,
    Enrolment,
    GalleryRule,
    Protocol,
    find_leaks,
    from_dataset,
    from_lists,
    from_pairs,
    without_leaks,
)
from pipeline.recognizer import load_recognizer
from pipeline.report import About, print_grid, write_report
from training.cli import parse_options
from training.faces import refuse_known, usable_faces
from training.inference import choose_device
from training.options import check_options, option

AUTO, NONE = "auto", "none"
USUAL_DSR, USUAL_TUNED = "dsr/checkpoints/last.ckpt", "facial_rec/checkpoints/tuned"  # where training puts them
DEGRADATIONS = ("bicubic", "realistic", "files")
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
        for name in self.degradation:
            if name not in DEGRADATIONS:
                raise InputError(f"--degradation {name!r}: choose of {', '.join(DEGRADATIONS)}")
        if not self.degradation:
            raise InputError(f"--degradation: choose of {', '.join(DEGRADATIONS)}")
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


def readable(protocol: Protocol, sizes: Sequence[str]) -> tuple[Protocol, list[str]]:
    """Without the pictures that cannot be read, and their names. sizes: of their own VLR files, at most one.

    Raises InputError as usable_faces does, and where nobody is left to enrol or to search for.
    """
    vlr = parse_vlr_size(sizes[0]) if sizes else None

    def usable(rows: list[FaceRow], files: bool) -> list[FaceRow]:
        return usable_faces(rows, vlr if files else None) if rows else []

    parts = [
        Enrolment(usable(part.gallery, False), usable(part.probes, True)) for part in (protocol.score, protocol.tune)
    ]
    kept = {row.path for part in parts for row in part.rows}
    absent = [row.name for part in (protocol.score, protocol.tune) for row in part.rows if row.path not in kept]
    if absent and protocol.pairs is not None:
        raise InputError(f"{absent[0]}: cannot be read, and it is one of a pair")
    return replace(protocol, score=parts[0], tune=parts[1]), [f"{name}: cannot be read" for name in absent]


def check_people(protocol: Protocol) -> None:
    """Raise InputError where there is nothing to measure."""
    if not protocol.score.probes:
        raise InputError("no probes: everyone has one picture, which is enrolled; two or more of each person wanted")
    if not any(protocol.score.mated):
        raise InputError("no probe shows anyone who is enrolled: two or more pictures of a person wanted")


def plan(options: EvaluateOptions, device: str) -> tuple[dict[Condition, list[GridRow]], list[str]]:
    """The rows of every condition, and what is said of rows that there is no model for."""
    precision = options.precision
    stock = load_recognizer(options.recognizer, options.crop, device, precision)
    tuned = [load_recognizer(name, options.crop, device, precision) for name in given(options.tuned, USUAL_TUNED)]
    for each in tuned:
        if not each.inputs:
            raise InputError(
                f"--tuned {each.name}: weights as published; give a folder of facial_rec.finetune_edgeface"
            )
    resolvers = [super_resolution(name, device, precision) for name in given(options.dsr_checkpoint, USUAL_DSR)]
    sizes = options.vlr_size or tuple(dict.fromkeys(str(each.vlr) for each in resolvers)) or ("32",)
    interpolation = enlarging(["interpolation"], "", None)[0]
    conditions = [Condition(size, degradation) for degradation in options.degradation for size in sizes]
    grids = {each: rows_of(each, stock, tuned, resolvers, interpolation) for each in dict.fromkeys(conditions)}
    used = {id(row.recognizer) for rows in grids.values() for row in rows} | {
        id(row.route) for rows in grids.values() for row in rows
    }
    notes = [f"{each.name} is for no size that is evaluated" for each in tuned if id(each) not in used]
    notes += [f"{each.source} is for no size that is evaluated" for each in resolvers if id(each) not in used]
    for condition, rows in grids.items():
        absent = [
            name
            for name in ("interpolation + tuned", "DSR + stock", "DSR + tuned")
            if name not in {r.name for r in rows}
        ]
        notes += [f"{condition}: no model for {', '.join(absent)}"] if absent else []
        for row in rows:
            for what, made_for in (
                ("super-resolver", row.route.degradation),
                ("recogniser", row.recognizer.degradation),
            ):
                if made_for and made_for != condition.degradation:
                    notes.append(f"{condition}: the {what} of {row.name} was trained on {made_for} faces")
    return grids, notes


def known_people(grids: dict[Condition, list[GridRow]]) -> dict[Path, frozenset[str]]:
    """Of each model, digests of the people it was trained on."""
    rows = [row for own in grids.values() for row in own]
    known = {Path(row.recognizer.name): row.recognizer.trained_on for row in rows}
    return known | {Path(row.route.source): row.route.trained_on for row in rows if row.route.source}


def models_told(grids: dict[Condition, list[GridRow]]) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = {}
    for row in (row for own in grids.values() for row in own):
        kind = f"recogniser, tuned on {row.recognizer.inputs}" if row.recognizer.inputs else "recogniser, as published"
        told[row.recognizer.name] = {
            "kind": kind,
            "digest": row.recognizer.digest,
            "contract": row.recognizer.contract.id,
        }
        if row.route.source:
            kind = f"super-resolver, {row.route.vlr} px, {row.route.degradation}"
            told[row.route.source] = {"kind": kind, "digest": row.route.origin, "contract": ""}
    return told


def progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def run(options: EvaluateOptions, console: Console) -> None:
    device = choose_device(options.device)
    protocol = protocol_of(options)
    stages, left_out = Stages(), []
    files = list(options.vlr_size[:1]) if "files" in options.degradation else []
    with stages("reading"):
        protocol, unreadable = readable(protocol, files)
        check_people(protocol)
        left_out += unreadable
    grids, notes = plan(options, device)
    people = [*protocol.score.rows, *protocol.tune.rows]
    refuse_known(people, "this evaluation", known_people(grids))
    with progress_bar(console) as bar:
        with stages("leakage"):
            task = bar.add_task("duplicates", total=len(people))
            leaks = find_leaks(protocol, lambda done: bar.update(task, completed=done))
            protocol = without_leaks(protocol, leaks, options.leakage)
            left_out += [f"{leak.second.name}: {leak}" for leak in leaks]
            check_people(protocol)
        faces = Faces(options.seed, options.batch_size, options.num_workers, device)
        embedding = bar.add_task("embeddings", total=embeddings_wanted(protocol, grids))
        figures = bar.add_task("rows", total=sum(map(len, grids.values())))
        embeddings = Embeddings(faces, lambda count: bar.advance(embedding, count))
        settings = Settings(
            options.threshold, options.bootstrap, options.seed, options.failures, options.max_comparisons, device
        )
        results = evaluate(protocol, grids, embeddings, settings, stages, lambda: bar.advance(figures))
    about = About(
        options.pairs or options.gallery or options.dataset_root,
        protocol,
        options.threshold,
        options.bootstrap,
        models_told(grids),
        [*protocol.notes(), *notes],
        left_out,
        stages.seconds,
    )
    answers = write_report(Path(options.out), about, results, faces)
    for note in about.notes:
        console.print(note, highlight=False, soft_wrap=True)
    if left_out:
        console.print(f"{len(left_out)} pictures are left out, such as {left_out[0]}", highlight=False, soft_wrap=True)
    print_grid(console, results, answers)
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.seconds.items())
    console.print(f"{told}\nreport.html, report.json, probes.csv, plots, tensorboard: {options.out}", highlight=False)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EvaluateOptions, argv, prog="python -m pipeline.evaluate_dataset")
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    try:
        run(options, console)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
