"""Landmarkers and detectors trained on few pictures, and what they reach on other people's."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import earface
from benchmarks.transfer.options import SIDE_GIVEN, Cell, TransferBenchmark
from benchmarks.transfer.starts import Start
from ear_teacher.detector.metrics.average_precision import BoxResult, coco_metrics
from ear_teacher.detector.metrics.landmark_error import ear_lengths, ear_means, normalised_errors
from ear_teacher.detector.metrics.predictions import corners
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.options import Normaliser
from earface.core.errors import InputError
from earface.data.affine import crop_around
from earface.data.annotations import Annotations, Floats, Photograph, read_boxes_csv, read_pts_folder
from earface.data.coco import write_coco
from earface.data.ear_alignment import TRAGUS, fit_ear
from earface.data.images import Pixels, read_image, write_image
from earface.data.tables import Row, read_csv, require_columns

HELD_OUT = 5  # of the photographs with points; the same for every seed and number of shots
AROUND = 1.5  # of an ear's longer side: the photograph that is kept beside it
KEPT_SIDE = 320  # pixels of that part, so that reading a photograph takes no time
DIAGONAL: Normaliser = "landmark-box"
MIRROR = np.array([-1, 1])
Place = Callable[[Pixels, Floats, str], Floats]  # picture, box (4,) x y width height, side -> points (K, 2)
EPOCHS = 4
SHOWN = 16  # test photographs of which the training reports, unread by anything
BATCH = 8
RECIPE = {
    "epochs": EPOCHS,
    "batch_size": BATCH,
    "pyramid_width": 64,
    "warmup_epochs": 0.4,
    "ema_decay": 0.98,
    "early_stop_patience": 0,
    "num_workers": 0,
    "resume": "never",
    "progress": "none",
    "logger": "none",
    "pictures": False,
}


def landmarks(cell: Cell, start: Start | None, options: TransferBenchmark, people: frozenset[str]) -> dict[str, float]:
    """Errors on the held-out photographs, by the diagonal of their points, and of the tragus of the test people's ears,
    by the crop's height. start: None for a baseline, the mean shape of the training ears in the box of each."""
    annotations = ears_of(Path(options.ibug or ""), Path(options.out) / "ibug")
    train, test = split_points(annotations, cell.shots or len(annotations), cell.seed)
    if start is None:
        place = mean_shape(train, side_given=cell.start == SIDE_GIVEN)
    else:
        shape = {"train_boxes": False, "image_size": 64, "crop_size": options.ear_size}
        model = trained(start, cell, options, (train, test), shape)

        def place(picture: Pixels, box: Floats, side: str) -> Floats:
            found = model.place_landmarks([picture], [corners(box[None])])[0]["keypoints"]
            return np.asarray(found[0, :, :2].numpy(), np.float32)

    errors = []
    for photograph in test.photographs:
        truth = photograph.keypoints
        found = place(read_image(photograph.path), photograph.boxes[0], fit_ear(truth[0, :, :2]).side)
        errors.append(
            ear_means(normalised_errors(found[None], truth, ear_lengths(truth, photograph.boxes, DIAGONAL)))[0]
        )
    return {"nme": float(np.mean(errors)), **tragus_error(place, Path(options.crops or ""), people)}


def read_photographs(options: TransferBenchmark) -> Annotations:
    """Of the folder's boxes.csv, whose files lie beside it or in images/."""
    folder = Path(options.photographs or "")
    images = folder / "images"
    return read_boxes_csv(folder / "boxes.csv", images if images.is_dir() else folder)


def check_data(options: TransferBenchmark, people: frozenset[str]) -> None:
    """Raise InputError for data that are given and that a column cannot use, before anything is trained."""
    for task, shots in options.columns:
        if task == "landmarks" and options.ibug and options.crops:
            split_points(read_pts_folder(options.ibug), shots or 1, 0)
            tragus_rows(Path(options.crops), people)
        if task == "detection" and options.photographs:
            split_people(read_photographs(options), people, shots, 0)


def mean_shape(train: Annotations, side_given: bool) -> Place:
    """Where the landmarks of an ear lie in its box on average, the mirrored ears too where the side is not given."""
    shapes = []
    for photograph in train.photographs:
        points, box = photograph.keypoints[0, :, :2], photograph.boxes[0]
        shape = (points - box[:2] - box[2:] / 2) / max(box[2:])
        shapes.append(shape if fit_ear(points).side == "r" else shape * MIRROR)
    mean = np.mean(shapes, axis=0)

    def place(picture: Pixels, box: Floats, side: str) -> Floats:
        shape = mean if side == "r" else mean * MIRROR
        if not side_given:
            shape = (mean + mean * MIRROR) / 2
        return np.asarray(shape * max(box[2:]) + box[:2] + box[2:] / 2, np.float32)

    return place


def detection(cell: Cell, start: Start | None, options: TransferBenchmark, people: frozenset[str]) -> dict[str, float]:
    """AP of the test people's photographs."""
    assert start is not None, "detection has no baseline"
    train, test = split_people(read_photographs(options), people, cell.shots, cell.seed)
    shape = {"num_landmarks": 0, "image_size": options.image_size}
    model = trained(start, cell, options, (train, test), shape)
    results = []
    for photograph in test.photographs:
        found = model.predict([read_image(photograph.path)])[0]
        results.append(BoxResult(corners(photograph.boxes), found["boxes"], found["scores"]))
    coco = coco_metrics(results)
    assert coco is not None, "the test photographs have ears"
    return {"ap50": coco.ap50, "ap": coco.ap}


