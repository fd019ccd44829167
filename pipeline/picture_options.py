"""Options that enrolling and identifying share: which faces or ears, and how they are embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import DeviceOptions
from earface.data.options import FindingOptions

EAR_SCORE = 0.5  # of a detection


@dataclass(frozen=True)
class PictureOptions(DeviceOptions, FindingOptions):
    """A subclass is the options of a command."""

    input: str = option("", "a picture, or a folder of them")
    aligned: bool = option(
        False, "the pictures are aligned faces of any size, or prepared ears, not photographs to find them in"
    )
    detector: str | None = option(
        None,
        "for photographs. Of faces: YuNet's ONNX file (downloaded once and cached). Of ears: boxes.onnx of earface "
        "export detector; without it every picture is a crop of an ear",
    )
    landmarker: str | None = option(
        None, "of ears: the landmarks.onnx that the recogniser's ears were aligned by; default: earface's"
    )
    min_score: float | None = option(
        None, "least confidence of a detection; default: .7 for faces, .5 for ears", above=0, high=0.99
    )
    upsampler: Literal["none", "bicubic", "dsr"] = option(
        "none", "how faces are enlarged: not at all, by bicubic interpolation, or by the super-resolver"
    )
    dsr_checkpoint: str = option(
        "dsr/checkpoints/last.ckpt", "of `upsampler` dsr: a .ckpt file, a quoted pattern, or an exported folder"
    )
    precision: Literal["32", "16", "bf16"] = option("32", "16 and bf16: faster on a GPU, scores differ by about .01")
    batch_size: int = option(64, "pictures sent to the device at once", low=1)
    num_workers: int = option(4, "threads that read pictures and detect faces or ears", low=1, high=64)

    def check(self) -> None:
        """Raise InputError for the first option that is not valid."""
        check_options(self)
        if not self.input:
            raise InputError("`input`: give a picture or a folder of them")

    def refuse_for_ears(self) -> None:
        """Raise InputError for an option that means nothing for ears."""
        if self.upsampler != "none":
            raise InputError(f"`upsampler` {self.upsampler}: enlarges faces, and the recogniser is one of ears")
        if self.min_face != type(self).min_face:
            raise InputError(f"`min_face` {self.min_face}: of faces, and the recogniser is one of ears")
        if not self.centred_crops:
            raise InputError("`no_centred_crops`: of faces, and the recogniser is one of ears")

    def refuse_for_faces(self) -> None:
        """Raise InputError for an option that means nothing for faces."""
        if self.landmarker is not None:
            raise InputError(f"`landmarker` {self.landmarker}: of ears, and the recogniser is one of faces")
