"""The fine-tuning of EdgeFace: a step of either stage; what is gained on low-resolution and lost on hr faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from earface.core.errors import InputError
from earface.data.face_sizes import HR
from earface.data.identity_split import identity_digests
from earface.nn.checkpoint import load_fitting, model_state, read_checkpoint
from earface.nn.frozen import FrozenCopy
from earface.nn.lora import add_adapters, under_adapters
from earface.nn.losses import LossResult
from earface.nn.margin_head import MarginHead
from earface.training.module import TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group
from facial_rec.config import EdgeFaceStageConfig
from facial_rec.contract import FaceContract
from facial_rec.datamodule import UNSEEN, EdgeFaceDataModule
from facial_rec.losses import EdgeFaceLoss, EdgeFaceLossWeights
from facial_rec.metrics import by_upsampler, selection_loss
from facial_rec.model import EMBEDDING_DIM, EdgeFace, unit


class EdgeFaceLightning(TrainingModule[EdgeFaceStageConfig, EdgeFaceDataModule]):
    """Trains `self.head`, and in stage 2 `self.model`, with which it starts from `model`.

    identities: the classes, in the order of the head's rows.
    `val/loss`, by which checkpoints are chosen, is in stage 1 the margin-free cross entropy of held-out pictures, and
    in stage 2 facial_rec.metrics.selection_loss of people who are not trained on.
    """

    def __init__(self, config: EdgeFaceStageConfig, model: EdgeFace, identities: Sequence[str]) -> None:
        super().__init__(config, EdgeFace.format.kind, model.config)
        self.identities = list(identities)
        self.contract = FaceContract(config.crop)
        self.pretrained = FrozenCopy(model)  # before anything is adapted
        self.model = model
        self.head = MarginHead(EMBEDDING_DIM, len(identities), config.head, config.arcface_margin, config.scale)
        weights = EdgeFaceLossWeights(config.lambda_arcface, config.lambda_align, config.keep_weight)
        self.loss = EdgeFaceLoss(weights, config.label_smoothing)
        self.adapters: list[Any] = []
        if config.stage == 1:
            model.requires_grad_(False)
        elif config.lora_rank:
            self.adapters = add_adapters(model, config.lora_rank)
        self.inherited: set[str] = set()  # identities that the initial weights were trained on
        self.faces: dict[str, Tensor] = {}  # upsampler -> (N, D), zero where another process has the face
        self.pretrained_metrics: dict[str, float] = {}

    def train(self, mode: bool = True) -> EdgeFaceLightning:
        """The network of stage 1 stays in evaluation mode: frozen."""
        super().train(mode)
        if self.config.stage == 1:
            self.model.eval()
        return self

    def start_from_stage1(self, path: Path) -> None:
        """Its network and the class centres that it learned. Raises InputError for a checkpoint of other classes or
        margin."""
        checkpoint = read_checkpoint(path)
        self._check_classes(checkpoint, path)
        self.initialise_from(str(path))
        state = model_state(checkpoint)
        load_fitting(self.head, {name: state[f"head.{name}"] for name in self.head.state_dict()}, path)

    def initialise_from(self, path: str) -> None:
        """The network of an earlier fine-tuning; what `align` and `keep` compare with is the pretrained one still.

        Raises InputError where the shapes differ.
        """
        earlier = EdgeFace.load(path)
        load_fitting(self.model, under_adapters(earlier.state_dict(), self.model), path)
        self.inherited |= set(earlier.provenance.trained_on) - set(self._classes())

    # -- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """A compiled objective cannot move the pretrained network."""
        self.pretrained.to(self.device)

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

    def objective(self, batch: dict[str, Any]) -> LossResult:
        """The loss of a training batch: what is compiled as one."""
        config = self.config
        with_hr = config.stage == 2 and HR in batch
        keeping = with_hr and config.keep_weight > 0
        shown = torch.cat([batch["image"], batch[HR]]) if keeping else batch["image"]
        with torch.set_grad_enabled(config.stage == 2):
            embeddings = self.model(self.contract(shown)).float()
        embeddings, of_hr = embeddings[: len(batch["label"])], embeddings[len(batch["label"]) :]
        pretrained = unit(self.pretrained(self.contract(batch[HR]))) if with_hr else None
        logits = self.head(embeddings, batch["label"])
        return self.loss(logits, batch["label"], embeddings, pretrained, of_hr if keeping else None)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        result = self.objective(batch)
        self.terms.add(self.global_step, {"loss": result.total, **result.terms}, batch["index"])
        return result.total

    # -- validation --------------------------------------------------------------------------------------------------

    validation_terms = ("cross_entropy", "accuracy")  # also where a process has no held-out picture

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.faces = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Without augmentation. The first upsampler is the one of classification."""
        labels = batch["label"]
        for upsampler in self._upsamplers():
            embeddings = self.model(self.contract(batch[upsampler])).float()
            self._put(upsampler, batch["index"], unit(embeddings))
            if upsampler == self.config.main_input:
                logits, held_out = self.head(embeddings), (labels != UNSEEN).sum()
                values = {  # NaN, and not counted, where none is held out
                    "cross_entropy": F.cross_entropy(logits, labels, ignore_index=UNSEEN),
                    "accuracy": (logits.argmax(dim=1) == labels).sum() / held_out,
                }
                self.sums.add(values, held_out)
            if not self.pretrained_metrics:
                self._put(
                    f"pretrained_{upsampler}", batch["index"], unit(self.pretrained(self.contract(batch[upsampler])))
                )

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        recognised = self._recognised("") | self._pretrained_recognised()
        means |= {f"val/{name}": value for name, value in recognised.items()}
        low = self._upsamplers()[1:] or [HR]
        chosen_by = selection_loss(recognised, low, HR, self.config.max_forgetting / 100)
        means["val/loss"] = means["val/cross_entropy"] if self.config.stage == 1 else chosen_by
        self.log_validation(means, shown=("val/loss", "val/accuracy", *(f"val/rank1_{r}" for r in self._upsamplers())))

    def _pretrained_recognised(self) -> dict[str, float]:
        """The same in every epoch, and measured in the first of this process."""
        if not self.pretrained_metrics:
            self.pretrained_metrics = self._recognised("pretrained_")
        return self.pretrained_metrics

    def _recognised(self, whose: str) -> dict[str, float]:
        """Unseen people, by their faces of each upsampler against their HR ones."""
        dataset = self.datamodule.val_set
        unseen = np.flatnonzero(dataset.labels == UNSEEN)
        names = [whose + upsampler for upsampler in self._upsamplers()]
        tables = {name: self.over_processes(self.faces[name]).cpu()[unseen] for name in names}
        return by_upsampler(tables, whose + HR, [dataset.identities[place] for place in unseen])

    def _upsamplers(self) -> list[str]:
        return [HR, *self.datamodule.val_set.faces.inputs]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self._classes()
        checkpoint["trained_on"] = sorted({*self._classes(), *self.inherited})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._check_classes(checkpoint, "the checkpoint")
        self.inherited |= set(checkpoint["trained_on"]) - set(self._classes())

    def _classes(self) -> list[str]:
        """A digest of each identity, in the order of the head's rows."""
        return [identity_digests([identity])[0] for identity in self.identities]

    def _check_classes(self, checkpoint: dict[str, Any], path: str | Path) -> None:
        stored, own = checkpoint["classes"], self._classes()
        if stored != own:
            raise InputError(
                f"{path}: was trained on {len(stored)} identities, and {self.config.dataset_root} has {len(own)}"
                f"{'' if len(stored) != len(own) else ' others'} with {self.config.min_images} or more pictures: train "
                "on the same set, or start again with `resume` never"
            )

    def _put(self, name: str, index: Tensor, embeddings: Tensor) -> None:
        if name not in self.faces:
            self.faces[name] = embeddings.new_zeros(len(self.datamodule.val_set), EMBEDDING_DIM, dtype=torch.float32)
        self.faces[name].index_copy_(0, index, embeddings.float())
