"""What the transfer benchmark is asked for: its options, and the cells of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from earface.core.errors import InputError
from earface.core.options import check_options, option

SHOTS: dict[str, tuple[int | None, ...]] = {  # of each task; None: all there are
    "landmarks": (5, 16),
    "identification": (2, 8),
    "detection": (25, None),
}
ALL = "all"
SIDE_GIVEN = "mean shape, side given"
BASELINES = {  # rows of a task that start from no network
    "landmarks": ("mean shape", SIDE_GIVEN),
    "identification": ("HOG", "pixel PCA"),
}
COLUMNS = ("landmarks:5", "identification:2", "identification:8", "detection:25", "landmarks:16", f"detection:{ALL}")


@dataclass(frozen=True)
class TransferBenchmark:
    """Few-shot landmarks, detection and identification of ears from several starts, on people nobody trained on."""

    teacher: tuple[str, ...] = option((), "ear VAEs to start from: CKPT or NAME=CKPT; several")
    lite0: str | None = option(None, "efficientnet-lite0-57934424.pth: ImageNet's EfficientNet-Lite0")
    weights: tuple[str, ...] = option(
        (), "other encoders with weights: resnet50=FILE, dinov2=FILE, sam=FILE, timm:NAME=FILE; pretrained downloads"
    )
    ears: str = option(
        "runs/ears/awe/val_teacher.npy", "prepared ears of the test people, which identification and the split are by"
    )
    crops: str | None = option(None, "folder of ear crops with index.csv (subject, side, tragus_x, tragus_y), as AWE's")
    ibug: str | None = option(None, "folder of photographs with .pts files of 55 points, as ibug's")
    photographs: str | None = option(
        None, "folder with boxes.csv (subject) and its photographs, there or in images/, as AWE's"
    )
    only: tuple[str, ...] = option(
        COLUMNS, "columns in the order in which they are filled: TASK:SHOTS, or TASK for all of its columns"
    )
    starts: tuple[str, ...] = option((), "rows that are filled; default: all")
    rates: tuple[float, ...] = option(
        (1.0, 0.1, 0.0), "the encoder learns at the heads' rate times these, a row each; 0: it is frozen"
    )
    seeds: tuple[int, ...] = option((0,), "of the choice of pictures, new weights and augmentation")
    lr: float = option(3e-3, "peak learning rate of the heads", above=0, high=1)
    steps: int = option(400, "of each training with few pictures; four times as many with all", low=4)
    draws: int = option(10, "random choices of the gallery and probes of identification", low=1)
    minutes: float = option(0.0, "no cell is started after so many; 0: all of them are run", low=0)
    image_size: int = option(224, "side of the detector's input; a multiple of 32", low=64)
    ear_size: int = option(128, "side of the landmarker's crop; a multiple of 32", low=32)
    num_threads: int = option(1, "of a CPU's operations", low=1)
    accelerator: str = option("auto", "auto, cpu, gpu")
    out: str = option("runs/transfer", "a file per finished cell, which is not run again, and results.md")

    def check(self) -> None:
        check_options(self)
        for text in self.only:
            columns(text)
        if not self.seeds or not self.rates or any(not 0 <= rate <= 10 for rate in self.rates):
            raise InputError("`rates` and `seeds`: give one or more; a rate is from 0 to 10")

    @property
    def columns(self) -> list[tuple[str, int | None]]:
        """Each task and its shots, in the order of `only`."""
        return list(dict.fromkeys(column for text in self.only for column in columns(text)))


@dataclass(frozen=True)
class Cell:
    """One training, or the draws of one identification."""

    task: str
    shots: int | None  # None: all
    start: str
    rate: float | None  # of the encoder; None: no network is trained
    seed: int

    @property
    def column(self) -> str:
        return column_name(self.task, self.shots)

    @property
    def file(self) -> str:
        rate = "" if self.rate is None else f"_rate{self.rate:g}"
        start = "".join(each if each.isalnum() or each in ".-" else "_" for each in self.start)
        return f"{self.task}_{column_name('', self.shots)[1:]}_{start}{rate}_seed{self.seed}.json"

    def __str__(self) -> str:
        learns = {None: "", 0.0: ", encoder frozen"}.get(self.rate, f", encoder at {self.rate} times the rate")
        return f"{self.column}: {self.start}{learns}, seed {self.seed}"

    def stored(self) -> dict[str, Any]:
        return asdict(self)


def column_name(task: str, shots: int | None) -> str:
    return f"{task}:{ALL if shots is None else shots}"


def columns(text: str) -> list[tuple[str, int | None]]:
    """`landmarks:5`, `detection:all`, or `identification` for its usual ones. Raises InputError."""
    task, _, shots = text.partition(":")
    if task not in SHOTS or (":" in text and not (shots == ALL and task == "detection") and not shots.isdecimal()):
        raise InputError(f"`only` {text}: give {', '.join(COLUMNS)}, or others like them")
    if not shots:
        return [(task, each) for each in SHOTS[task]]
    if shots != ALL and int(shots) < 2:
        raise InputError(f"`only` {text}: two pictures are the fewest")
    return [(task, None if shots == ALL else int(shots))]


def chosen(rows: Sequence[str], names: Sequence[str]) -> set[str]:
    """The rows called so; all where there are no names. Raises InputError."""
    if unknown := [name for name in names if name not in rows]:
        raise InputError(f"`starts` {unknown[0]}: choose from {', '.join(rows)}")
    return set(names or rows)
