"""EarDetector: photographs of any size to boxes, scores and landmarks of their ears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ear_teacher.backbones import Backbone
from ear_teacher.detector.box_detector import MAX_DETECTIONS, BoxDetector, Suppression, candidates, suppress
from ear_teacher.detector.config import FROM_VAE, EarDetectorConfig
from ear_teacher.detector.hub import FORMAT, MODEL_CARD, TAGS, provenance, read_rules
from ear_teacher.detector.landmarker import MARGIN, Landmarker
from ear_teacher.encoders import build_backbone
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.data.affine import AffineMap, crop_around, letterbox
from earface.data.annotations import Floats
from earface.data.given import Pictures, each_picture, pixels_of_picture
from earface.data.images import Pixels
from earface.data.pixels import to_model_range, to_uint8
from earface.nn.checkpoint import model_state, network_state, read_checkpoint
from earface.nn.inference import in_evaluation, weights_digest
from earface.nn.trained_model import TrainedModel

INFERENCE_BATCH = 8  # photographs, or crops times 4, in one call of the networks
EAR = 1  # label; torchvision's 0 is the background

Detections = dict[str, Tensor]


class EarDetector(
    TrainedModel[EarDetectorConfig],
    library_name="earface",
    pipeline_tag="object-detection",
    tags=TAGS,
    model_card_template=MODEL_CARD,
):
    """Two networks that start from the same encoder: one detects ears, one places landmarks in a crop around each.

    Each has its own copy of the encoder: whole photographs and single ears need different batch statistics. Detections
    below `score_threshold` are not returned.
    """

    format, command, old_key = FORMAT, "ears detector train", "detector"

    def __init__(
        self, config: EarDetectorConfig | None = None, encoder_weights: str = "none", **overrides: Any
    ) -> None:
        super().__init__()
        self.config = config = EarDetectorConfig(**{**asdict(config or EarDetectorConfig()), **overrides})
        config.check()
        self.score_threshold = 0.05
        self.suppression = Suppression()
        self.boxes = BoxDetector(
            build_backbone(config.backbone_config(config.image_size), encoder_weights),
            config.image_size,
            config.pyramid_width,
        )
        self.landmarks: Landmarker | None = None
        if config.num_landmarks:
            self.landmarks = Landmarker(
                build_backbone(config.backbone_config(config.crop_size), encoder_weights),
                config.crop_size,
                config.pyramid_width,
                config.num_landmarks,
            )

    @classmethod
    def from_vae_checkpoint(
        cls,
        checkpoint_path: str,
        num_landmarks: int = 17,
        freeze_encoder: bool = False,
        weights: str = "averaged",
        **shape: Any,
    ) -> Self:
        """A detector, to be trained, whose encoders are a trained ear VAE's; pyramid and heads are new.

        checkpoint_path: a .ckpt file of an ear VAE, or a glob: the newest match. weights: `averaged` (the EMA if
        the run kept one) or `raw`. shape: other fields of EarDetectorConfig, such as image_size. Raises InputError for
        any other file, and for a shape that contradicts its encoder.
        """
        stored = vae_options(checkpoint_path)
        wrong = [name for name in FROM_VAE if name in shape and shape[name] != stored.get(name, shape[name])]
        if wrong:
            raise InputError(f"{checkpoint_path}: has {wrong[0]} {stored[wrong[0]]!r}, not {shape[wrong[0]]!r}")
        of_vae = {name: stored[name] for name in FROM_VAE if name in stored}
        shape = {"crop_size": stored["image_size"], **shape, **of_vae}
        model = cls(EarDetectorConfig(num_landmarks=num_landmarks, **shape))
        model.load_encoder(checkpoint_path, weights)
        if freeze_encoder:
            model.freeze()
        return model

    def load_encoder(self, checkpoint_path: str, weights: str = "averaged") -> None:
        """Load the encoder of a trained ear VAE into both networks. Raises InputError if it is a different encoder."""
        prefix = "model.encoder.backbone."
        state = model_state(read_checkpoint(checkpoint_path), weights)
        encoder = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for backbone in self.backbones():
            _load(backbone, encoder, f"{checkpoint_path}: its encoder is not {self.config.encoder} of this shape")

    def backbones(self) -> list[Backbone]:
        """The copies of the encoder: the detector's and, with landmarks, the landmarker's."""
        return [net.backbone for net in (self.boxes, self.landmarks) if net is not None]

    def freeze(self, groups: int | None = None) -> None:
        """Freeze the first `groups` layer groups of both encoders, or all."""
        for backbone in self.backbones():
            backbone.freeze(len(backbone.layer_groups()) if groups is None else groups)

    # -- inference ---------------------------------------------------------------------------------------------------

    def forward(self, images: Sequence[Tensor]) -> list[Detections]:
        """Images, each float (C, H, W) in [-1, 1] of any size, to detections in torchvision's form; see `predict`."""
        return self.predict([to_uint8(image).cpu().numpy() for image in images])

    def detect(self, pictures: Pictures) -> list[Detections]:
        """`predict` of photographs in any form that Python code has them in, in evaluation mode.

        pictures: one or several of any size, as `earface.data.given` takes them. Raises InputError.
        """
        channels = self.config.in_channels
        return in_evaluation(EarDetector.predict)(
            self, [pixels_of_picture(picture, name, channels) for name, picture in each_picture(pictures)]
        )

    @torch.no_grad()
    def predict(self, photographs: Sequence[Pixels]) -> list[Detections]:
        """uint8 (H, W, C) photographs of any size to one dict each, best score first, in pixels of the photograph.

        boxes: (N, 4) x1 y1 x2 y2; scores: (N,) in [0, 1]; labels: (N,) int64, all 1; keypoints: (N, K, 3) x y and 1
        for visible, 0 for hidden; keypoints_scores: (N, K), the probability that it is visible.
        """
        found: list[Detections] = []
        for start in range(0, len(photographs), INFERENCE_BATCH):
            chunk = photographs[start : start + INFERENCE_BATCH]
            placements = [letterbox((image.shape[1], image.shape[0]), self.config.image_size) for image in chunk]
            squares = [
                placement.image(self._channels(image)) for placement, image in zip(placements, chunk, strict=True)
            ]
            for (boxes, scores), placement in zip(
                self.select(*self.boxes(self._batch(squares))), placements, strict=True
            ):
                width, height = placement.photograph
                limit = boxes.new_tensor([width, height, width, height])
                boxes = _corners(placement.boxes_back(_sides(boxes))).to(boxes)
                boxes = torch.minimum(boxes.clamp(min=0), limit)
                kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
                labels = torch.full_like(scores[kept], EAR, dtype=torch.int64)
                found.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels})
        placed = self.place_landmarks(photographs, [each["boxes"] for each in found])
        device = self.boxes.places.device
        on_device = [{name: value.to(device) for name, value in each.items()} for each in found]
        return [each | points for each, points in zip(on_device, placed, strict=True)]

    @torch.no_grad()
    def place_landmarks(self, photographs: Sequence[Pixels], boxes: Sequence[Tensor]) -> list[Detections]:
        """`keypoints` and `keypoints_scores` of given ears, as in `predict`. boxes: (N, 4) corners per photograph."""
        count = self.config.num_landmarks
        device = self.boxes.places.device
        boxes = [each.cpu() for each in boxes]
        points = [np.zeros((len(each), count, 3), np.float32) for each in boxes]
        scores = [torch.zeros(len(each), count) for each in boxes]
        if self.landmarks is not None:
            wanted = [(image, ear) for image, each in enumerate(boxes) for ear in range(len(each))]
            for start in range(0, len(wanted), 4 * INFERENCE_BATCH):
                chunk = wanted[start : start + 4 * INFERENCE_BATCH]
                placements = [self._crop(photographs[image], boxes[image][ear]) for image, ear in chunk]
                crops = [
                    placement.image(self._channels(photographs[image]))
                    for placement, (image, _) in zip(placements, chunk, strict=True)
                ]
                found, visibility = (each.cpu() for each in self.landmarks(self._batch(crops))[:2])
                for (image, ear), placement, xy, logits in zip(chunk, placements, found, visibility, strict=True):
                    points[image][ear, :, :2] = placement.points_back(xy.numpy())
                    points[image][ear, :, 2] = (logits > 0).numpy()
                    scores[image][ear] = logits.sigmoid()
        return [
            {"keypoints": torch.from_numpy(places).to(device), "keypoints_scores": each.to(device)}
            for places, each in zip(points, scores, strict=True)
        ]

    @torch.no_grad()
    def select(self, logits: Tensor, boxes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) and scores (N,) of each of B images, best first, on the CPU.

        logits (B, P) and boxes (B, P, 4): of every place.
        """
        return self.remaining(candidates(logits, boxes).cpu())

    def remaining(self, table: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As `select`, from `candidates` (B, C, 5), preferably on the CPU: the shapes depend on the values."""
        selected = []
        for rows in table:
            rows = rows[rows[:, 4] >= self.score_threshold]
            boxes, scores = rows[:, :4], rows[:, 4]
            kept = suppress(boxes, scores, **asdict(self.suppression))[:MAX_DETECTIONS]
            selected.append((boxes[kept], scores[kept]))
        return selected

    def _crop(self, photograph: Pixels, box: Tensor) -> AffineMap:
        size = photograph.shape[1], photograph.shape[0]
        return crop_around(_sides(box[None])[0], size, self.config.crop_size, MARGIN)

    def _channels(self, photograph: Pixels) -> Pixels:
        """Converted to the channels that the model takes."""
        wanted, found = self.config.in_channels, photograph.shape[2]
        if wanted == found:
            return photograph
        if wanted == 3:
            return np.repeat(photograph, 3, axis=2)
        return np.asarray(cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)[..., None], np.uint8)

    def _batch(self, squares: Sequence[Pixels]) -> Tensor:
        return to_model_range(torch.from_numpy(np.stack(squares)).to(self.boxes.places.device))

    # -- trained models ----------------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """SHA-256 of the weights and both sizes: see `weights_digest`."""
        return weights_digest(self, f"{self.config.image_size} {self.config.crop_size}")

    def saved_provenance(self) -> dict[str, Any]:
        return provenance(self.digest, self.score_threshold, self.suppression)

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        super().load_folder(folder, tensors)
        self.score_threshold, self.suppression = read_rules(folder)

    def initialise_from(self, path: str) -> str:
        """Load the weights of another detector's checkpoint where they fit; returns a sentence on those that do not.

        With another number of landmarks, their last layers keep random weights; with none, the landmarker does not
        exist. Raises InputError if encoder or pyramid differ.
        """
        state, own = network_state(read_checkpoint(path)), self.state_dict()
        anew = [name for name in own if name.startswith("landmarks.") and not _fits(state, own, name)]
        wrong = [name for name in own if name not in anew and not _fits(state, own, name)]
        if wrong or any(name.startswith("landmarks.backbone.") for name in anew if name in state):
            raise InputError(
                f"{path}: another encoder, size or pyramid than this run's (first at {(wrong or anew)[0]})"
            )
        self.load_state_dict({**own, **{name: state[name] for name in own if name not in anew}})
        if not anew:
            return f"all weights are those of {path}"
        return f"all weights are those of {path}, but {len(anew)} of the landmarker's start anew"


