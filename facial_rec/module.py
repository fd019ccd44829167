"""The fine-tuning of EdgeFace: a step of either stage, and validation on low-resolution and HR faces."""

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
from earface.nn.edgeface import EMBEDDING_DIM
from earface.nn.edgeface_weights import VARIANTS
from earface.nn.frozen import FrozenCopy
from earface.nn.lora import LowRank, add_adapters, under_adapters
from earface.nn.losses import LossResult
from earface.nn.margin_head import MarginHead
from earface.training.module import TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group
from facial_rec.config import EdgeFaceStageConfig
from facial_rec.contract import FaceContract
from facial_rec.datamodule import UNSEEN, EdgeFaceDataModule, TrainingBatch, ValidationBatch
from facial_rec.losses import EdgeFaceLoss, EdgeFaceLossWeights
from facial_rec.metrics import metrics_by_upsampler, selection_loss
from facial_rec.model import EdgeFace, unit


class EdgeFaceLightning(TrainingModule[EdgeFaceStageConfig, EdgeFaceDataModule]):
    """Trains `self.head` and, in stage 2, `self.model`.

    model: the pretrained network, a frozen copy of which all terms but the margin loss compare with. identities: the
    classes, in the order of the head's rows. `val/loss`, which selects checkpoints, is in stage 1 the cross entropy of
    held-out images without margin, and in stage 2 facial_rec.metrics.selection_loss of the validation identities.
    """

    model: EdgeFace

    def __init__(self, config: EdgeFaceStageConfig, model: EdgeFace, identities: Sequence[str]) -> None:
        super().__init__(config, EdgeFace.format.kind, model.config)
        self.identities = list(identities)
        self.contract = FaceContract(config.crop)
        self.pretrained = FrozenCopy(model)  # before anything is adapted
        self.model = model
        self.head = MarginHead(EMBEDDING_DIM, len(identities), config.head, config.arcface_margin, config.scale)
        weights = EdgeFaceLossWeights(
            config.lambda_arcface, config.lambda_align, config.keep_weight, config.lambda_feature_match
        )
        self.loss = EdgeFaceLoss(weights, config.label_smoothing, UNSEEN if config.extra_hr else None)
        self.adapters: list[LowRank] = []
        if config.stage == 1:
            model.requires_grad_(False)
        elif config.lora_rank:
            self.adapters = add_adapters(model, config.lora_rank)
        self.inherited: set[str] = set()  # identities that the initial weights were trained on
        self.faces: dict[str, Tensor] = {}  # upsampler or HR -> (N, D), zero where another process has the face
        self.pretrained_metrics: dict[str, float] = {}

    def train(self, mode: bool = True) -> EdgeFaceLightning:
        """In stage 1 the frozen network stays in evaluation mode."""
        super().train(mode)
        if self.config.stage == 1:
            self.model.eval()
        return self

    def start_from_stage1(self, path: Path) -> None:
        """Its network and class centres. Raises InputError for a checkpoint of other classes or another margin."""
        checkpoint = read_checkpoint(path)
        self._check_classes(checkpoint, path)
        self.initialise_from(str(path))
        state = model_state(checkpoint)
        load_fitting(self.head, {name: state[f"head.{name}"] for name in self.head.state_dict()}, path)

    def initialise_from(self, path: str) -> None:
        """The network of an earlier fine-tuning; `align` and `keep` still compare with the pretrained one.

        Raises InputError for another variant.
        """
        earlier = EdgeFace.load(path)
        if not VARIANTS[earlier.variant].same_network(VARIANTS[self.model.variant]):
            raise InputError(
                f"{path}: was fine-tuned from {earlier.variant}, not {self.model.variant}: give that as `recognizer`"
            )
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

    def objective(self, batch: TrainingBatch) -> LossResult:
        """The loss of a training batch, compiled as a whole."""
        config, labels = self.config, batch["label"]
        hr = batch.get("hr") if config.stage == 2 else None
        keeping = hr is not None and config.keep_weight > 0
        faces = torch.cat([batch["image"], hr]) if hr is not None and keeping else batch["image"]
        if hr is not None and config.lambda_feature_match:
            features = self.model.features(self.contract(faces))
            embeddings, maps = self.model.from_features(features).float(), [each[: len(labels)] for each in features]
        else:
            with torch.set_grad_enabled(config.stage == 2):
                embeddings = self.model(self.contract(faces)).float()
            maps = None
        wanted, pretrained = (None, None) if hr is None else self._of_pretrained(self.contract(hr), maps is not None)
        embeddings, of_hr = embeddings[: len(labels)], embeddings[len(labels) :]
        if config.extra_hr:
            logits = self.head(embeddings, labels.clamp_min(0), labels != UNSEEN)
        else:
            logits = self.head(embeddings, labels)
        return self.loss(logits, labels, embeddings, pretrained, of_hr if keeping else None, maps, wanted)

    @torch.no_grad()
    def _of_pretrained(self, faces: Tensor, with_maps: bool) -> tuple[list[Tensor] | None, Tensor]:
        """The pretrained network's maps, where they are wanted, and its embeddings of length 1."""
        if not with_maps:
            return None, unit(self.pretrained(faces))
        self.pretrained.to(faces.device)
        network = self.pretrained.model
        assert isinstance(network, EdgeFace)
        maps = network.features(faces)
        return maps, unit(network.from_features(maps))

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        result = self.objective(batch)
        self.terms.add(self.global_step, {"loss": result.total, **result.terms}, batch["index"])
        return result.total

    # -- validation --------------------------------------------------------------------------------------------------

    validation_terms = ("cross_entropy", "accuracy")  # also where a process has no held-out image

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.faces = {}

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        """Without augmentation. Classification is measured on the faces of `main_input`."""
        labels = batch["label"]
        for name in self._inputs():
            faces = self.contract(batch["images"][name])
            embeddings = self.model(faces).float()
            self._put(name, batch["index"], unit(embeddings))
            if name == self.config.main_input:
                logits, held_out = self.head(embeddings), (labels != UNSEEN).sum()
                values = {  # NaN, and not counted, if none is held out
                    "cross_entropy": F.cross_entropy(logits, labels, ignore_index=UNSEEN),
                    "accuracy": (logits.argmax(dim=1) == labels).sum() / held_out,
                }
                self.sums.add(values, held_out)
            if not self.pretrained_metrics:
                self._put(f"pretrained_{name}", batch["index"], unit(self.pretrained(faces)))

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        recognised = self._recognised("") | self._pretrained_recognised()
        means |= {f"val/{name}": value for name, value in recognised.items()}
        low = self._inputs()[1:] or [HR]
        selection = selection_loss(recognised, low, HR, self.config.max_forgetting / 100)
        means["val/loss"] = means["val/cross_entropy"] if self.config.stage == 1 else selection
        rank1 = (f"val/rank1_{name}" for name in self._inputs())
        self.log_validation(means, shown=("val/loss", "val/accuracy", *rank1))

    def _pretrained_recognised(self) -> dict[str, float]:
        """The same in every epoch; measured in the first one of this process."""
        if not self.pretrained_metrics:
            self.pretrained_metrics = self._recognised("pretrained_")
        return self.pretrained_metrics

    def _recognised(self, prefix: str) -> dict[str, float]:
        """Metrics of the validation identities by upsampler, against HR faces. prefix: of the network's tables."""
        dataset = self.datamodule.val_set
        unseen = np.flatnonzero(dataset.labels == UNSEEN)
        names = [prefix + name for name in self._inputs()]
        tables = {name: self.over_processes(self.faces[name]).cpu()[unseen] for name in names}
        return metrics_by_upsampler(tables, prefix + HR, [dataset.identities[place] for place in unseen])

    def _inputs(self) -> list[str]:
        """HR, and the upsamplers whose faces are validated on."""
        return [HR, *self.datamodule.val_set.faces.enlarged]

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
                f"{'' if len(stored) != len(own) else ' others'} with {self.config.min_images} or more images: train "
                "on the same set, or start again with `resume` never"
            )

    def _put(self, name: str, index: Tensor, embeddings: Tensor) -> None:
        if name not in self.faces:
            self.faces[name] = embeddings.new_zeros(len(self.datamodule.val_set), EMBEDDING_DIM, dtype=torch.float32)
        self.faces[name].index_copy_(0, index, embeddings.float())
