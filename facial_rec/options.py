"""Every option of the commands that use a recogniser. No torch: help appears at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import DeviceOptions
from earface.export.options import CHECKPOINT_HELP, ExportOptions
from facial_rec.config import parse_upsamplers

ONNX_FILE = "edgeface.onnx"
METRICS = "metrics.json"


@dataclass(frozen=True)
class EmbedOptions(DeviceOptions):
    """Embed aligned faces: a table of unit embeddings and how they were made."""

    input: str = option("", "a picture, or a folder of them: its first folders are the identities")
    recognizer: str = option(
        "edgeface_xxs", "a published EdgeFace variant, a file of its weights, a fine-tuned folder, or a checkpoint"
    )
    variant: str | None = option(None, "that a file of weights must hold: edgeface_xxs, ...")
    out: str = option("embeddings.npz", "the table, .npz")
    crop: Literal["arcface", "center"] = option(
        "arcface", "arcface: the template fills the picture; center: it lies 8 px inside a canvas of 128"
    )
    flip: bool = option(False, "average with the embedding of the mirrored face: twice the time")
    batch_size: int = option(64, "faces sent to the device at once; does not change the numbers", low=1)
    num_workers: int = option(4, "threads that read pictures", low=1, high=64)

    def check(self) -> None:
        check_options(self)
        if not self.input:
            raise InputError("`input`: give a picture or a folder of aligned faces")
        if self.recognizer == "none":
            raise InputError("`recognizer` none: random weights recognise nobody; give a file, or a variant")


@dataclass(frozen=True)
class EdgeFaceEvaluationOptions(DeviceOptions):
    """Evaluate recognisers on identities they were not trained on, with HR, interpolated and super-resolved faces."""

    recognizer: tuple[str, ...] = option(
        ("edgeface_xxs", "facial_rec/checkpoints/tuned"),
        "published EdgeFace variants, files of their weights, fine-tuned folders, or checkpoints (quoted patterns)",
    )
    crop: Literal["arcface", "center"] = option("arcface", "where the recognisers' template lies in the 128 px")
    upsampler: str = option("bicubic", "what enlarges VLR faces: bicubic, dsr, or both with a comma")
    dsr_checkpoint: str = option(
        "dsr/checkpoints/last.ckpt", "the super-resolver of `upsampler` dsr, or a quoted pattern"
    )
    vlr_size: str = option("32", "size of the VLR faces: 32, 24, 16 or 14x16 (width x height)")
    degradation: Literal["bicubic", "area", "realistic", "mixed", "files"] = option("bicubic", "how VLR faces are made")
    dataset_root: str = option("dataset", "a face set as earface faces prepare makes it")
    split: Literal["train", "val", "test"] = option("test", "which of its splits")
    seed: int = option(
        42, "of degradation by chance; the seed of earface faces prepare gives the VLR of its files", low=0
    )
    batch_size: int = option(32, "faces at once", low=1)
    num_workers: int = option(2, "loader processes", low=0)
    out: str = option("facial_rec/evaluation", "folder for metrics.json")

    def check(self) -> None:
        check_options(self)
        if not self.recognizer:
            raise InputError("`recognizer`: give one or more recognisers")
        parse_upsamplers(self.upsampler)


@dataclass(frozen=True)
class EdgeFaceExportOptions(ExportOptions):
    """Write a fine-tuned recogniser as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (ONNX_FILE,)
    int8_of: ClassVar[tuple[str, ...]] = (ONNX_FILE,)

    checkpoint: str = option("facial_rec/checkpoints/tuned", CHECKPOINT_HELP)