def trained(
    start: Start,
    cell: Cell,
    options: TransferBenchmark,
    sides: tuple[Annotations, Annotations],
    shape: dict[str, Any],
) -> EarDetector:
    """The averaged weights of the last step: nothing is chosen by the test pictures, some of which epochs report."""
    train, test = sides
    steps = options.steps if cell.shots else 4 * options.steps
    rate = {"freeze_encoder": True} if cell.rate == 0 else {"backbone_lr_scale": cell.rate}
    with tempfile.TemporaryDirectory(prefix="work_", dir=options.out) as work:
        folder = Path(work)
        write_coco(folder / "annotations_train.json", train)
        write_coco(folder / "annotations_val.json", _of(test, range(min(SHOWN, len(test)))))
        run = earface.train(
            "detector",
            folder / "annotations.json",
            views=max(1, round(steps / EPOCHS * BATCH / len(train))),
            lr=options.lr,
            seed=cell.seed,
            num_threads=options.num_threads,
            accelerator=options.accelerator,
            checkpoint_dir=folder / "checkpoints",
            log_dir=folder / "logs",
            **RECIPE,
            **start.training,
            **rate,
            **shape,
        )
        if run.paused:
            raise KeyboardInterrupt
        return EarDetector.load(run.folder / "last.ckpt")


def ears_of(folder: Path, out: Path) -> Annotations:
    """The photographs with points, each cut to a square around its ear."""
    annotations = read_pts_folder(folder)
    cut = []
    for photograph in annotations.photographs:
        assert photograph.size is not None, "read with its points"
        placement = crop_around(photograph.boxes[0], photograph.size, KEPT_SIDE, AROUND)
        path = out / f"{photograph.path.stem}.png"
        if not path.is_file():
            write_image(path, placement.image(read_image(photograph.path)))
        points, boxes = placement.points(photograph.keypoints), placement.boxes(photograph.boxes)
        cut.append(Photograph(path, (KEPT_SIDE, KEPT_SIDE), boxes, points, has_boxes=False))
    return dataclasses.replace(annotations, photographs=cut)


def split_points(annotations: Annotations, shots: int, seed: int) -> tuple[Annotations, Annotations]:
    """`shots` photographs to train on, by the seed, and HELD_OUT others that no seed trains on."""
    order = np.random.default_rng(0).permutation(len(annotations))
    rest = order[HELD_OUT:]
    if shots > len(rest):
        raise InputError(
            f"{annotations.source}: {len(annotations)} photographs with points: {HELD_OUT} are held out, "
            f"so {shots} cannot be trained on"
        )
    return _of(annotations, np.random.default_rng(seed).permutation(rest)[:shots]), _of(annotations, order[:HELD_OUT])


def split_people(
    annotations: Annotations, people: frozenset[str], shots: int | None, seed: int
) -> tuple[Annotations, Annotations]:
    """Photographs of others than `people` to train on, `shots` of them by the seed or all, and those of `people`."""
    photographs = annotations.photographs
    test = [index for index, each in enumerate(photographs) if each.subject in people]
    rest = [index for index, each in enumerate(photographs) if each.subject and each.subject not in people]
    if not test or len(rest) < (shots or 1):
        raise InputError(
            f"{annotations.source}: {len(test)} photographs of the test people and {len(rest)} of others: its column "
            "subject must name people as `ears` does"
        )
    train = np.random.default_rng(seed).permutation(rest)[:shots] if shots else np.array(rest)
    return _of(annotations, train), _of(annotations, test)


def _of(annotations: Annotations, rows: Sequence[int] | np.ndarray) -> Annotations:
    return dataclasses.replace(annotations, photographs=[annotations.photographs[row] for row in rows])


def tragus_rows(folder: Path, people: frozenset[str]) -> list[Row]:
    """The test people's rows of the folder's index.csv. Raises InputError where there is none."""
    index = folder / "index.csv"
    table = read_csv(index)
    require_columns(table, ("file", "subject", "side", "tragus_x", "tragus_y"), index)
    rows = [row for row in table if row["subject"] in people]
    if not rows:
        raise InputError(f"{index}: has none of the test people; its subjects must be named as in `ears`")
    return rows


def tragus_error(place: Place, folder: Path, people: frozenset[str]) -> dict[str, float]:
    """Median and 90 % of the tragus' distance from the annotated one, as a share of the crop's height."""
    errors = []
    for row in tragus_rows(folder, people):
        picture = read_image(folder / row["file"])
        height, width = picture.shape[:2]
        points = place(picture, np.array([0, 0, width, height], np.float32), row["side"])
        if len(points) not in TRAGUS:
            raise InputError(f"`ibug`: {len(points)} points, of which none is known as the tragus; give 17 or 55")
        apart = points[TRAGUS[len(points)]] - (float(row["tragus_x"]), float(row["tragus_y"]))
        errors.append(np.linalg.norm(apart) / height)
    return {"tragus": float(np.median(errors)), "tragus_90": float(np.percentile(errors, 90))}


TASKS = {"landmarks": landmarks, "detection": detection}
