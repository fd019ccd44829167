"""A trained ear VAE for other programs: `python -m ear_teacher.export`, or `python ear_teacher/export.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console
from rich.table import Table

from data.errors import InputError, entry_point
from ear_teacher.onnx_files import BATCHES, ONNX_FILES, Difference, require_onnx, write_onnx
from ear_teacher.pretrained import CONFIG, WEIGHTS
from ear_teacher.trained import choose_device, load_trained
from training.cli import parse_options
from training.options import check_options, option


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained ear VAE as ONNX, as safetensors with config.json, or both."""

    checkpoint: str = option(
        "ear_teacher/checkpoints/last.ckpt", "a .ckpt file, a quoted pattern (the newest match), or an exported folder"
    )
    out: str | None = option(None, "folder for the files")
    format: Literal["onnx", "safetensors", "both"] = option(
        "both", "encoder.onnx and decoder.onnx; what from_pretrained reads; or both"
    )
    weights: Literal["averaged", "raw"] = option("averaged", "the moving average if the run kept one, or the last step")
    tolerance: float = option(
        1e-4, "of ONNX against PyTorch: largest difference, as a share of the largest value if that is above 1", above=0
    )

    def check(self) -> None:
        check_options(self)
        if self.out is None:
            raise InputError("--out: give a folder")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError(f"--out {self.out}: is a file; give a folder")
        others = {"onnx": (CONFIG, WEIGHTS), "safetensors": ONNX_FILES, "both": ()}[self.format]
        left = [name for name in others if (Path(self.out) / name).exists()]
        if left:
            raise InputError(
                f"--out {self.out}: holds {' and '.join(left)} of an earlier export, which may be another model's; use "
                "--format both, which replaces everything, or another folder"
            )


def print_differences(console: Console, differences: Sequence[Difference]) -> None:
    table = Table("file", "output", box=None, header_style="bold")
    for batch in BATCHES:
        table.add_column(f"batch {batch}", justify="right")
    rows: dict[tuple[str, str], list[str]] = {}
    for found in differences:
        rows.setdefault((found.file, found.output), []).append(f"{found.largest:.1e}")
    for names, cells in rows.items():
        table.add_row(*names, *cells)
    console.print("onnxruntime against PyTorch, largest absolute difference:", highlight=False)
    console.print(table)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(ExportOptions, argv, prog="python -m ear_teacher.export")
    if options.format != "safetensors":
        require_onnx()
    trained = load_trained(options.checkpoint, choose_device("cpu"), options.weights)
    out, console = Path(options.out or ""), Console()
    if options.format != "safetensors":
        with console.status("exporting and comparing"):
            differences = write_onnx(
                out, trained.model, options.tolerance, digest=trained.digest, encoder=trained.model.config.encoder
            )
        print_differences(console, differences)
    if options.format != "onnx":
        trained.model.save_pretrained(out)
    console.print(f"exported: {out}", soft_wrap=True, highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
