"""What every LightningModule of this project does alike: seeds, schedule, rows, and what a checkpoint remembers."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from earface.core.errors import InputError
from earface.core.notices import as_flags
from earface.core.options import to_plain
from earface.data.images import Pixels
from earface.data.names import printable
from earface.metrics.image_quality import warn_if_too_good
from earface.nn.checkpoint import read_checkpoint
from earface.training.config import RunOptions
from earface.training.datamodule import TrainingDataModule
from earface.training.loader import batches_per_epoch
from earface.training.loggers import MetricsCSV, going_on
from earface.training.optim import LearningRate, adamw_with_schedule, mark_matrices
from earface.training.term_log import TermLog, ValidationSums

MOST_EMBEDDED = 1000  # validation pictures in TensorBoard's projector
THUMBNAIL = 48  # px


def seed_generators(seed: int, device: torch.device) -> None:
    """The CPU's and this device's default generator, in microseconds; torch.manual_seed asks every kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


Config = TypeVar("Config", bound=RunOptions)
Data = TypeVar("Data", bound=TrainingDataModule[Any])


class TrainingModule(pl.LightningModule, Generic[Config, Data]):
    """A subclass sets `self.model`, a TrainedModel, and has `parameter_groups`.

    Training terms go to `self.terms`, sums over the validation set to `self.sums`.
    """

    config: Config
    model: Any

    def __init__(self, config: Config, kind: str, model_config: Any) -> None:
        """kind, model_config: which model, and the configuration that a checkpoint rebuilds it from."""
        super().__init__()
        self.config = config
        self.save_hyperparameters({"kind": kind, "model": to_plain(model_config), "options": to_plain(config)})
        self.rate: LearningRate | None = None
        self.terms = TermLog(lambda indices: self.datamodule.describe(indices))
        self.sums = ValidationSums()

    @property
    def datamodule(self) -> Data:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def print(self, *lines: Any, **options: Any) -> None:
        """On the first process, options in backticks spelled as flags."""
        super().print(*(as_flags(str(line)) for line in lines), **options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named optimiser groups, each with its own rate."""
        raise NotImplementedError

    def compile_networks(self, **options: Any) -> None:
        """What a training step computes, in place, so that no name in a checkpoint changes.

        options: of torch.compile.
        """
        raise NotImplementedError

    # -- training ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        mark_matrices(self)
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if self.config.compile and on_cpu:
            self.print("note: `compile` is left out: the code that PyTorch generates for CPUs crashes on some encoders")
        elif self.config.compile:
            self.compile_networks(mode=self.config.compile_mode)
        self.terms.check_every = 1 if on_cpu else self.config.log_every_n_steps

    def configure_optimizers(self) -> Any:
        # Trainer.estimated_stepping_batches would set up the loader before Lightning restores where it stood
        config = self.config
        steps = math.ceil(self.batches_per_epoch() / config.accumulate_grad_batches)
        self.rate = LearningRate(
            config.schedule, round(steps * config.warmup_epochs), steps * config.epochs, config.plateau_patience
        )
        return adamw_with_schedule(self.parameter_groups(), self.rate)

    def batches_per_epoch(self) -> int:
        """Of each process."""
        return batches_per_epoch(len(self.datamodule.train_set), self.config.batch_size, self.trainer.world_size)

    def optimiser_steps(self, epochs: float) -> int:
        """In so many epochs."""
        return round(self.batches_per_epoch() / self.config.accumulate_grad_batches * epochs)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # noise depends on where the run stands and on nothing that came before
        key = (self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        seed_generators(int(np.random.SeedSequence(key).generate_state(1)[0]), self.device)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if isinstance(self.trainer.strategy, FSDPStrategy) and gradient_clip_val:
            sharded: Any = self.trainer.strategy.model  # knows the norm over all shards
            sharded.clip_grad_norm_(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_end(self) -> None:
        means = self.terms.take_epoch(self.over_processes)
        self.log_row({f"train/{name}": value for name, value in means.items()} | self.rates())

    def log_training_row(self) -> None:
        """Means since the last row, and the rates; called every `log_every_n_steps`."""
        row = {f"train/{name}_step": value for name, value in self.terms.take_window(self.over_processes).items()}
        self.log_row({**row, **self.rates()})

    def rates(self) -> dict[str, float]:
        """The learning rate of each group."""
        rates = {f"lr/{group['name']}": float(group["lr"]) for group in self.trainer.optimizers[0].param_groups}
        return {name: rate for name, rate in rates.items() if not name.endswith(".no_decay")}

    def objective_is_warming_up(self) -> bool:
        """Whether what `val/loss` measures still changes."""
        return False

    def baselines(self) -> dict[str, dict[str, float]]:
        """Name -> `val/NAME` metrics on the validation data of what needs no such model; asked after training."""
        return {}

    def images_per_step(self) -> int:
        return int(self.config.batch_size * self.trainer.world_size)

    # -- validation --------------------------------------------------------------------------------------------------

    # The names that every process has in every epoch, where a process may meet none of their samples.
    validation_terms: tuple[str, ...] = ()

    def on_validation_epoch_start(self) -> None:
        self.sums = ValidationSums(self.validation_terms, self.terms.check_every, self.global_step)

    def validation_means(self) -> dict[str, float]:
        """`val/NAME` of all that was added to `self.sums`, over all processes."""
        return {f"val/{name}": mean for name, mean in self.sums.means(self.over_processes).items()}

    def log_validation(self, means: dict[str, float], shown: tuple[str, ...]) -> None:
        """One row, and the metrics that callbacks and the progress bar see."""
        self.log_dict({key: means[key] for key in shown if key in means}, prog_bar=True, logger=False)
        self.log_row(means)
        warn_if_too_good(means.get("val/psnr"), "the validation pictures")
        if self.rate is not None:
            self.rate.observe(means["val/loss"])

    def over_processes(self, values: Tensor) -> Tensor:
        """The sum of each process's values."""
        device = self.trainer.strategy.root_device
        if self.trainer.world_size == 1 or device.type == "mps":
            return values
        return self.trainer.strategy.reduce(values.to(device), reduce_op="sum").cpu()

    # -- logging -----------------------------------------------------------------------------------------------------

    @property
    def draws_pictures(self) -> bool:
        """Whether this process draws validation pictures: it logs, and has the whole network outside a step."""
        sharded = isinstance(self.trainer.strategy, FSDPStrategy) and self.trainer.world_size > 1
        return self.config.pictures and self.trainer.is_global_zero and bool(self.trainer.loggers) and not sharded

    @property
    def log_dir(self) -> Path:
        return next(logger.path.parent for logger in self.trainer.loggers if isinstance(logger, MetricsCSV))

    def tensorboard(self) -> list[Any]:
        writers = []
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                with self.going_on(logger):
                    writers.append(logger.experiment)
        return writers

    def log_picture(self, name: str, pixels: Pixels) -> None:
        """pixels: (H, W, 3) uint8, to every logger that takes pictures."""
        for logger in self.trainer.loggers:
            with self.going_on(logger):
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, pixels, self.global_step, dataformats="HWC")
                elif hasattr(logger, "log_image"):
                    logger.log_image(name, [pixels], step=self.global_step)

    def log_embeddings(self, name: str, embeddings: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """(N, D), N labels and (N, C, S, S) in [0, 1], for TensorBoard's projector, where pictures are drawn."""
        thumbnails = F.interpolate(images, size=THUMBNAIL, mode="area").expand(-1, 3, -1, -1)
        cells = [" ".join(printable(label).split()) or "unknown" for label in labels]  # a tab would shift the table
        with (
            self.going_on(*self.trainer.loggers),
            contextlib.redirect_stdout(io.StringIO()),
        ):  # warns of what it replaces
            for writer in self.tensorboard():
                writer.add_embedding(embeddings.float().cpu(), cells, thumbnails, self.global_step, name)

    def log_row(self, metrics: dict[str, float]) -> None:
        for logger in self.trainer.loggers:
            with self.going_on(logger):
                logger.log_metrics({"epoch": self.current_epoch, **metrics}, step=self.global_step)

    def going_on(self, *loggers: Logger) -> contextlib.AbstractContextManager[None]:
        """Around what writes logs or pictures, by these loggers: see `earface.training.loggers.going_on`."""
        return going_on(self.log_dir, loggers)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Self:
        """Refused where a module needs networks that its checkpoint does not hold. Raises InputError."""
        model = cls.__name__.removesuffix("Lightning")
        raise InputError(
            f"{checkpoint_path}: {cls.__name__} also needs the networks of its loss, which are in no checkpoint; "
            f"{model}.load_from_checkpoint gives the trained model, and the training command continues the run"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["terms"] = self.terms.state_dict(self.over_processes)
        checkpoint["data"] = self.datamodule.digest.stored()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        terms = checkpoint["terms"]
        if self.global_rank:  # the first process goes on with the sums of all
            terms = {part: dict.fromkeys(sums, 0.0) for part, sums in terms.items()}
        self.terms.load_state_dict(terms)

    def initialise_from(self, path: str) -> None:
        """Weights only, from another run's checkpoint. Raises InputError when the shapes differ."""
        self.model.load_weights(read_checkpoint(path), path)
