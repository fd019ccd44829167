"""The training of an EarRecognizer: a step under the margin, and validation on people who are not trained on."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.metrics.baselines import hog_features
from ear_teacher.metrics.reconstruction import encode_all, unit_images
from ear_teacher.recognition.config import EarRecognizerTrainingConfig
from ear_teacher.recognition.datamodule import EarIdentityBatch, EarRecognizerDataModule
from ear_teacher.recognition.losses import EarRecognizerLoss
from ear_teacher.recognition.metrics import identification
from ear_teacher.recognition.model import EarRecognizer
from earface.core.errors import InputError
from earface.core.options import to_plain
from earface.core.progress import progress
from earface.data.identity_split import identity_digests
from earface.nn.margin_head import MarginHead, margin_at
from earface.training.module import MOST_EMBEDDED, TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group


class EarRecognizerLightning(TrainingModule[EarRecognizerTrainingConfig, EarRecognizerDataModule]):
    """Trains `self.model` and `self.head`.

    `val/loss`, which selects checkpoints, is the EER of the validation files, averaged over them.
    """

    model: EarRecognizer

    def __init__(self, config: EarRecognizerTrainingConfig, model: EarRecognizer, classes: list[str]) -> None:
        """classes: in the order of the head's rows."""
        super().__init__(config, EarRecognizer.format.kind, model.config)
        self.model, self.classes = model, classes
        self.head = MarginHead(
            model.config.embedding_dim, len(classes), config.head, 0.0, config.scale, config.sub_centers
        )
        self.loss = EarRecognizerLoss(config.label_smoothing)
        self.embeddings: Tensor | None = None  # (N, D) of validation ears, zero where another process has the ear

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.model.config = dataclasses.replace(self.model.config, contract=self.datamodule.contract)
            self.hparams["model"] = to_plain(self.model.config)
        super().setup(stage)

    def compile_networks(self, **options: Any) -> None:
        self.model.network.compile(**options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named optimiser groups: the backbone, scaled or layer by layer, and what is new."""
        config = self.config
        rate = config.lr * config.backbone_lr_scale
        groups = backbone_groups(self.model.layer_groups(), rate, config.layer_decay, config.weight_decay)
        if new := self.model.new_layers():
            groups += named_group("neck", new, config.head_lr, config.weight_decay)
        groups += named_group("head", [self.head], config.head_lr, config.weight_decay)
        check_groups(groups, self.parameters())
        return groups

    # -- training ----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        steps = self.optimiser_steps(self.config.margin_epochs)
        self.head.margin = margin_at(self.global_step, steps, self.config.margin)

    def training_step(self, batch: EarIdentityBatch, batch_idx: int) -> Tensor:
        embeddings = self.model(batch["image"]).float()
        result = self.loss(self.head(embeddings, batch["label"]), batch["label"])
        self.terms.add(self.global_step, {"loss": result.total, **result.terms}, batch["index"])
        return result.total

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.embeddings = None

    def validation_step(self, batch: EarIdentityBatch, batch_idx: int) -> None:
        found = self.model.embeddings(batch["image"])
        if self.embeddings is None:
            self.embeddings = found.new_zeros(len(self.datamodule.val_set), found.shape[1])
        self.embeddings.index_copy_(0, batch["index"], found)

    def on_validation_epoch_end(self) -> None:
        ears = self.datamodule.val_set
        if self.embeddings is None:  # a process without a batch
            device = self.trainer.strategy.root_device
            self.embeddings = torch.zeros(len(ears), self.model.config.embedding_dim, device=device)
        embeddings = self.over_processes(self.embeddings).cpu().numpy()
        starts = np.cumsum([0, *map(len, ears.files)])
        means = self._metrics([embeddings[start:end] for start, end in pairwise(starts)])
        eers = [value for name, value in means.items() if name.startswith("val/eer")]
        shown = tuple(name for name in means if name.startswith(("val/eer", "val/rank1")))
        self.log_validation({"val/loss": sum(eers) / len(eers), **means}, shown=("val/loss", *shown))

    def _metrics(self, features: list[NDArray[np.floating]]) -> dict[str, float]:
        """`val/NAME` of each file's ears by their (N, D) features; with several files, each under its number."""
        means: dict[str, float] = {}
        files = self.datamodule.val_set.files
        for number, (file, rows) in enumerate(zip(files, features, strict=True)):
            found = identification(rows, file.subjects)
            values = {"eer": found.eer, "rank1": found.rank1, "tar": found.tar}
            suffix = f"_{number + 1}" if len(files) > 1 else ""
            means |= {f"val/{name}{suffix}": value for name, value in values.items() if value is not None}
        return means

    def baselines(self) -> dict[str, dict[str, float]]:
        """Histograms of oriented gradients of the same ears."""
        with progress("histograms of gradients, the baseline", quiet=self.config.progress == "none"):
            return {"HOG": self._metrics([hog_features(file.images) for file in self.datamodule.val_set.files])}

    def on_train_end(self) -> None:
        """Up to MOST_EMBEDDED validation ears, evenly spread, for TensorBoard's projector."""
        if not self.draws_pictures or not self.tensorboard():
            return
        ears = self.datamodule.val_set
        chosen = np.linspace(0, len(ears) - 1, min(len(ears), MOST_EMBEDDED)).round().astype(int)
        images = np.stack([ears.files[file].images[row] for file, row in (ears.places[each] for each in chosen)])
        embeddings = encode_all(self.model.embeddings, images, self.datamodule.least_val_batch, str(self.device))
        labels = [ears.files[file].subjects[row] for file, row in (ears.places[each] for each in chosen)]
        self.log_embeddings("validation ears", embeddings, labels, unit_images(images))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self._digests(self.classes)
        files = self.datamodule.train_files  # by plain names too, for pictures of which nothing says the set
        people = {name for file in files for name in (*file.people, *file.subjects)}
        checkpoint["trained_on"] = self._digests(sorted(people))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if checkpoint["classes"] != self._digests(self.classes):
            raise InputError(
                f"{self.config.train_npy[0]}: its classes are not those that the run began with: train on the same "
                "ears, or start again with `resume` never"
            )
        stored = EarRecognizer.stored_config(checkpoint, "the checkpoint").contract
        if stored != self.datamodule.contract:
            raise InputError(
                f"{self.config.train_npy[0]}: its ears are in the form {self.datamodule.contract}, and the run began "
                f"with {stored}: start another, or prepare the ears again as they were"
            )

    @staticmethod
    def _digests(names: list[str]) -> list[str]:
        return identity_digests(names)
