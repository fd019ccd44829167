"""Every option of the commands that use a trained super-resolver. No torch: help appears at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import ModelOptions, PeopleOptions
from earface.data.face_sizes import check_vlr
from earface.data.options import FindingOptions
from earface.export.options import CHECKPOINT_HELP, ExportOptions

COMPARISON = "compare.png"
FACES = "faces.png"
RESULTS = ("metrics.json", "per_face.csv", FACES)
ONNX_FILE = "dsr.onnx"


@dataclass(frozen=True)
class DSREvaluationOptions(PeopleOptions, ModelOptions):
    """Evaluate face super-resolvers on identities they were not trained on, beside bicubic interpolation."""

    checkpoint: tuple[str, ...] = option(
        ("dsr/checkpoints/last.ckpt",),
        ".ckpt files, quoted patterns (newest match), exported folders; all of one VLR size",
    )
    vlr_size: str | None = option(
        None, "size of the VLR faces, or a range; default: as the first checkpoint was trained"
    )
    dataset_root: str = option("dataset", "a face set as earface faces prepare makes it")
    split: Literal["train", "val", "test"] = option("test", "which of its splits")
    degradation: Literal["bicubic", "area", "realistic", "mixed", "files"] | None = option(
        None, "how VLR faces are made; files: the set's own; default: as the first checkpoint was trained"
    )
    seed: int = option(
        42, "of sizes and degradation by chance; the seed of earface faces prepare gives the VLR of its files", low=0
    )
    recognizer: str = option("edgeface_xxs", "a published EdgeFace variant, a file of its weights, or none")
    second_recognizer: str = option("edgeface_xs_gamma_06", "another one, likewise")
    crop: Literal["arcface", "center"] = option("arcface", "where the recognisers' template lies in the 128 px")
    batch_size: int = option(32, "faces at once", low=1)
    num_workers: int = option(2, "loader processes", low=0)
    out: str = option("dsr/evaluation", "folder for metrics.json, per_face.csv and faces.png")

    def check(self) -> None:
        check_options(self)
        if not self.checkpoint:
            raise InputError("`checkpoint`: give one or more")
        if self.vlr_size is not None:
            check_vlr(self.vlr_size, self.degradation or "")


@dataclass(frozen=True)
class UpscaleOptions(ModelOptions, FindingOptions):
    """Super-resolve faces, cropped or found in photographs: a 128x128 PNG file for each."""

    checkpoint: str = option(
        "dsr/checkpoints/last.ckpt", "a .ckpt file, a quoted pattern (the newest match), or an exported folder"
    )
    input: str = option("", "a picture of a face, or a folder of them, searched through")
    out: str = option("", "folder for the results, in folders as in `input`")
    photographs: bool = option(
        False, "the pictures are photographs, to find the large face near the middle in; otherwise aligned faces"
    )
    compare: bool = option(False, f"also {COMPARISON}: VLR, bicubic interpolation and DSR of some faces side by side")
    precision: Literal["32", "16", "bf16"] = option("32", "16 and bf16: faster on a GPU, some pixels differ by a level")
    batch_size: int = option(64, "faces sent to the device at once; does not change the pixels", low=1)

    def check(self) -> None:
        check_options(self)
        if not self.input:
            raise InputError("`input`: give a picture or a folder of faces")
        if not self.out:
            raise InputError("`out`: give a folder")
        given = (each.name for each in fields(FindingOptions) if each.name not in ("device", "overwrite"))
        if not self.photographs and (
            unused := [name for name in given if getattr(self, name) != getattr(type(self), name)]
        ):
            raise InputError(f"`{unused[0]}`: of faces that are found in photographs: give `photographs`")


@dataclass(frozen=True)
class DSRExportOptions(ExportOptions):
    """Write a trained face super-resolver as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (ONNX_FILE,)
    int8_of: ClassVar[tuple[str, ...]] = (ONNX_FILE,)

    checkpoint: str = option("dsr/checkpoints/last.ckpt", CHECKPOINT_HELP)
