"""What the export scripts share: the two formats in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from earface.core.progress import progress
from earface.export.onnx_export import BATCHES, Difference
from earface.export.options import ExportOptions


def export_model(
    options: ExportOptions, save: Callable[[Path], object], write_onnx: Callable[[Path], list[Difference]]
) -> None:
    """The formats that were asked for, and a table of how far ONNX is from PyTorch."""
    out, console = Path(options.out or ""), Console()
    if options.format != "safetensors":
        with progress("exporting and comparing"):
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
