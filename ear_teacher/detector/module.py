"""The training of an EarDetector: a training step, validation, image grids."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ear_teacher.detector.box_detector import candidates
from ear_teacher.detector.config import EarDetectorTrainingConfig
from ear_teacher.detector.datamodule import EarDetectorBatch, EarDetectorDataModule
from ear_teacher.detector.drawing import draw_detections, photograph_grid
from ear_teacher.detector.losses import EarDetectorLoss, EarDetectorLossWeights, box_losses, landmark_losses
from ear_teacher.detector.metrics.average_precision import BoxResult, coco_metrics
from ear_teacher.detector.metrics.landmark_error import ear_lengths, ear_means, normalised_errors
from ear_teacher.detector.model import Detections, EarDetector
from earface.data.annotations import Photograph
from earface.data.images import read_image, write_image
from earface.nn.checkpoint import read_checkpoint
from earface.training.datamodule import print_once
from earface.training.module import TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group

TILE_SIDE, GRID_COLUMNS = 480, 4
SHOWN_SCORE = 0.3  # of the detections shown each epoch
Each = TypeVar("Each")
BOX_TERMS, LANDMARK_TERMS = ("score", "box"), ("heatmap", "landmark", "visibility")


class EarDetectorLightning(TrainingModule[EarDetectorTrainingConfig, EarDetectorDataModule]):
    """Trains `self.model`, an EarDetector.

    config: resolved; see `EarDetectorTrainingConfig.resolved`. model: new, with the data's landmark names, or trained.
    """

    model: EarDetector

    def __init__(self, config: EarDetectorTrainingConfig, model: EarDetector) -> None:
        super().__init__(config, EarDetector.format.kind, model.config)
        self.model = model
        weights = EarDetectorLossWeights(
            config.box_weight, config.heatmap_weight, config.landmark_weight, config.visibility_weight
        )
        self.loss = EarDetectorLoss(weights)
        self.model.freeze(None if config.freeze_encoder else config.freeze_layers)
        if not config.train_boxes:
            self.model.boxes.freeze()
        if config.gradient_checkpointing:
            for backbone in self.model.backbones():
                backbone.set_grad_checkpointing()

    def initialise_from(self, path: str) -> None:
        print_once(self.model.initialise_from(path))  # before there is a trainer

    @classmethod
    def load_from_checkpoint(cls, path: str, map_location: str = "cpu", weights: str = "averaged") -> Self:  # type: ignore[override]
        """A trained module for inference; see `EarDetector.load_from_checkpoint`."""
        checkpoint = read_checkpoint(path)
        model = EarDetector.from_checkpoint(checkpoint, path, map_location, weights)
        options = checkpoint["hyper_parameters"]["options"]
        return cls(EarDetectorTrainingConfig(**options), model).eval()

    def forward(self, images: list[Tensor]) -> list[Detections]:
        found: list[Detections] = self.model(images)
        return found

    def compile_networks(self, **options: Any) -> None:
        for net in (self.model.boxes, self.model.landmarks):
            if net is not None:
                net.backbone.compile_regions(**options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named optimiser groups: the copies of the encoder (scaled, possibly layer by layer), pyramid and heads."""
        config, model = self.config, self.model
        groups = []
        for name, net in (("boxes", model.boxes), ("landmarks", model.landmarks)):
            if net is None or (net is model.boxes and model.boxes.frozen):
                continue
            backbone = net.backbone
            rate = config.lr * config.backbone_lr_scale
            groups += [
                {**group, "name": group["name"].replace("backbone", f"{name}.backbone", 1)}
                for group in backbone_groups(backbone.layer_groups(), rate, config.layer_decay, config.weight_decay)
            ]
            new = [module for key, module in net.named_children() if key != "backbone"]
            loose = torch.nn.ParameterList(net.parameters(recurse=False))
            groups += named_group(name, [*new, loose], config.lr, config.weight_decay)
        check_groups(groups, model.parameters())
        return groups

    # -- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: EarDetectorBatch, batch_idx: int) -> Tensor:
        terms = self._box_terms(batch)[0] if self.config.train_boxes else {}
        if self.model.landmarks is not None:
            terms |= self._landmark_terms(batch)[0]
        result = self.loss(terms)
        self.terms.add(self.global_step, {"loss": result.total, **result.terms}, batch["index"])
        return result.total

    def _box_terms(self, batch: EarDetectorBatch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses of score and box, and the predictions at every place: logits and boxes."""
        net = self.model.boxes
        logits, boxes = net(batch["image"])
        ears = batch["boxes"], batch["unclear"], batch["complete"]
        return box_losses(logits, boxes, net.places, net.strides, net.level_sizes, *ears), logits, boxes

    def _landmark_terms(self, batch: EarDetectorBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of the crops, and the predicted points."""
        net = self.model.landmarks
        assert net is not None, "this model has no landmarks"
        keypoints = batch["keypoints"]
        if len(batch["crops"]):
            points, visibility, heat = net(batch["crops"])
            return landmark_losses(points, visibility, heat, keypoints, self.model.config.crop_size), points
        # distributed training needs a gradient for every parameter, and every process in what the losses share
        nothing = sum((each.sum() * 0.0 for each in net.parameters() if each.requires_grad), net.cells.new_zeros(()))
        points, visibility, heat = (net.cells.new_zeros(*keypoints.shape[:2], *sides) for sides in ((2,), (), (1, 1)))
        terms = landmark_losses(points, visibility, heat, keypoints, self.model.config.crop_size)
        return {name: term + nothing for name, term in terms.items()}, points

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        landmarks = LANDMARK_TERMS if self.model.landmarks is not None else ()
        boxes = BOX_TERMS if self.config.train_boxes else ()
        self.validation_terms = (*boxes, *landmarks)
        super().on_validation_epoch_start()
        self.results: list[BoxResult] = []
        self.errors: list[float] = []  # NME of each crop
        if self.draws_pictures:
            self._draw_detections()

    def validation_step(self, batch: EarDetectorBatch, batch_idx: int) -> dict[str, Tensor]:
        """Terms, detections and annotations of a batch, on the CPU."""
        terms, logits, places = self._box_terms(batch)
        boxes = {"found": candidates(logits, places), "ears": batch["boxes"], "complete": batch["complete"]}
        values = {**boxes, **(terms if self.config.train_boxes else {})}
        if len(batch.get("crops", ())):
            landmark_terms, points = self._landmark_terms(batch)
            values |= {**landmark_terms, "points": points, "keypoints": batch["keypoints"]}
        return _to_cpu(values)

    def on_validation_batch_end(
        self, outputs: Any, batch: EarDetectorBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for names, samples in ((BOX_TERMS, batch["image"]), (LANDMARK_TERMS, batch.get("crops", ()))):
            self.sums.add({name: outputs[name] for name in names if name in outputs}, len(samples))
        ears = zip(self.model.remaining(outputs["found"]), outputs["ears"], outputs["complete"], strict=True)
        for (boxes, scores), truth, complete in ears:
            if complete:
                self.results.append(BoxResult(truth[~truth[:, 0].isnan()], boxes, scores))
        if "points" in outputs:
            points, keypoints = outputs["points"].numpy(), outputs["keypoints"].numpy()
            lengths = ear_lengths(keypoints, np.zeros((len(points), 4), np.float32), "landmark-box")
            means = ear_means(normalised_errors(points, keypoints, lengths))
            self.errors += means[~np.isnan(means)].tolist()

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        results, errors = self._gathered(self.results), self._gathered(self.errors)
        coco = coco_metrics(results)
        found = {} if coco is None else {"val/ap": coco.ap, "val/ap50": coco.ap50}
        if errors:
            found["val/nme"] = float(np.mean(errors))
        terms = {name.removeprefix("val/"): torch.tensor(mean, dtype=torch.float64) for name, mean in means.items()}
        self.log_validation(
            {"val/loss": float(self.loss(terms).total), **means, **found},
            shown=("val/loss", "val/ap50", "val/ap", "val/nme"),
        )

    def _gathered(self, mine: list[Each]) -> list[Each]:
        """Of all processes."""
        if self.trainer.world_size == 1:
            return mine
        parts: list[list[Each]] = [[]] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, mine)
        return [each for part in parts for each in part]

    def _draw_detections(self) -> None:
        """The same validation photographs every epoch, with detections and annotations, as PNG and in TensorBoard."""
        photographs: list[Photograph] = self.datamodule.val_set.photographs
        with_ears = [each for each in photographs if len(each.boxes)]
        chosen = np.unique(np.linspace(0, len(with_ears) - 1, self.config.grid_images).round().astype(int))
        shown = [with_ears[index] for index in chosen]
        images = [read_image(each.path, self.model.config.in_channels) for each in shown]
        skeleton = self.model.config.skeleton
        pictures = [
            draw_detections(
                image,
                found,
                truth=each,
                skeleton=skeleton,
                min_score=SHOWN_SCORE,
                min_side=TILE_SIDE,
            )
            for image, found, each in zip(images, self.model.predict(images), shown, strict=True)
        ]
        grid = photograph_grid(pictures, min(GRID_COLUMNS, len(pictures)))
        with self.going_on():
            write_image(self.log_dir / "detections" / f"epoch_{self.current_epoch:03d}.png", grid)
            self.log_picture("detections", grid)


def _to_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 on the CPU, in one copy: each copy synchronises the GPU."""
    flat = torch.cat([value.float().flatten() for value in values.values()]).cpu()
    parts = flat.split([value.numel() for value in values.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}