def holds_encoders(path: str, config: EarDetectorConfig) -> bool:
    """Whether the checkpoint of a detector holds the encoders of all networks of `config`: the landmarker's, too."""
    state = network_state(read_checkpoint(path))
    return not config.num_landmarks or any(name.startswith("landmarks.backbone.") for name in state)


def _fits(state: dict[str, Tensor], own: dict[str, Tensor], name: str) -> bool:
    return name in state and state[name].shape == own[name].shape


def _load(module: nn.Module, state: dict[str, Tensor], reason: str) -> None:
    own = module.state_dict()
    wrong = sorted({name for name in own if not _fits(state, own, name)} | (state.keys() - own.keys()))
    if wrong:
        raise InputError(f"{reason} ({len(wrong)} tensors differ, first {wrong[0]})")
    module.load_state_dict(state)


def _sides(boxes: Tensor) -> Floats:
    """Corners (N, 4) to x y width height."""
    corners = boxes.detach().cpu().numpy().astype(np.float32)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _corners(boxes: Floats) -> Tensor:
    """x y width height (N, 4) to corners."""
    return torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))


def vae_options(path: str) -> dict[str, Any]:
    """The shape of the ear VAE in a checkpoint. Raises InputError for any other file."""
    return asdict(EarVAE.stored_config(read_checkpoint(path), path))
