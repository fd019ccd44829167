"""Trainings in Python: `earface.train`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

from earface.core.errors import InputError
from earface.core.stopping import EXIT_PAUSED

Kind = Literal["ears", "detector", "recognizer", "dsr", "faces"]


class Training(NamedTuple):
    """What a kind of training is. Names, so that nothing is imported before it is needed."""

    module: str  # has `parsed(argv)` and `train(config)`
    model: str  # a class with `load`
    data: tuple[tuple[str, str], ...]  # options that `data` stands for, and the end of the path that each takes
    result: str = ""  # of the checkpoints' folder


_TEACHER = (("train_npy", "/train_teacher.npy"), ("val_npy", "/val_teacher.npy"))
TRAININGS: dict[str, Training] = {
    "ears": Training("ear_teacher.train", "ear_teacher:EarVAE", _TEACHER),
    "recognizer": Training("ear_teacher.recognition.train", "ear_teacher:EarRecognizer", _TEACHER),
    "detector": Training(
        "ear_teacher.detector.train",
        "ear_teacher:EarDetector",
        (("train_json", "_train.json"), ("val_json", "_val.json")),
    ),
    "dsr": Training("dsr.train_dsr", "dsr:DSR", (("dataset_root", ""),)),
    "faces": Training("facial_rec.finetune_edgeface", "facial_rec:EdgeFace", (("dataset_root", ""),), "tuned"),
}


@dataclass(frozen=True)
class TrainedRun:
    """A run of `train`."""

    kind: str
    folder: Path  # of its checkpoints
    config: Any  # the options that it was trained with
    paused: bool  # whether epochs are left: the same call continues

    @cached_property
    def model(self) -> Any:
        """The network of its best epoch, in evaluation mode on the CPU."""
        training = TRAININGS[self.kind]
        module, _, name = training.model.partition(":")
        return getattr(import_module(module), name).load(self.folder / training.result)


def train(kind: Kind, data: str | PathLike[str] | None = None, **options: Any) -> TrainedRun:
    """Train as `earface ears train` and its like do, in this process; where a run was stopped, go on with it.

    kind: ears (the VAE), detector, recognizer (of ears), dsr, or faces (EdgeFace).
    data: the folder that earface ears prepare or faces prepare wrote; of a detector annotations.json, beside which are
        annotations_train.json and annotations_val.json. None: as the options, or their defaults, say.
    options: of the command, by their names in Python: epochs=5, batch_size=16, encoder="resnet18".
    Raises InputError for what the command would refuse in one line.
    """
    if kind not in TRAININGS:
        raise InputError(f"kind {kind!r}: choose one of {', '.join(TRAININGS)}")
    training = TRAININGS[kind]
    if data is not None:
        place = str(data).removesuffix(".json") if kind == "detector" else str(data)
        options = {name: f"{place}{end}" for name, end in training.data} | options
    module = import_module(training.module)
    config = module.parsed([word for name, value in options.items() for word in _words(name, value)])
    code = module.train(config)
    return TrainedRun(kind, Path(config.checkpoint_dir), config, code == EXIT_PAUSED)


def _words(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag, str(value).lower()]
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [flag, *(map(str, value) if several else [str(value)])]
