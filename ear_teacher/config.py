"""Every default of the ear teacher, and the recipe that comes with each encoder."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from earface.core.errors import InputError
from earface.core.files import require_file, require_other_file
from earface.core.options import check_options, option
from earface.training.config import SHARED_ALIASES, BackboneOptions, TrainerOptions, help_layout

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
EDGEFACE_VARIANTS = {"edgeface_xs": "edgeface_xs_q", "edgeface_xxs": "edgeface_xxs"}  # the published network of each
ENCODERS = {  # name: the class of its backbone, imported when one is built
    **dict.fromkeys(RESNETS, "ear_teacher.backbones:TimmBackbone"),
    "dinov2": "ear_teacher.backbones:DINOv2Backbone",
    "sam": "ear_teacher.sam:SAMBackbone",
    "conv": "ear_teacher.backbones:ConvBackbone",
    **dict.fromkeys(EDGEFACE_VARIANTS, "ear_teacher.edgeface_backbone:EdgeFaceBackbone"),
    "timm:NAME": "ear_teacher.backbones:TimmBackbone",
}


APPEARANCE_PARTS = (2, 4, 5)  # numbers of a channel: mean and spread; with two gradients; with the middle


@dataclass(frozen=True)
class EarVAEShape:
    """What a training chooses of an EarVAEConfig."""

    encoder: str = option(
        "resnet50", "resnet18/34/50/101/152, dinov2, sam, conv, edgeface_xs, edgeface_xxs, or timm:NAME"
    )
    image_size: int = option(128, "side of the square image; a multiple of 32", low=32, high=1024)
    latent_dim: int = option(1024, "size of the latent vector", low=2, high=16384)
    in_channels: int = option(3, "3: RGB, 1: grey", low=1, high=3)
    base_channels: int = option(64, "width of decoder, posterior head and conv encoder", low=4, high=512)
    patch_size: Literal[1, 2, 4, 8] = option(
        1, "side of the square of pixels that each place of the decoder's last layer becomes; 4 learns faster than 1"
    )
    linear_path_size: int = option(
        64, "side of the linear path: pixel PCA beside the networks, whose quality training starts from; 0: none", low=0
    )
    appearance_dim: int = option(
        0,
        "of the latents, for light: 6, gain and offset of each channel; 12, with gradients; 15, also of the middle "
        "(grey: 2, 4, 5); 0: none",
        low=0,
    )
    dinov2_variant: Literal["vits14", "vitb14", "vits14_reg", "vitb14_reg"] = option(
        "vits14", "which DINOv2: small or base, with register tokens or without"
    )
    dinov2_size: int = option(
        0, "side of DINOv2's input; a multiple of 14; 0: the largest up to the image size; 518: as pretrained", low=0
    )
    sam_size: int = option(0, "side of SAM's input; a multiple of 16; 0: the image size; 1024: as pretrained", low=0)

    @property
    def shape_dim(self) -> int:
        """The latents that are not the appearance code."""
        return self.latent_dim - self.appearance_dim

    def check(self) -> None:
        """Raise InputError for a shape that cannot be built."""
        check_options(self)
        if self.encoder not in ENCODERS and not re.fullmatch("timm:.+", self.encoder):
            raise InputError(f"`encoder` {self.encoder}: choose one of {', '.join(ENCODERS)}")
        if self.image_size % 32:
            raise InputError(f"`image_size` {self.image_size}: must be a multiple of 32")
        for name, value, encoder in (
            ("dinov2_variant", self.dinov2_variant != "vits14", "dinov2"),
            ("dinov2_size", self.dinov2_size, "dinov2"),
            ("sam_size", self.sam_size, "sam"),
        ):
            if value and self.encoder != encoder:
                raise InputError(f"`{name}`: is for `encoder` {encoder}, not {self.encoder}")
        if self.dinov2_size % 14 or self.dinov2_size > 1022:
            raise InputError(f"`dinov2_size` {self.dinov2_size}: must be a multiple of 14, 1022 at most")
        if self.sam_size % 16 or self.sam_size > 1024:
            raise InputError(f"`sam_size` {self.sam_size}: must be a multiple of 16, 1024 at most")
        if self.in_channels == 2:
            raise InputError("`in_channels` 2: must be 1 (grey) or 3 (RGB)")
        sizes = [parts * self.in_channels for parts in APPEARANCE_PARTS]
        if self.appearance_dim not in (0, *sizes) or self.appearance_dim > self.latent_dim - 2:
            kind = "grey" if self.in_channels == 1 else "RGB"
            listed = ", ".join(map(str, sizes))
            raise InputError(
                f"`appearance_dim` {self.appearance_dim}: of {kind} pictures must be {listed} or 0, and leave at least "
                f"2 of `latent_dim` {self.latent_dim}"
            )
        if self.linear_path_size > self.image_size:
            raise InputError(
                f"`linear_path_size` {self.linear_path_size}: must be at most `image_size` {self.image_size}"
            )


@dataclass(frozen=True)
class EarVAEConfig(EarVAEShape):
    """The model's shape, which a checkpoint needs to rebuild it, and the ears that it takes."""

    contract: str = option("stretch", "EarContract.id of its training ears, which decides the form of new ones")
    identity_dim: int = option(0, "of the latents, for who it is: the last before the appearance code; 0: none", low=0)

    @property
    def linear_dim(self) -> int:
        """The latents of shape that are not the identity part: those of the linear path, and the first."""
        return self.shape_dim - self.identity_dim

    @property
    def identity_part(self) -> slice:
        """Its place among the latents."""
        return slice(self.linear_dim, self.shape_dim)

    def check(self) -> None:
        super().check()
        if self.linear_dim < 2:
            raise InputError(
                f"`identity_dim` {self.identity_dim}: must leave at least 2 of {self.shape_dim} latents, `latent_dim` "
                "without the appearance code"
            )


