"""The options that every trainer of this project shares."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from earface.core.errors import InputError
from earface.core.files import require_checkpoint
from earface.core.options import HelpLayout, option

Precision = Literal["auto", "32", "16", "bf16", "16-mixed", "bf16-mixed", "32-true"]
SHARED_ALIASES = {"learning_rate": "lr", "device": "accelerator"}


SHARED_GROUPS = {  # of help, in this order; each trainer adds its own
    "data": (),
    "model": (),
    "losses": (),
    "optimisation": (
        *("batch_size", "accumulate_grad_batches", "weight_decay", "grad_clip", "schedule", "warmup_epochs"),
        *("plateau_patience", "ema_decay", "early_stop_patience", "seed"),
        *("max_time", "stop_after_epoch", "fast_dev_run"),
    ),
    "outputs": (
        *("name", "checkpoint_dir", "log_dir", "resume", "init_from"),
        *("save_every_n_steps", "log_every_n_steps", "progress", "pictures", "logger", "callback"),
    ),
    "hardware": (
        *("accelerator", "devices", "precision", "num_workers", "num_threads", "strategy", "num_nodes"),
        *("tf32", "deterministic", "compile", "compile_mode"),
    ),
}


def help_layout(first: tuple[str, ...], **own: tuple[str, ...]) -> HelpLayout:
    """own: the fields of a trainer in each of SHARED_GROUPS, which come before the shared ones."""
    assert own.keys() <= SHARED_GROUPS.keys()
    return HelpLayout(first, {name: (*own.get(name, ()), *shared) for name, shared in SHARED_GROUPS.items()})


@dataclass(frozen=True)
class BackboneOptions:
    """What every trainer of a pretrained backbone shares, beside TrainerOptions."""

    backbone_lr_scale: float = option(1.0, "pretrained layers learn at lr times this", low=0, high=10)
    layer_decay: float = option(1.0, "each layer below the last learns at this factor of the next", above=0, high=1)


@dataclass(frozen=True)
class RunOptions:
    """What every trainer of this project shares. A subclass says how many `epochs` there are, and the rates."""

    batch_size: int = option(8, "images per device and step", low=1)
    accumulate_grad_batches: int = option(1, "steps whose gradients are summed before the weights move", low=1)
    weight_decay: float = option(1e-5, "AdamW's decoupled decay, on weight matrices only", low=0, high=1)
    grad_clip: float = option(1.0, "clip gradients to this norm; 0 does not clip", low=0)
    schedule: Literal["cosine", "onecycle", "plateau", "constant"] = option("cosine", "how the learning rate moves")
    warmup_epochs: float = option(5.0, "linear warm-up of the learning rate from a tenth, in epochs", low=0)
    plateau_patience: int = option(10, "epochs without a better val/loss before plateau halves the rate", low=0)
    ema_decay: float = option(0.0, "average the weights with this decay; 0 keeps no average", low=0, high=0.999999)
    early_stop_patience: int = option(
        30, "epochs without a better val/loss before stopping; 0 never stops", low=0, affects_result=False
    )
    precision: Precision = option(
        "auto",
        "auto: mixed where the hardware has it, else 32; 16 and bf16 mean mixed, on a CPU always bf16-mixed",
    )
    accelerator: str = option("auto", "auto, cpu, gpu, cuda, mps, tpu", affects_result=False)
    devices: str = option("auto", "how many devices, or a list such as 0,2", affects_result=False)
    strategy: str = option("auto", "Lightning's strategy: auto, ddp, fsdp, ...", affects_result=False)
    num_nodes: int = option(1, "machines under torchrun or SLURM", low=1, affects_result=False)
    num_workers: int = option(4, "loader processes; they do not change the result", low=0, affects_result=False)
    num_threads: int = option(
        0,
        "threads of a CPU's operations; 0: all, or fewer where other processes keep the cores busy",
        low=0,
        affects_result=False,
    )
    seed: int = option(42, "of initial weights, order, augmentation and noise", low=0, high=2**31 - 1)
    tf32: bool = option(True, "float32 products on a GPU keep 10 bits of mantissa: far faster", affects_result=False)
    deterministic: bool = option(False, "only deterministic kernels, where PyTorch has them", affects_result=False)
    compile: bool = option(False, "compile the model with torch.compile, on a GPU", affects_result=False)
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = option(
        "default", "torch.compile's mode", affects_result=False
    )
    max_time: str | None = option(None, "pause after DD:HH:MM:SS; the same command continues", affects_result=False)
    stop_after_epoch: int | None = option(
        None,
        "pause at the end of this epoch, or of the first after it, without changing the schedule",
        low=1,
        affects_result=False,
    )
    save_every_n_steps: int = option(
        0, "also write last.ckpt every so many optimiser steps; 0: once an epoch", low=0, affects_result=False
    )
    log_every_n_steps: int = option(50, "optimiser steps between rows of training metrics", low=1, affects_result=False)
    checkpoint_dir: str = option(
        "checkpoints", "where checkpoints go, and where `resume` auto looks", affects_result=False
    )
    log_dir: str = option("logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)
    name: str | None = option(
        None, "put the run under runs/NAME instead, with its own checkpoints and logs", affects_result=False
    )
    resume: str = option(
        "auto", "auto: from last.ckpt of the checkpoint folder; never; or a path", affects_result=False
    )
    init_from: str | None = option(
        None, "start from this checkpoint's weights with a fresh optimiser", affects_result=False
    )
    fast_dev_run: bool = option(False, "one batch of training and validation, nothing written", affects_result=False)
    progress: Literal["bar", "lines", "none"] = option(
        "bar", "a bar, a line per epoch, or silence", affects_result=False
    )
    pictures: bool = option(True, "draw validation pictures, for TensorBoard and the run's page", affects_result=False)
    logger: tuple[str, ...] = option(
        ("tensorboard",),
        "beside metrics.csv: tensorboard, wandb, mlflow, ..., module:Class, each with ,name=value for it; or none",
        affects_result=False,
    )
    callback: tuple[str, ...] = option(
        (), "your callbacks: module:Class, with ,name=value for its constructor", affects_result=False
    )

    def __post_init__(self) -> None:
        """One value of an option that takes several may be given by itself."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple) and isinstance(value, str):
                object.__setattr__(self, field.name, (value,))

    @property
    def epochs(self) -> int:
        raise NotImplementedError

    def placed(self) -> Self:
        """With the folders that `name` means. Raises InputError for a name that is none, or beside other folders."""
        if self.name is None:
            return self
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(f"`name` {self.name}: letters, digits, dots, dashes and underscores, such as resnet18-lr3")
        folders = {"checkpoint_dir": f"runs/{self.name}/checkpoints", "log_dir": f"runs/{self.name}/logs"}
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        if given := [flag for flag in folders if getattr(self, flag) not in (usual[flag], folders[flag])]:
            raise InputError(f"`name` {self.name} and `{given[0]}` {getattr(self, given[0])}: give one of the two")
        return dataclasses.replace(self, **folders)  # type: ignore[arg-type]

    @property
    def is_new(self) -> bool:
        """Whether a run starts; one that is in the checkpoint folder may be finished, and then needs no data."""
        return self.resume == "never" or not (Path(self.checkpoint_dir) / "last.ckpt").is_file()

    def check_files(self) -> None:
        """Raise InputError where what a new run reads is not there. Of each trainer."""

    def check_init_from(self, path: str) -> None:
        """Raise InputError where there is nothing to take weights from. Of each trainer."""
        require_checkpoint(path)

    def check_paths(self) -> None:
        """Raise InputError where a checkpoint, or what a new run reads, is not there: before anything is imported."""
        if self.resume not in ("auto", "never"):
            require_checkpoint(self.resume)
        if self.init_from is not None:
            self.check_init_from(self.init_from)
        if self.is_new:
            self.check_files()


@dataclass(frozen=True)
class TrainerOptions(RunOptions):
    """Of a trainer with one stage."""

    epochs: int = option(60, "passes over the training set", low=1, affects_result=False)
    lr: float = option(3e-4, "peak learning rate of newly initialised layers", above=0, high=10)
