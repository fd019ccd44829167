"""What the export commands share: their options. No torch: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.files import CONFIG, WEIGHTS, refuse_to_replace, require_file, require_path, require_trained
from earface.core.options import check_options, option
from earface.core.tool_options import WeightsOptions

CHECKPOINT_HELP = "a .ckpt file, a quoted pattern (the newest match), or an exported folder"
CARD = "README.md"


def int8_name(file: str) -> str:
    """`encoder.onnx` -> `encoder_int8.onnx`."""
    return f"{file.removesuffix('.onnx')}_int8.onnx"


@dataclass(frozen=True)
class ExportOptions(WeightsOptions):
    """A subclass gives `checkpoint` its default and the names of its ONNX files."""

    onnx_files: ClassVar[tuple[str, ...]] = ()
    int8_of: ClassVar[tuple[str, ...]] = ()  # those of them that `quantize` makes int8 files of

    checkpoint: str = option("", CHECKPOINT_HELP)
    out: str | None = option(None, "folder for the files")
    format: Literal["onnx", "safetensors", "both", "hub"] = option(
        "both", "ONNX; what from_pretrained reads; both; hub: both with a model card of the run, ready to upload"
    )
    half: bool = option(False, "ONNX weights in half precision: half the size; what is computed stays float32")
    opset: int | None = option(
        None, "ONNX operator set: 18 for onnxruntime 1.14 or newer; by default PyTorch's own", low=18, high=23
    )
    tolerance: float = option(
        1e-4, "of ONNX against PyTorch: largest difference, as a share of the largest value if that is above 1", above=0
    )
    quantize: Literal["int8"] | None = option(None, "int8: NAME_int8.onnx beside each NAME.onnx, for processors")
    calibration: str | None = option(
        None, "of `quantize`: pictures such as the model meets; on half of them what int8 loses is measured"
    )
    max_loss: float = option(
        0.02,
        "of `quantize`: cosine below 1, RMS error of pixels in [0, 1], boxes that differ; more is refused",
        above=0,
    )
    license: str | None = option(None, "of the weights, for the card of hub: mit, cc-by-4.0, other, ...")
    data: str | None = option(None, "for the card of hub: what it was trained on, in a sentence")
    report: tuple[str, ...] = option((), "for the card of hub: metrics.json files of evaluations")

    def check(self) -> None:
        check_options(self)
        if self.out is None:
            raise InputError("`out`: give a folder")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError(f"`out` {self.out}: is a file; give a folder")
        self._check_quantize()
        self._check_card()
        onnx = (*self.onnx_files, *map(int8_name, self.int8_of))
        files = {"onnx": onnx, "safetensors": (CONFIG, WEIGHTS), "both": (*onnx, CONFIG, WEIGHTS)}
        files["hub"] = (*files["both"], CARD)
        refuse_to_replace((Path(self.out) / name for name in files[self.format]), self.overwrite)
        others = {"onnx": (CONFIG, WEIGHTS), "safetensors": onnx}.get(self.format, ())
        left = [name for name in others if (Path(self.out) / name).exists()]
        if left:
            raise InputError(
                f"`out` {self.out}: holds {' and '.join(left)} of an earlier export, which may be another model's; use "
                "`format` both `overwrite`, which replaces everything, or another folder"
            )

    def check_files(self) -> None:
        """Raise InputError where a file that is named is not there."""
        require_trained(self.checkpoint)
        if self.calibration is not None:
            require_path(self.calibration)
        for path in self.report:
            require_file(path)

    def _check_quantize(self) -> None:
        if self.quantize is None:
            if self.calibration is not None:
                raise InputError("`calibration`: only `quantize` int8 needs pictures")
            return
        if self.format == "safetensors":
            raise InputError("`quantize`: int8 files are ONNX; use `format` onnx, both or hub")
        if self.half:
            raise InputError("`quantize` int8 is made from float32 weights; leave out `half`")
        if self.calibration is None:
            raise InputError("`quantize` int8 needs `calibration`: pictures such as the model meets in use")

    def _check_card(self) -> None:
        if self.format == "hub":
            return
        given = [name for name in ("license", "data", "report") if getattr(self, name)]
        if given:
            raise InputError(f"`{given[0]}` is for the model card of `format` hub")
