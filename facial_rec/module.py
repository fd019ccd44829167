"""The fine-tuning of EdgeFace: a step of either stage; what is gained on low-resolution and lost on sharp faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from earface.core.errors import InputError
from earface.data.identity_split import identity_digests
from earface.nn.checkpoint import load_fitting, model_state, read_checkpoint
from earface.nn.frozen import FrozenCopy
from earface.nn.lora import add_adapters
from earface.nn.margin_head import MarginHead, margin_loss
from earface.nn.upsampler import HR
from earface.training.module import TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group
from facial_rec.config import EdgeFaceConfig, EdgeFaceStageConfig
from facial_rec.contract import FaceContract
from facial_rec.datamodule import UNSEEN
from facial_rec.metrics import by_route, selection_loss
from facial_rec.model import EMBEDDING_DIM, EdgeFace, unit


class EdgeFaceLightning(TrainingModule):
    """Trains `self.head`, and in stage 2 `self.model`, with which it starts from `model`.

    identities: the classes, in the order of the head's rows.
    `val/loss`, by which checkpoints are chosen, is in stage 1 the margin-free cross entropy of held-out pictures, and
    in stage 2 facial_rec.metrics.selection_loss of people who are not trained on.
    """

    def __init__(self, config: EdgeFaceStageConfig, model: EdgeFace, identities: Sequence[str]) -> None:
        super().__init__(config, "edgeface", EdgeFaceConfig(model.variant))
        self.identities = list(identities)
        self.contract = FaceContract(config.face_crop)
        self.stock = FrozenCopy(model)  # before anything is adapted
        self.model = model
        self.head = MarginHead(EMBEDDING_DIM, len(identities), config.head, config.arcface_margin, config.scale)
        self.adapters: list[Any] = []
        if config.stage == 1:
            model.requires_grad_(False)
        elif config.lora_rank:
            self.adapters = add_adapters(model, config.lora_rank)
        self.faces: dict[str, Tensor] = {}  # route -> (N, D), zero where another process has the face
        self.stock_figures: dict[str, float] = {}

    def train(self, mode: bool = True) -> EdgeFaceLightning:
        """The network of stage 1 stays in evaluation mode: frozen."""
        super().train(mode)
        if self.config.stage == 1:
            self.model.eval()
        return self

    def take_head(self, path: Path) -> None:
        """The class centres that stage 1 learned. Raises InputError for a checkpoint of other classes or margin."""
        checkpoint = read_checkpoint(path)
        self._check_classes(checkpoint, path)
        state = model_state(checkpoint)
        load_fitting(self.head, {name: state[f"head.{name}"] for name in self.head.state_dict()}, path)

    # -- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """A compiled objective cannot move the stock network."""
        self.stock.to(self.device)

    def compile_networks(self, **options: Any) -> None:
        self.objective = torch.compile(self.objective, **options)  # type: ignore[method-assign]

    def parameter_groups(self) -> list[dict[str, Any]]:
        config = self.config
        if config.stage == 1:
            groups = named_group("head", [self.head], config.head_lr, config.weight_decay)
        else:
            rate, decay = config.backbone_lr, config.weight_decay
            groups = (
                named_group("adapters", self.adapters, rate, decay)
                if self.adapters
                else backbone_groups(self.model.layer_groups(), rate, config.layer_decay, decay)
            ) + named_group("head", [self.head], config.head_lr_stage2, decay)
        check_groups(groups, self.parameters())
        return groups

    def objective(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a training batch, and its terms without their weights: what is compiled as one."""
        config, terms = self.config, {}
        keeping = config.keep_weight > 0 and config.stage == 2
        shown = torch.cat([batch["image"], batch[HR]]) if keeping else batch["image"]
        with torch.set_grad_enabled(config.stage == 2):
            embeddings = self.model(self.contract(shown)).float()
        embeddings, kept = embeddings[: len(batch["label"])], embeddings[len(batch["label"]) :]
        terms["arcface"] = margin_loss(self.head(embeddings, batch["label"]), batch["label"], config.label_smoothing)
        total = config.lambda_arcface * terms["arcface"]
        if config.stage == 2 and HR in batch:
            wanted = unit(self.stock(self.contract(batch[HR])))
            terms["align"] = (1.0 - (unit(embeddings) * wanted).sum(dim=1)).mean()
            total = total + config.lambda_align * terms["align"]
            if keeping:
                terms["keep"] = (1.0 - (unit(kept) * wanted).sum(dim=1)).mean()
                total = total + config.keep_weight * terms["keep"]
        return total, terms

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        total, terms = self.objective(batch)
        self.terms.add(self.global_step, {"loss": total, **terms}, batch["index"])
        return total

    # -- validation --------------------------------------------------------------------------------------------------

    validation_terms = ("cross_entropy", "accuracy")  # also where a process has no held-out picture

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.faces = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Without augmentation. The first route is the one of classification."""
        labels = batch["label"]
        for route in self._routes():
            embeddings = self.model(self.contract(batch[route])).float()
            self._put(route, batch["index"], unit(embeddings))
            if route == self.config.main_route:
                logits, held_out = self.head(embeddings), (labels != UNSEEN).sum()
                values = {  # NaN, and not counted, where none is held out
                    "cross_entropy": F.cross_entropy(logits, labels, ignore_index=UNSEEN),
                    "accuracy": (logits.argmax(dim=1) == labels).sum() / held_out,
                }
                self.sums.add(values, held_out)
            if not self.stock_figures:
                self._put(f"stock_{route}", batch["index"], unit(self.stock(self.contract(batch[route]))))

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        recognised = self._recognised("") | self._stock_recognised()
        means |= {f"val/{name}": value for name, value in recognised.items()}
        low = self._routes()[1:] or [HR]
        chosen_by = selection_loss(recognised, low, HR, self.config.max_forgetting / 100)
        means["val/loss"] = means["val/cross_entropy"] if self.config.stage == 1 else chosen_by
        self.log_validation(means, shown=("val/loss", "val/accuracy", *(f"val/rank1_{r}" for r in self._routes())))

    def _stock_recognised(self) -> dict[str, float]:
        """The same in every epoch, and measured in the first of this process."""
        if not self.stock_figures:
            self.stock_figures = self._recognised("stock_")
        return self.stock_figures

    def _recognised(self, whose: str) -> dict[str, float]:
        """Unseen people, by their faces of each route against their HR ones."""
        dataset = self.datamodule.val_set
        unseen = np.flatnonzero(dataset.labels == UNSEEN)
        names = [whose + route for route in self._routes()]
        tables = {name: self.over_processes(self.faces[name]).cpu()[unseen] for name in names}
        return by_route(tables, whose + HR, [dataset.identities[place] for place in unseen])

    def _routes(self) -> list[str]:
        return [HR, *self.datamodule.val_set.faces.inputs]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self._classes()
        checkpoint["trained_on"] = sorted(self._classes())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._check_classes(checkpoint, "the checkpoint")

    def _classes(self) -> list[str]:
        """A digest of each identity, in the order of the head's rows."""
        return [identity_digests([identity])[0] for identity in self.identities]

    def _check_classes(self, checkpoint: dict[str, Any], path: str | Path) -> None:
        stored, own = checkpoint["classes"], self._classes()
        if stored != own:
            raise InputError(
                f"{path}: was trained on {len(stored)} identities, and {self.config.dataset_root} has {len(own)}"
                f"{'' if len(stored) != len(own) else ' others'} with {self.config.min_images} or more pictures: train "
                "on the same set, or start again with --resume never"
            )

    def _put(self, name: str, index: Tensor, embeddings: Tensor) -> None:
        if name not in self.faces:
            self.faces[name] = embeddings.new_zeros(len(self.datamodule.val_set), EMBEDDING_DIM, dtype=torch.float32)
        self.faces[name].index_copy_(0, index, embeddings.float())
