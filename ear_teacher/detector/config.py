"""Every default of the ear detector."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ear_teacher.config import ENCODERS, EarVAEConfig
from earface.core.errors import InputError
from earface.core.files import require_checkpoint, require_file, require_other_file
from earface.core.options import check_options, option
from earface.training.config import SHARED_ALIASES, BackboneOptions, TrainerOptions, help_layout

FROM_VAE = ("encoder", "in_channels", "base_channels", "dinov2_variant")  # determined by a VAE's checkpoint


@dataclass(frozen=True)
class EarDetectorConfig:
    """The detector's shape: what a checkpoint needs to rebuild it."""

    encoder: str = option("resnet50", "as of the ear VAE: resnet50, dinov2, sam, conv, edgeface_xs, ...")
    image_size: int = option(512, "side of the square that photographs are fitted into; a multiple of 32", low=64)
    num_landmarks: int = option(17, "points on each ear; 0: boxes only", low=0, high=1000)
    crop_size: int = option(128, "side of the crop around an ear in which landmarks are placed", low=32, high=1024)
    pyramid_width: int = option(96, "channels of the feature pyramid and of the heads", low=16, high=512)
    in_channels: int = option(3, "3: RGB, 1: grey", low=1, high=3)
    base_channels: int = option(64, "width of the conv encoder", low=4, high=512)
    dinov2_variant: Literal["vits14", "vitb14", "vits14_reg", "vitb14_reg"] = option(
        "vits14", "which DINOv2: small or base, with register tokens or without"
    )
    landmark_names: tuple[str, ...] = option((), "of the training data")
    skeleton: tuple[tuple[int, int], ...] = option((), "pairs of landmarks to join by a line, from 1 on")

    def check(self) -> None:
        """Raise InputError for a shape that cannot be built."""
        check_options(self)
        if self.encoder not in ENCODERS and not re.fullmatch("timm:.+", self.encoder):
            raise InputError(f"`encoder` {self.encoder}: choose one of {', '.join(ENCODERS)}")
        for name in ("image_size", "crop_size"):
            if getattr(self, name) % 32:
                raise InputError(f"`{name}` {getattr(self, name)}: must be a multiple of 32")
        if self.in_channels == 2:
            raise InputError("`in_channels` 2: must be 1 (grey) or 3 (RGB)")
        if self.pyramid_width % 8:
            raise InputError(f"`pyramid_width` {self.pyramid_width}: must be a multiple of 8")
        count, names = self.num_landmarks, self.landmark_names
        if len(names) not in (0, count) or not all(isinstance(name, str) for name in names):
            raise InputError(f"`num_landmarks` {count}: the landmarks' names are not {count} texts")
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in self.skeleton):
            raise InputError("the skeleton is not of pairs of landmarks")
        if not {each for pair in self.skeleton for each in pair} <= {*range(1, count + 1)}:
            raise InputError(f"`num_landmarks` {count}: the skeleton joins others than 1 to {count}")

    def backbone_config(self, image_size: int) -> EarVAEConfig:
        """The same encoder, for squares of another size."""
        shared = {name: getattr(self, name) for name in FROM_VAE}
        return EarVAEConfig(image_size=image_size, latent_dim=2, linear_path_size=0, **shared)


