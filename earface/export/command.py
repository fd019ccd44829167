"""What the export scripts share: their options, and the two formats in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from rich.console import Console
from rich.table import Table

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.export.onnx_export import BATCHES, Difference
from earface.nn.pretrained_folder import CONFIG, WEIGHTS

CHECKPOINT_HELP = "a .ckpt file, a quoted pattern (the newest match), or an exported folder"


@dataclass(frozen=True)
class ExportOptions:
    """A subclass gives `checkpoint` its default and the names of its ONNX files."""

    onnx_files: ClassVar[tuple[str, ...]] = ()

    checkpoint: str = option("", CHECKPOINT_HELP)
    out: str | None = option(None, "folder for the files")
    format: Literal["onnx", "safetensors", "both"] = option("both", "ONNX; what from_pretrained reads; or both")
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
        others = {"onnx": (CONFIG, WEIGHTS), "safetensors": self.onnx_files, "both": ()}[self.format]
        left = [name for name in others if (Path(self.out) / name).exists()]
        if left:
            raise InputError(
                f"--out {self.out}: holds {' and '.join(left)} of an earlier export, which may be another model's; use "
                "--format both, which replaces everything, or another folder"
            )


def export_model(
    options: ExportOptions, save: Callable[[Path], object], write_onnx: Callable[[Path], list[Difference]]
) -> None:
    """The formats that were asked for, and a table of how far ONNX is from PyTorch."""
    out, console = Path(options.out or ""), Console()
    if options.format != "safetensors":
        with console.status("exporting and comparing"):
            differences = write_onnx(out)
        print_differences(console, differences)
    if options.format != "onnx":
        save(out)
    console.print(f"exported: {out}", soft_wrap=True, highlight=False, markup=False)


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
