"""Every option of EdgeFace and its fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from earface.core.errors import InputError
from earface.core.files import CONFIG, WEIGHTS
from earface.core.options import check_options, option
from earface.data.face_folders import require_folders, training_root
from earface.data.face_sizes import (
    HR,
    NONE,
    UPSAMPLERS,
    VLRRange,
    VLRSize,
    by_chance,
    check_vlr,
    parse_vlr_sizes,
)
from earface.training.config import SHARED_ALIASES, RunOptions, help_layout

STAGE2_ONLY = (
    *("head_lr_stage2", "backbone_lr", "layer_decay", "lora_rank"),
    *("lambda_arcface", "lambda_align", "lambda_feature_match", "keep_weight", "max_forgetting"),
    *("extra_hr", "draws"),
)


@dataclass(frozen=True)
class EdgeFaceConfig:
    """What a checkpoint needs to rebuild the network."""

    variant: str = "edgeface_xxs"

    def check(self) -> None:
        """An unknown variant is refused where the network is built."""


@dataclass(frozen=True)
class EdgeFaceTrainingConfig(RunOptions):
    """Fine-tune EdgeFace in two stages: `earface faces finetune`. The defaults are for 32x32."""

    recognizer: str = option(
        "edgeface_xxs", "what is fine-tuned: a published EdgeFace variant, or a file of its weights"
    )
    crop: Literal["arcface", "center"] = option("arcface", "where the recogniser's template lies in the 128 px")
    dataset_root: str = option("dataset", "a face set as earface faces prepare makes it")
    upsampler: str = option(
        "dsr", "what enlarges VLR faces: dsr, bicubic, none (HR faces), or a mixture such as dsr=.7,none=.3"
    )
    dsr_checkpoint: str = option(
        "dsr/checkpoints/last.ckpt", "the super-resolver of `upsampler` dsr, or a quoted pattern"
    )
    extra_hr: tuple[str, ...] = option(
        (), "folders of more aligned 128x128 faces, without identities, for all terms of the loss but the margin loss"
    )
    vlr_size: str = option("32", "size of the VLR faces: 32, 24, 16, 14x16 (width x height), or a range, 14-32")
    degradation: Literal["bicubic", "area", "realistic", "mixed", "files"] = option(
        "bicubic",
        "how VLR is made from the HR face; mixed: by one of these, drawn for each; files: the set's own VLR pictures",
    )
    misalignment: float = option(
        0.0,
        "VLR is made of HR shifted by up to so many VLR pixels, and for each turned by 5 degrees and zoomed by 7.5 %; "
        "the targets are of faces that stay",
        low=0,
        high=2,
    )
    draws: int = option(
        1, "degradations of each face that are cached, where chance decides them; epochs take them in turn", low=1
    )
    cache_dir: str = option("facial_rec/cache", "memory maps of enlarged faces, computed once", affects_result=False)
    min_images: int = option(2, "identities with fewer images are left out of training", low=1)
    balanced: bool = option(False, "an epoch shows every identity equally often")
    augment: Literal["none", "light"] = option("light", "light: mirrored, rotated by up to 5 degrees, colour jitter")
    stage1_epochs: int = option(5, "epochs of the head alone, the network frozen; 0: none", low=0, affects_result=False)
    stage2_epochs: int = option(25, "epochs of network and head", low=1, affects_result=False)
    batch_size: int = option(28, "faces per device and step; 28 fit into 8 GB", low=1)
    head_lr: float = option(9e-4, "peak learning rate of the head in stage 1", above=0, high=10)
    head_lr_stage2: float = option(6e-5, "peak learning rate of the head in stage 2", above=0, high=10)
    backbone_lr: float = option(6e-6, "peak learning rate of the network or its adapters in stage 2", above=0, high=10)
    layer_decay: float = option(
        1.0, "each stage of the network below the last learns at this factor of the next", above=0, high=1
    )
    lora_rank: int = option(0, "rank of adapters that stage 2 trains instead of the whole network; 0: none", low=0)
    head: Literal["arcface", "cosface", "adaface"] = option("arcface", "which margin is applied to a face's own class")
    arcface_margin: float = option(0.45, "the margin, in radians; for cosface of the cosine", low=0, high=1.5)
    scale: float = option(64.0, "factor of the cosines before the softmax", above=0)
    label_smoothing: float = option(0.08, "of the targets, on the scaled logits", low=0, high=0.99)
    lambda_arcface: float = option(1.0, "weight of the margin loss", low=0)
    lambda_align: float = option(0.0, "weight of 1 - cosine to the pretrained embedding of the HR face", low=0)
    lambda_feature_match: float = option(
        0.0, "weight of the distance between feature maps and the pretrained network's of the HR face", low=0
    )
    keep_weight: float = option(0.0, "weight of 1 - cosine to the pretrained network, both on the HR face", low=0)
    max_forgetting: float = option(
        0.3, "percentage points by which rank-1 of HR faces may fall in the selected checkpoint", low=0, high=100
    )
    weight_decay: float = option(3e-5, "AdamW's decoupled decay, on weight matrices only", low=0, high=1)
    warmup_epochs: float = option(1.0, "linear warm-up of each stage from a tenth, in epochs", low=0)
    early_stop_patience: int = option(
        10, "epochs without a better val/loss before a stage stops; 0 never stops", low=0, affects_result=False
    )
    checkpoint_dir: str = option(
        "facial_rec/checkpoints", "stage1/ and stage2/, where `resume` auto looks", affects_result=False
    )
    log_dir: str = option("facial_rec/logs", "TensorBoard events, metrics.csv and pictures", affects_result=False)

    @property
    def vlr(self) -> VLRSize | VLRRange:
        return parse_vlr_sizes(self.vlr_size)

    @property
    def mixture(self) -> dict[str, float]:
        """The share of each upsampler in the mixture; they sum to 1."""
        return parse_mixture(self.upsampler)

    @property
    def main_input(self) -> str:
        """Key of the faces that classification is measured on: those of the mixture's first upsampler, or HR."""
        first = next(iter(self.mixture))
        return HR if first == NONE else first

    def check_init_from(self, path: str) -> None:
        folder = finetuned_folder(path)
        if folder is None or not (folder / CONFIG).is_file():
            super().check_init_from(path)

    def check_files(self) -> None:
        training_root(self.dataset_root)
        require_folders(self.extra_hr)

    @property
    def needs_hr(self) -> bool:
        """Whether a term of the loss compares a face with its HR original."""
        return self.lambda_align > 0 or self.lambda_feature_match > 0 or self.keep_weight > 0

    def check(self) -> None:
        check_options(self)
        check_vlr(self.vlr_size, self.degradation, self.misalignment, self.extra_hr)
        parse_mixture(self.upsampler)
        if not (self.lambda_arcface or self.needs_hr):
            raise InputError("`lambda_arcface` 0: give `lambda_align` or `keep_weight` above 0; there is no other loss")
        if self.extra_hr and not self.needs_hr:
            raise InputError(
                "`extra_hr`: its faces have no identities: give `lambda_align`, `lambda_feature_match` or `keep_weight`"
            )
        if self.draws > 1 and not by_chance(self.vlr, self.degradation, self.misalignment):
            raise InputError(
                f"`draws` {self.draws}: {self.degradation} faces of {self.vlr_size} px are always the same"
            )

    def of_stage(self, stage: Literal[1, 2]) -> EdgeFaceStageConfig:
        """The options of a stage; in stage 1 those of stage 2 are at their defaults, so that it serves all of them."""
        values = asdict(self) | {"checkpoint_dir": f"{self.checkpoint_dir}/stage{stage}"}
        if stage == 1:
            values |= {field.name: field.default for field in fields(self) if field.name in STAGE2_ONLY}
        return EdgeFaceStageConfig(**values, stage=stage)