@dataclass(frozen=True)
class EarDetectorTrainingConfig(BackboneOptions, TrainerOptions):
    """Train an ear detector: `earface ears detector train`."""

    train_json: tuple[str, ...] = option(
        ("data/preprocessed/annotations_train.json",), "COCO keypoint files of training photographs"
    )
    val_json: tuple[str, ...] = option(
        ("data/preprocessed/annotations_val.json",), "COCO keypoint files of validation photographs"
    )
    images: str | None = option(None, "folder that file names start from; default: each JSON's own")
    vae_checkpoint: str | None = option(
        None, "start from this ear VAE's encoder: a .ckpt file, or a pattern; without, from `encoder_weights`"
    )
    encoder: str | None = option(None, f"{', '.join(ENCODERS)}; default: the VAE's, or resnet50")
    encoder_weights: str = option("pretrained", "without a VAE: pretrained, none, or a weights file")
    image_size: int = option(
        EarDetectorConfig.image_size, "side of the square that photographs are fitted into; a multiple of 32", low=64
    )
    num_landmarks: int | None = option(None, "points on each ear; default: as the data has; 0: boxes only", low=0)
    crop_size: int | None = option(None, "side of the square that landmarks are placed in; default: the VAE's, or 128")
    pyramid_width: int = option(
        EarDetectorConfig.pyramid_width, "channels of the feature pyramid and of the heads", low=16, high=512
    )
    in_channels: int | None = option(None, "3: RGB, 1: grey; default: the VAE's, or 3")
    base_channels: int | None = option(None, "width of the conv encoder; default: the VAE's, or 64")
    dinov2_variant: Literal["vits14", "vitb14", "vits14_reg", "vitb14_reg"] | None = option(
        None, "which DINOv2; default: the VAE's, or vits14"
    )
    freeze_encoder: bool = option(False, "freeze the encoder; pyramid and heads learn")
    train_boxes: bool = option(True, "false freezes the box detector: only the landmarker learns")
    freeze_layers: int = option(0, "frozen layer groups of the encoder, counted from the input", low=0)
    gradient_checkpointing: bool = option(
        False, "recompute transformer blocks in the backward pass, to save memory", affects_result=False
    )
    augment: Literal["none", "light", "full", "strong"] = option(
        "full",
        "none; light: small movements and mirroring; full: zoom .5 to 2.5, 20 degrees, colour, noise, blur; strong: "
        "tight crops, occlusions, low resolution, any colours too, for synthetic ears alone",
    )
    views: int = option(1, "augmented views of each photograph in an epoch; more for a handful of photographs", low=1)
    absent_crops: float = option(
        0.0, "crops without an ear beside those of each photograph: their landmarks are not visible", low=0, high=1
    )
    box_weight: float = option(2.0, "of 1 - CIoU; the quality focal loss of the score has 1", low=0)
    heatmap_weight: float = option(0.5, "of the cross-entropy of the heat maps", low=0)
    landmark_weight: float = option(10.0, "of the distance, in crop sides", low=0)
    visibility_weight: float = option(0.2, "of the visibility", low=0)
    lr: float = option(1e-3, "peak learning rate of pyramid and heads", above=0, high=10)
    backbone_lr_scale: float = option(1.0, "the encoder learns at lr times this; .1 if it is well pretrained", low=0)
    weight_decay: float = option(0.01, "AdamW's decoupled decay, on weight matrices only", low=0, high=1)
    batch_size: int = option(16, "photographs per device and step", low=1)
    grad_clip: float = option(5.0, "clip gradients to this norm; 0 does not clip", low=0)
    warmup_epochs: float = option(1.0, "linear warm-up of the learning rate from a tenth, in epochs", low=0)
    ema_decay: float = option(0.998, "average the weights with this decay; 0 keeps no average", low=0, high=0.999999)
    checkpoint_dir: str = option(
        "ear_teacher/checkpoints/detector", "where checkpoints go and resume looks", affects_result=False
    )
    log_dir: str = option("ear_teacher/logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)
    grid_images: int = option(8, "validation photographs shown each epoch", low=1, high=64, affects_result=False)

    def check_files(self) -> None:
        for path in (*self.train_json, *self.val_json):
            require_file(path, "make it from your annotations with earface ears annotations")
        for path in self.val_json:
            require_other_file(path, self.train_json)
        if self.vae_checkpoint is not None:
            require_checkpoint(self.vae_checkpoint)

    def check(self) -> None:
        check_options(self)
        if not self.train_boxes and self.num_landmarks == 0:
            raise InputError("`train_boxes` false: with `num_landmarks` 0 nothing is left to train")

    def backbone_config(self) -> EarVAEConfig:
        """The encoder, as far as it is known without a VAE's checkpoint."""
        given = {name: getattr(self, name) for name in FROM_VAE if getattr(self, name) is not None}
        return EarVAEConfig(**{name: getattr(EarDetectorConfig, name) for name in FROM_VAE} | given)

    def resolved(self, num_landmarks: int, vae_options: Mapping[str, Any] | None = None) -> EarDetectorTrainingConfig:
        """With the options that depend on the VAE's checkpoint and the data. Raises InputError for contradictions.

        num_landmarks: how many the data has. vae_options: the shape of the VAE in `vae_checkpoint`, if there is one.
        """
        values: dict[str, Any] = {name: getattr(EarDetectorConfig, name) for name in (*FROM_VAE, "crop_size")}
        if vae_options is not None:
            values |= {name: vae_options.get(name, values[name]) for name in FROM_VAE}
            values["crop_size"] = vae_options["image_size"]
            for name in FROM_VAE:
                given = getattr(self, name)
                if given is not None and given != values[name]:
                    raise InputError(
                        f"`{name}` {given}: {self.vae_checkpoint} has {name} {values[name]}; leave it out, or "
                        "give another `vae_checkpoint`"
                    )
        values |= {name: getattr(self, name) for name in values if getattr(self, name) is not None}
        if self.num_landmarks and self.num_landmarks != num_landmarks:
            raise InputError(
                f"`num_landmarks` {self.num_landmarks}: {self.train_json[0]} has {num_landmarks or 'no'} landmarks; "
                "leave it out, or give 0 for boxes only"
            )
        values["num_landmarks"] = num_landmarks if self.num_landmarks is None else self.num_landmarks
        if not self.train_boxes and not values["num_landmarks"]:
            raise InputError(f"`train_boxes` false: {self.train_json[0]} has no landmarks, so nothing is left to train")
        return dataclasses.replace(self, **values)

    def model_config(self, landmark_names: tuple[str, ...], skeleton: tuple[tuple[int, int], ...]) -> EarDetectorConfig:
        """The shape of the model. Call it on resolved options."""
        values = asdict(self)
        shape = {field.name: values[field.name] for field in fields(EarDetectorConfig) if field.name in values}
        if self.num_landmarks:
            shape |= {"landmark_names": landmark_names, "skeleton": skeleton}
        return EarDetectorConfig(**shape)


ALIASES = SHARED_ALIASES | {"train_data": "train_json", "val_data": "val_json", "resnet_version": "encoder"}

HELP = help_layout(
    first=(
        *("train_json", "val_json", "vae_checkpoint", "encoder", "image_size"),
        *("epochs", "batch_size", "lr", "checkpoint_dir", "accelerator"),
    ),
    data=("train_json", "val_json", "images", "augment", "views", "absent_crops"),
    model=(
        *("vae_checkpoint", "encoder", "encoder_weights", "freeze_encoder", "freeze_layers", "train_boxes"),
        *("image_size", "num_landmarks", "crop_size", "pyramid_width", "in_channels", "base_channels"),
        "dinov2_variant",
    ),
    losses=("box_weight", "heatmap_weight", "landmark_weight", "visibility_weight"),
    optimisation=("epochs", "lr", "backbone_lr_scale", "layer_decay"),
    outputs=("grid_images",),
    hardware=("gradient_checkpointing",),
)