@dataclass(frozen=True)
class EarFilesOptions(TrainerOptions):
    """Of a training on the ears of teacher files."""

    train_npy: tuple[str, ...] = option(
        ("data/preprocessed/train_teacher.npy",), "training ears: teacher files (NPY or NPZ) of one form; several"
    )
    val_npy: tuple[str, ...] = option(
        ("data/preprocessed/val_teacher.npy",), "validation ears, of other people; several"
    )
    data_root: str | None = option(None, "folder that relative paths start from; default: each file's own")
    cache_dir: str | None = option(
        None, "where decoded images are kept; default: .cache beside each file", affects_result=False
    )

    def check_files(self) -> None:
        """Raise InputError for a missing teacher file, or one on both sides."""
        for path in (*self.train_npy, *self.val_npy):
            require_file(
                path,
                "make it from photographs with earface ears prepare, or draw synthetic ears with earface ears "
                "synthesize",
            )
        for path in self.val_npy:
            require_other_file(path, self.train_npy)


@dataclass(frozen=True)
class EarVAETrainingConfig(EarVAEShape, BackboneOptions, EarFilesOptions):
    """Train an ear VAE: `earface ears train`. The defaults are the resnet recipe; other encoders bring their own."""

    crop_to_bbox: bool = option(False, "crop each image to its bounding box first")
    augment: Literal["none", "slight", "light", "full"] = option(
        "full", "slight: movements of hundredths, for ears in canonical form; light: flips and tenths; full: everything"
    )
    denoise: bool = option(False, "noise, blur, fog, shadow and dropout on the input only: the target stays clean")
    encoder_weights: str = option("pretrained", "pretrained, none, or a weights file")
    identity_weight: float = option(
        0.0, "of the margin loss over people, on latents of their own; 0: no latents for who it is", low=0
    )
    identity_dim: int = option(32, "of the latents, for who it is", low=2, high=4096)
    identity_head: Literal["arcface", "cosface", "adaface"] = option("arcface", "which margin its own person has")
    identity_margin: float = option(
        0.3, "the margin at the end of its rise, in radians; for cosface of the cosine", low=0, high=1.5
    )
    identity_margin_epochs: float = option(8.0, "the margin rises from 0 over so many epochs", low=0)
    identity_sub_centers: int = option(1, "centres of a person; more let noisy labels gather apart", low=1, high=10)
    identity_head_lr: float = option(4e-3, "peak learning rate of the people's centres", above=0, high=10)
    freeze_layers: int = option(0, "frozen layer groups of the backbone, counted from the input", low=0)
    gradient_checkpointing: bool = option(
        False, "recompute transformer blocks in the backward pass, to save memory", affects_result=False
    )
    reconstruction: Literal["l1", "mse"] = option("l1", "pixel loss")
    focal_gamma: float = option(0.0, "weight each pixel by its normalised error to this power", low=0, high=10)
    perceptual_weight: float = option(1.0, "of the perceptual term", low=0)
    perceptual_backbone: str = option("vgg16", "vgg16, dinov2, or timm:NAME")
    perceptual_weights: str = option("pretrained", "weights of that backbone: pretrained, or a file")
    ssim_weight: float = option(1.0, "of 1 - SSIM", low=0)
    edge_weight: float = option(0.5, "of the Sobel term: sharper anatomical borders", low=0)
    contrastive_weight: float = option(0.05, "of InfoNCE, which separates different ears", low=0)
    center_weight: float = option(3.0, "of the centre-weighted L1: the ear is in the middle", low=0)
    kl_weight: float = option(0.01, "of the KL term, at the end of its ramp", low=0)
    kl_reduction: Literal["mean", "sum"] = option("mean", "of the KL over latents")
    kl_anneal_strategy: Literal["threshold", "epoch", "linear", "monotonic", "cyclic", "none"] = option(
        "threshold", "how the KL weight rises"
    )
    kl_anneal_epochs: int = option(10, "length of the ramp for threshold and epoch; 0: full weight at once", low=0)
    kl_anneal_threshold_psnr: float = option(24.0, "validation PSNR in dB at which the threshold ramp starts", low=0)
    kl_anneal_latest_epoch: int = option(30, "the threshold ramp starts here at the latest, with a warning", low=0)
    kl_anneal_cycles: int = option(4, "cycles of the cyclic strategy", low=1)
    kl_anneal_ratio: float = option(0.5, "rising share of each cycle", above=0, high=1)
    kl_anneal_start: float = option(0.0, "multiplier at the start of the ramp", low=0)
    kl_anneal_end: float = option(1.0, "multiplier at its end", low=0)
    checkpoint_dir: str = option(
        "ear_teacher/checkpoints", "checkpoints, and where `resume` auto looks", affects_result=False
    )
    log_dir: str = option("ear_teacher/logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)
    grid_images: int = option(8, "validation ears shown each epoch", low=1, high=64, affects_result=False)

    def model_config(self) -> EarVAEConfig:
        """The form of the ears is set later: the data has it."""
        values = asdict(self)
        shape = {field.name: values[field.name] for field in fields(EarVAEShape)}
        return EarVAEConfig(**shape, identity_dim=self.identity_dim if self.identity_weight > 0 else 0)

    def check(self) -> None:
        super().check()
        self.model_config().check()
        if self.denoise and self.augment in ("none", "slight"):
            raise InputError("`denoise`: needs `augment` light or full, which add the noise")


PRESETS: dict[str, dict[str, Any]] = {
    "conv": {
        "image_size": 256,
        "latent_dim": 256,
        "encoder_weights": "none",
        "lr": 1e-4,
        "reconstruction": "mse",
        "perceptual_weight": 0.0,
        "ssim_weight": 0.0,
        "edge_weight": 0.0,
        "contrastive_weight": 0.0,
        "center_weight": 0.0,
        "kl_weight": 2.5e-4,
        "kl_reduction": "sum",
        "kl_anneal_strategy": "cyclic",
        "schedule": "plateau",
        "warmup_epochs": 0.0,
        "batch_size": 32,
        "epochs": 200,
    },
    "dinov2": {
        "backbone_lr_scale": 0.1,
        "freeze_layers": 8,
        "focal_gamma": 1.0,
        "perceptual_weight": 0.3,
        "perceptual_backbone": "dinov2",
        "ssim_weight": 0.1,
        "edge_weight": 0.0,
        "contrastive_weight": 0.0,
        "kl_weight": 1e-4,
        "kl_anneal_strategy": "epoch",
        "batch_size": 32,
        "accumulate_grad_batches": 2,
        "epochs": 100,
    },
    "sam": {
        "backbone_lr_scale": 0.1,
        "freeze_layers": 6,
        "perceptual_weight": 1.5,
        "ssim_weight": 0.6,
        "edge_weight": 0.3,
        "contrastive_weight": 0.1,
        "kl_weight": 1e-6,
        "kl_anneal_strategy": "epoch",
        "batch_size": 4,
    },
    **{encoder: {"backbone_lr_scale": 0.3} for encoder in EDGEFACE_VARIANTS},
}  # resnet* and timm:NAME take the defaults above

ALIASES = SHARED_ALIASES | {
    "kld_weight": "kl_weight",
    "kld_anneal_strategy": "kl_anneal_strategy",
    "kld_anneal_cycles": "kl_anneal_cycles",
    "kld_anneal_ratio": "kl_anneal_ratio",
    "kld_anneal_start": "kl_anneal_start",
    "kld_anneal_end": "kl_anneal_end",
    "kld_anneal_epochs": "kl_anneal_epochs",
    "train_data": "train_npy",
    "val_data": "val_npy",
    "resnet_version": "encoder",
    "device": "accelerator",
}

HELP = help_layout(
    first=(
        *("train_npy", "val_npy", "encoder", "image_size", "latent_dim"),
        *("epochs", "batch_size", "lr", "checkpoint_dir", "accelerator"),
    ),
    data=("train_npy", "val_npy", "data_root", "cache_dir", "crop_to_bbox", "augment", "denoise"),
    model=(
        *("encoder", "encoder_weights", "freeze_layers", "image_size", "latent_dim", "in_channels", "base_channels"),
        *("patch_size", "linear_path_size", "appearance_dim", "identity_dim"),
        *("dinov2_variant", "dinov2_size", "sam_size"),
    ),
    losses=(
        *("reconstruction", "focal_gamma"),
        *(field.name for field in fields(EarVAETrainingConfig) if field.name.endswith("_weight")),
        *("identity_head", "identity_margin", "identity_margin_epochs", "identity_sub_centers"),
        *("perceptual_backbone", "perceptual_weights", "kl_reduction", "kl_anneal_strategy", "kl_anneal_epochs"),
        *("kl_anneal_threshold_psnr", "kl_anneal_latest_epoch", "kl_anneal_cycles", "kl_anneal_ratio"),
        *("kl_anneal_start", "kl_anneal_end"),
    ),
    optimisation=("epochs", "lr", "identity_head_lr", "backbone_lr_scale", "layer_decay"),
    outputs=("grid_images",),
    hardware=("gradient_checkpointing",),
)
