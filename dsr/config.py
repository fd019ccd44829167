"""Every option of the face super-resolver and its training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.data.face_folders import require_folders, training_root
from earface.data.face_sizes import FACE_SIZE, USUAL_VLR, VLRRange, VLRSize, check_vlr, parse_vlr_sizes
from earface.training.config import SHARED_ALIASES, TrainerOptions, help_layout

HR_SIZE = FACE_SIZE  # side of the output, pixels


@dataclass(frozen=True)
class DSRConfig:
    """The model's shape: what a checkpoint needs to rebuild it."""

    base_channels: int = option(128, "width of the residual blocks", low=8, high=1024)
    residual_blocks: int = option(16, "how many residual blocks", low=1, high=256)
    vlr_size: str = option(USUAL_VLR, "size of the input faces: 32, 24, 16, 14x16 (width x height), or a range, 14-32")

    @property
    def vlr(self) -> VLRSize | VLRRange:
        return parse_vlr_sizes(self.vlr_size)

    @property
    def grid(self) -> int:
        """Side of the square that the blocks work on: 128 / 2^n, the smallest that holds the VLR face."""
        return next(side for side in (8, 16, 32, 64) if side >= self.vlr.longest)

    def check(self) -> None:
        """Raise InputError for a shape that cannot be built."""
        check_options(self)
        try:
            parse_vlr_sizes(self.vlr_size)
        except InputError as error:
            raise InputError(f"`vlr_size`: {error}") from None


@dataclass(frozen=True)
class DSRTrainingConfig(DSRConfig, TrainerOptions):
    """Train a face super-resolver: `earface dsr train`. The defaults are the recipe for 32x32."""

    variant: Literal["full", "small"] = option("full", "sets width and depth; small takes a tenth of the multiply-adds")
    dataset_root: str = option("dataset", "a face set as earface faces prepare makes it")
    extra_hr: tuple[str, ...] = option((), "folders of more aligned 128x128 faces, without identities, to train on")
    degradation: Literal["bicubic", "area", "realistic", "mixed", "files"] = option(
        "bicubic",
        "how VLR is made from the augmented HR face; mixed: by one of these, drawn for each; files: the set's own VLR "
        "pictures, mirrored at most",
    )
    misalignment: float = option(
        0.0,
        "faces, HR and so VLR, are shifted by up to so many VLR pixels, and for each turned by 5 degrees and zoomed by "
        "7.5 %, as where landmarks are poor",
        low=0,
        high=2,
    )
    augment: Literal["none", "light", "full"] = option(
        "light", "of HR faces: mirrored, rotated by up to 6 degrees, colour jitter; full is stronger, for small sets"
    )
    recognizer: str = option(
        "edgeface_xxs", "in the identity loss: a published EdgeFace variant, or a file of its weights"
    )
    second_recognizer: str = option(
        "edgeface_xs_gamma_06",
        "not part of the loss, for validation only: as above, or none",
        affects_result=False,
    )
    crop: Literal["arcface", "center"] = option("arcface", "where the recognisers' template lies in the 128 px")
    recognizer_jitter: float = option(
        0.06,
        "in the loss both faces are rotated (radians), zoomed and shifted (half sides) by up to this",
        low=0,
        high=0.5,
    )
    lambda_perceptual: float = option(0.025, "weight of the perceptual loss; 32x32 has structure worth keeping", low=0)
    lambda_identity: float = option(0.60, "weight of 1 - cosine of the embeddings", low=0)
    lambda_feature_match: float = option(0.18, "weight of the distance between the recogniser's feature maps", low=0)
    lambda_tv: float = option(2e-6, "weight of the total variation, summed over a face; small, to keep edges", low=0)
    perceptual_backbone: str = option("vgg16", "vgg16, dinov2, or timm:NAME")
    perceptual_weights: str = option("pretrained", "weights of that backbone: pretrained, or a file")
    epochs: int = option(100, "passes over the training set", low=1, affects_result=False)
    batch_size: int = option(14, "faces per device and step; 14 fit into 8 GB", low=1)
    lr: float = option(1.3e-4, "peak learning rate", above=0, high=10)
    warmup_epochs: float = option(5.0, "linear warm-up of the learning rate from a tenth, in epochs", low=0)
    grad_clip: float = option(1.0, "clip gradients to this norm; 0 does not clip", low=0)
    ema_decay: float = option(0.999, "average the weights with this decay; 0 keeps no average", low=0, high=0.999999)
    checkpoint_dir: str = option("dsr/checkpoints", "checkpoints, and where `resume` auto looks", affects_result=False)
    log_dir: str = option("dsr/logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)
    grid_images: int = option(8, "validation faces shown each epoch", low=1, high=64, affects_result=False)

    def model_config(self) -> DSRConfig:
        values = asdict(self)
        return DSRConfig(**{field.name: values[field.name] for field in fields(DSRConfig)})

    def check_files(self) -> None:
        training_root(self.dataset_root)
        require_folders(self.extra_hr)

    def check(self) -> None:
        super().check()
        check_vlr(self.vlr_size, self.degradation, self.misalignment, self.extra_hr)
        if self.recognizer == "none" and (self.lambda_identity or self.lambda_feature_match):
            raise InputError(
                "`recognizer` none: also give `lambda_identity` 0 `lambda_feature_match` 0, whose losses need it"
            )


PRESETS: dict[str, dict[str, Any]] = {"small": {"base_channels": 48, "residual_blocks": 8}}
ALIASES = SHARED_ALIASES
HELP = help_layout(
    first=(
        *("dataset_root", "vlr_size", "degradation", "variant", "recognizer"),
        *("epochs", "batch_size", "lr", "checkpoint_dir", "accelerator"),
    ),
    data=("dataset_root", "extra_hr", "vlr_size", "degradation", "misalignment", "augment"),
    model=("variant", "base_channels", "residual_blocks"),
    losses=(
        *("recognizer", "second_recognizer", "crop", "recognizer_jitter", "lambda_perceptual", "lambda_identity"),
        *("lambda_feature_match", "lambda_tv", "perceptual_backbone", "perceptual_weights"),
    ),
    optimisation=("epochs", "lr"),
    outputs=("grid_images",),
)


def monitored_metrics(config: DSRTrainingConfig) -> dict[str, Literal["min", "max"]]:
    """The metrics beside val/loss whose best checkpoints are kept: PSNR, and cosine by the second recogniser if any."""
    best: dict[str, Literal["min", "max"]] = {"psnr": "max"}
    if config.second_recognizer != "none":
        best["cosine_second"] = "max"
    elif config.recognizer != "none":
        best["cosine"] = "max"
    return best