@dataclass(frozen=True)
class EdgeFaceStageConfig(EdgeFaceTrainingConfig):
    """The options of one of the two stages."""

    stage: int = option(2, "1: the head alone; 2: everything", low=1, high=2)

    @property
    def epochs(self) -> int:
        return self.stage1_epochs if self.stage == 1 else self.stage2_epochs


def finetuned_folder(name: str | Path) -> Path | None:
    """The folder of a fine-tuned recogniser, by itself, its weights file, or its run; None for anything but these.

    For any other folder, the folder itself.
    """
    path = Path(name)
    if path.is_dir():
        of_run = (path / "tuned", path / "checkpoints" / "tuned")
        return path if (path / CONFIG).is_file() else next((each for each in of_run if each.is_dir()), path)
    return path.parent if path.name == WEIGHTS and (path.parent / CONFIG).is_file() else None


def parse_mixture(text: str) -> dict[str, float]:
    """`dsr` or `dsr=.7,none=.3` -> upsampler: share, the shares summing to 1. Raises InputError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        upsampler, equals, written = part.strip().partition("=")
        try:
            share = float(written) if equals else 1.0
        except ValueError:
            share = -1.0
        if upsampler not in UPSAMPLERS or upsampler in shares or not 0 < share < float("inf"):
            raise InputError(f"`upsampler` {text}: {', '.join(UPSAMPLERS)}, or some by weight, such as dsr=.7,none=.3")
        shares[upsampler] = share
    return {upsampler: share / sum(shares.values()) for upsampler, share in shares.items()}


def parse_upsamplers(text: str) -> list[str]:
    """`bicubic,dsr` -> those. Raises InputError."""
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= {"bicubic", "dsr"} or len(set(names)) < len(names):
        raise InputError(f"`upsampler` {text}: bicubic, dsr, or both with a comma")
    return names


ALIASES = {"device": SHARED_ALIASES["device"], "margin": "arcface_margin"}

HELP = help_layout(
    first=(
        *("dataset_root", "recognizer", "upsampler", "dsr_checkpoint", "vlr_size"),
        *("stage1_epochs", "stage2_epochs", "batch_size", "checkpoint_dir", "accelerator"),
    ),
    data=(
        *("dataset_root", "extra_hr", "upsampler", "dsr_checkpoint", "vlr_size", "degradation", "misalignment"),
        *("draws", "cache_dir", "min_images", "balanced", "augment"),
    ),
    model=("recognizer", "crop", "lora_rank"),
    losses=(
        *("head", "arcface_margin", "scale", "label_smoothing", "lambda_arcface", "lambda_align"),
        *("lambda_feature_match", "keep_weight", "max_forgetting"),
    ),
    optimisation=("stage1_epochs", "stage2_epochs", "head_lr", "head_lr_stage2", "backbone_lr", "layer_decay"),
)
