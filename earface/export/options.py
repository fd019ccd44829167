"""What the export commands share: their options. No torch: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.files import CONFIG, WEIGHTS, refuse_to_replace
from earface.core.options import check_options, option
from earface.core.tool_options import WeightsOptions

CHECKPOINT_HELP = "a .ckpt file, a quoted pattern (the newest match), or an exported folder"


@dataclass(frozen=True)
class ExportOptions(WeightsOptions):
    """A subclass gives `checkpoint` its default and the names of its ONNX files."""

    onnx_files: ClassVar[tuple[str, ...]] = ()

    checkpoint: str = option("", CHECKPOINT_HELP)
    out: str | None = option(None, "folder for the files")
    format: Literal["onnx", "safetensors", "both"] = option("both", "ONNX; what from_pretrained reads; or both")
    half: bool = option(False, "ONNX weights in half precision: half the size; what is computed stays float32")
    opset: int | None = option(
        None, "ONNX operator set: 18 for onnxruntime 1.14 or newer; by default PyTorch's own", low=18, high=23
    )
    tolerance: float = option(
        1e-4, "of ONNX against PyTorch: largest difference, as a share of the largest value if that is above 1", above=0
    )

    def check(self) -> None:
        check_options(self)
        if self.out is None:
            raise InputError("`out`: give a folder")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError(f"`out` {self.out}: is a file; give a folder")
        files = {"onnx": self.onnx_files, "safetensors": (CONFIG, WEIGHTS), "both": (*self.onnx_files, CONFIG, WEIGHTS)}
        refuse_to_replace((Path(self.out) / name for name in files[self.format]), self.overwrite)
        others = {"onnx": (CONFIG, WEIGHTS), "safetensors": self.onnx_files, "both": ()}[self.format]
        left = [name for name in others if (Path(self.out) / name).exists()]
        if left:
            raise InputError(
                f"`out` {self.out}: holds {' and '.join(left)} of an earlier export, which may be another model's; use "
                "`format` both `overwrite`, which replaces everything, or another folder"
            )
