"""Every default of the ear recogniser."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from ear_teacher.config import EDGEFACE_VARIANTS, ENCODERS, EarFilesOptions, EarVAEConfig
from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.training.config import SHARED_ALIASES, BackboneOptions, help_layout

EDGEFACE = ("edgeface_xxs", "edgeface_xs_gamma_06", "edgeface_s_gamma_05", "edgeface_base", "edgeface_xs_q")
EDGEFACE_SIZE, EDGEFACE_DIM = 112, 512  # of its input and its embedding
FROM_VAE = {variant: encoder for encoder, variant in EDGEFACE_VARIANTS.items()}  # the ear VAE's encoder
BACKBONES = (*EDGEFACE, *(encoder for encoder in ENCODERS if encoder not in EDGEFACE_VARIANTS))


@dataclass(frozen=True)
class EarRecognizerShape:
    """What a training chooses of an EarRecognizerConfig."""

    backbone: str = option("edgeface_xxs", "an EdgeFace variant, an encoder of the ear VAE, or timm:NAME")
    image_size: int = option(
        112, "side of the square image; a multiple of 32 but for EdgeFace, which takes 112", low=32
    )
    embedding_dim: int = option(512, "length of the embedding; EdgeFace's is 512", low=8, high=4096)
    base_channels: int = option(64, "width of the conv encoder", low=4, high=512)

    def check(self) -> None:
        """Raise InputError for a shape that cannot be built."""
        check_options(self)
        if self.backbone not in BACKBONES and not re.fullmatch("timm:.+", self.backbone):
            raise InputError(f"`backbone` {self.backbone}: choose one of {', '.join(BACKBONES)}")
        if self.is_edgeface:
            for name, needed in (("image_size", EDGEFACE_SIZE), ("embedding_dim", EDGEFACE_DIM)):
                if getattr(self, name) != needed:
                    raise InputError(f"`{name}` {getattr(self, name)}: {self.backbone} has {needed}")
        elif self.image_size % 32:
            raise InputError(f"`image_size` {self.image_size}: must be a multiple of 32 for {self.backbone}")

    @property
    def is_edgeface(self) -> bool:
        return self.backbone in EDGEFACE


@dataclass(frozen=True)
class EarRecognizerConfig(EarRecognizerShape):
    """The recogniser's shape, which a checkpoint needs to rebuild it, and the ears that it takes."""

    contract: str = option("stretch", "EarContract.id of its training ears, which decides the form of new ones")

    @property
    def in_channels(self) -> int:
        return 3

    @property
    def encoder_config(self) -> EarVAEConfig:
        """Of a backbone that is an encoder."""
        return EarVAEConfig(
            encoder=self.backbone,
            image_size=self.image_size,
            latent_dim=2,
            base_channels=self.base_channels,
            linear_path_size=0,
        )


@dataclass(frozen=True)
class EarRecognizerTrainingConfig(EarRecognizerShape, BackboneOptions, EarFilesOptions):
    """Train an ear recogniser: `earface ears recognize train`."""

    train_npy: tuple[str, ...] = option(
        ("data/preprocessed/train_teacher.npy",), "training ears with subjects: teacher files of one form; several"
    )
    val_npy: tuple[str, ...] = option(
        ("data/preprocessed/val_teacher.npy",), "validation ears, of other people; each file is measured by itself"
    )
    backbone_weights: str = option("pretrained", "pretrained, none, or a weights file")
    vae_checkpoint: str | None = option(None, "start from this ear VAE's encoder instead: a .ckpt file, or a pattern")
    classes: Literal["person", "ear"] = option("person", "one class a person, or one for each of the two ears")
    images_per_class: int = option(60, "images of each class in an epoch, drawn evenly", low=1)
    augment: Literal["none", "light", "strong"] = option(
        "strong", "light: flips and small movements; strong: rotation, shape, colour, grey, low resolution, occlusion"
    )
    head: Literal["arcface", "cosface", "adaface"] = option("arcface", "which margin is applied to an ear's own class")
    margin: float = option(
        0.3, "the margin at the end of its rise, in radians; for cosface of the cosine", low=0, high=1.5
    )
    margin_epochs: float = option(8.0, "the margin rises from 0 over so many epochs", low=0)
    scale: float = option(32.0, "factor of the cosines before the softmax", above=0)
    sub_centers: int = option(1, "centres of a class; more let noisy labels gather apart", low=1, high=10)
    label_smoothing: float = option(0.1, "of the targets, on the scaled logits", low=0, high=0.99)
    lr: float = option(6e-4, "peak learning rate of the backbone", above=0, high=10)
    head_lr: float = option(
        4e-3, "peak learning rate of the head, and of new layers behind a backbone", above=0, high=10
    )
    weight_decay: float = option(0.05, "AdamW's decoupled decay, on weight matrices only", low=0, high=1)
    batch_size: int = option(64, "ears per device and step", low=2)
    epochs: int = option(16, "passes over all classes", low=1, affects_result=False)
    schedule: Literal["cosine", "onecycle", "plateau", "constant"] = option("onecycle", "how the learning rate moves")
    warmup_epochs: float = option(0.0, "linear warm-up of the learning rate from a tenth, in epochs", low=0)
    ema_decay: float = option(0.99, "average the weights with this decay; 0 keeps no average", low=0, high=0.999999)
    checkpoint_dir: str = option(
        "ear_teacher/checkpoints/recognizer", "where checkpoints go and resume looks", affects_result=False
    )
    log_dir: str = option("ear_teacher/logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)
    grid_images: int = option(8, "errors of validation shown each epoch", low=1, high=64, affects_result=False)

    def model_config(self, contract: str = "stretch") -> EarRecognizerConfig:
        values = asdict(self)
        shape = {field.name: values[field.name] for field in fields(EarRecognizerShape)}
        return EarRecognizerConfig(**shape, contract=contract)

    def check(self) -> None:
        super().check()
        if self.vae_checkpoint is not None and self.is_edgeface and self.backbone not in FROM_VAE:
            raise InputError(
                f"`vae_checkpoint`: no ear VAE has {self.backbone}; give its encoder as `backbone`, such as "
                f"{', '.join(FROM_VAE)}"
            )
        if self.backbone_weights not in ("pretrained", "none") and not Path(self.backbone_weights).is_file():
            raise InputError(f"`backbone_weights` {self.backbone_weights}: no such file; pretrained, none, or a file")


ALIASES = SHARED_ALIASES | {"train_data": "train_npy", "val_data": "val_npy", "encoder": "backbone"}

HELP = help_layout(
    first=(
        *("train_npy", "val_npy", "backbone", "backbone_weights"),
        *("epochs", "batch_size", "lr", "checkpoint_dir", "accelerator"),
    ),
    data=("train_npy", "val_npy", "data_root", "cache_dir", "classes", "images_per_class", "augment"),
    model=("backbone", "backbone_weights", "vae_checkpoint", "image_size", "embedding_dim", "base_channels"),
    losses=("head", "margin", "margin_epochs", "scale", "sub_centers", "label_smoothing"),
    optimisation=("epochs", "lr", "head_lr", "backbone_lr_scale", "layer_decay"),
    outputs=("grid_images",),
    hardware=(),
)
