"""What the export scripts share: the formats in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from earface.core.progress import progress
from earface.export.model_card import check_card, write_card
from earface.export.onnx_export import BATCHES, Difference
from earface.export.options import CARD, ExportOptions
from earface.export.quantization import Calibration, Quantization
from earface.nn.trained_model import TrainedModel


def export_model(
    options: ExportOptions,
    model: TrainedModel[Any],
    write_onnx: Callable[[Path, Quantization | None], list[Difference]],
    calibration: Callable[[str], Calibration],
) -> None:
    """The formats that were asked for, and tables of how far ONNX is from PyTorch, and int8 from float.

    calibration: reads the pictures of `quantize`. Raises InputError.
    """
    out, console = Path(options.out or ""), Console()
    if options.format == "hub":
        check_card(model, options)
    differences: list[Difference] = []
    int8: Quantization | None = None
    if options.format != "safetensors":
        with progress("exporting and comparing"):
            if options.calibration is not None:
                int8 = Quantization(calibration(options.calibration), options.max_loss)
            differences = write_onnx(out, int8)
        print_differences(console, differences)
    losses = {} if int8 is None else int8.losses
    for name, loss in losses.items():
        size = (out / name).stat().st_size / (out / name.replace("_int8", "")).stat().st_size
        console.print(f"{name}: {loss}; {size:.0%} of the float file", soft_wrap=True, highlight=False)
    if options.format == "hub":
        write_card(out / CARD, model, options, differences, losses)
    if options.format != "onnx":
        model.save_pretrained(out)
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
