"""Options that enrolling and identifying share: which faces, and how they are embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import DeviceOptions


@dataclass(frozen=True)
class FaceOptions(DeviceOptions):
    """A subclass is the options of a command."""

    input: str = option("", "a picture, or a folder of them")
    aligned: bool = option(False, "the pictures are aligned faces of any size, not photographs to find faces in")
    detector: str | None = option(None, "YuNet's ONNX file, for photographs (downloaded once and cached)")
    min_score: float = option(0.7, "least confidence of a detected face", above=0, high=0.99)
    min_face: int = option(20, "pixels; smaller boxes in photographs are ignored", low=1)
    upsampler: Literal["none", "bicubic", "dsr"] = option(
        "none", "how faces are enlarged: not at all, by bicubic interpolation, or by the super-resolver"
    )
    dsr_checkpoint: str = option(
        "dsr/checkpoints/last.ckpt", "of `upsampler` dsr: a .ckpt file, a quoted pattern, or an exported folder"
    )
    precision: Literal["32", "16", "bf16"] = option("32", "16 and bf16: faster on a GPU, scores differ by about .01")
    batch_size: int = option(64, "faces sent to the device at once", low=1)
    num_workers: int = option(4, "threads that read pictures and detect faces", low=1, high=64)

    def check(self) -> None:
        """Raise InputError for the first option that is not valid."""
        check_options(self)
        if not self.input:
            raise InputError("`input`: give a picture or a folder of them")
