"""int8 files from float ones: calibrated on some pictures, and kept if others show that little is lost.

Static quantization by ONNX Runtime: QuantizeLinear and DequantizeLinear of ONNX itself, weights per channel,
activations between the least and the greatest value that calibration meets. Convolutions, Gemm and MatMul are
quantized; depthwise convolutions (few weights, whose channels differ by orders of magnitude), norms and softmax not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.core.errors import InputError
from earface.data.pixels import to_model_range
from earface.export.onnx_export import Derive
from earface.export.options import int8_name

FEWEST, MOST = 16, 640  # pictures
MOST_CALIBRATED = 128  # ranges hardly change with more
BATCH = 8
QUANTIZED = ("Conv", "Gemm", "MatMul")
SEED = 7

Outputs = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Loss:
    """What int8 changes, on pictures that it was not calibrated on.

    share: what `max_loss` limits, 0 for nothing. metrics: names and values for people to read.
    """

    share: float
    metrics: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())


@dataclass(frozen=True, eq=False)
class Calibration:
    """N pictures as a network takes them: uint8 (N, H, W, C), or float32 (N, C, H, W) in [-1, 1].

    people: whose each is; empty where unknown. held_out: (N,) on which the loss is measured; the others calibrate.
    boxes: (N, 4) x y x y in each, where they are annotated.
    """

    inputs: NDArray[Any]
    people: list[str]
    held_out: NDArray[np.bool_]
    boxes: list[Tensor] | None = None


Judge = Callable[[Outputs, Outputs, NDArray[np.bool_]], Loss]  # of the float file, the int8 file, and which pictures


@dataclass
class Quantization:
    """Makes the int8 files of one export; `losses` has what each lost, by its name."""

    calibration: Calibration
    max_loss: float
    losses: dict[str, Loss] = field(default_factory=dict)

    def derived(self, file: str, inputs: NDArray[Any], judge: Judge) -> dict[str, Derive]:
        """For `write_parts`: the int8 file of a float one. inputs: (N, ...) of that file, for each picture.

        Writing raises InputError where more than `max_loss` is lost.
        """
        name, held_out = int8_name(file), self.calibration.held_out

        def derive(made: Mapping[str, Path], out: Path) -> None:
            quantize(made[file], out, inputs[~held_out])
            outputs = [_outputs(path, inputs[held_out]) for path in (made[file], out)]
            loss = judge(outputs[0], outputs[1], held_out)
            if not loss.share <= self.max_loss:  # NaN is refused too
                raise InputError(
                    f"{name}: int8 loses {loss.share:.3g} ({loss}), over `max_loss` {self.max_loss:g}; nothing was "
                    "written; more or other pictures for `calibration` may help, else export without `quantize`"
                )
            about = {"loss": loss.share, **loss.metrics, "calibrated_on": int((~held_out).sum())}
            _annotate(out, {"int8": json.dumps(about | {"measured_on": int(held_out.sum())})})
            self.losses[name] = loss

        return {name: derive}


def calibration_of(
    source: str, people: Sequence[str], read: Callable[[list[int]], tuple[Sequence[int], NDArray[Any]]]
) -> Calibration:
    """Chooses among N pictures, whose each is, and reads the chosen. read: rows -> which of them, and their inputs.

    Nobody calibrates and is measured on, where people are known. Raises InputError for too few pictures.
    """
    calibrating, measured = _split(people)
    rows = [*calibrating, *measured]
    kept, inputs = read(rows) if len(rows) >= FEWEST else ([], np.zeros(0))
    held_out = np.array([place >= len(calibrating) for place in kept], bool)
    if min(held_out.sum(), (~held_out).sum()) < FEWEST // 2:
        raise InputError(f"{source}: {len(kept) or len(rows)} pictures that can be used; int8 needs {FEWEST} or more")
    return Calibration(inputs, [people[rows[place]] for place in kept], held_out)


def _split(people: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows to calibrate on, and to measure on: those of people with several pictures, as far as there are any."""
    groups: dict[str, list[int]] = {}
    for row, person in enumerate(people):
        groups.setdefault(person or f"\0{row}", []).append(row)
    shuffled = list(groups.values())
    np.random.default_rng(SEED).shuffle(shuffled)
    shuffled.sort(key=lambda rows: len(rows) > 1)
    half = min(len(people) // 2, MOST_CALIBRATED)
    calibrating: list[int] = []
    while shuffled and len(calibrating) + len(shuffled[0]) <= half:
        calibrating += shuffled.pop(0)
    measured: list[int] = []
    while shuffled and len(calibrating) + len(measured) < MOST:
        measured += shuffled.pop()
    if len(calibrating) < half // 2 and any(people):  # too few people to keep them apart
        return _split([""] * len(people))
    return calibrating, measured


def quantize(source: Path, out: Path, inputs: NDArray[Any]) -> None:
    """inputs: (N, ...) of the file's one input, to calibrate on. The file at `out` has the opset of the source."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _silent():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out),
            _Reader(session_of(source).get_inputs()[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_depthwise(onnx.load(prepared).graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # the sum of a product is exact, and rounding it would only lose
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
    proto = onnx.load(out)
    used = {node.domain for node in proto.graph.node}
    imports = [each for each in proto.opset_import if each.domain in used]  # the optimiser lists all that it knows
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    kept = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    onnx.helper.set_model_props(proto, kept)
    out.write_bytes(proto.SerializeToString())


def _depthwise(graph: Any) -> list[str]:
    """Names of the convolutions with as many groups as channels."""
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv" and any(each.name == "group" and each.i > 1 for each in node.attribute)
    ]


class _Reader:
    """Gives the quantizer one picture at a time."""

    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self.rows = iter({name: as_input(inputs[row : row + 1])} for row in range(len(inputs)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.rows, None)


def _outputs(path: Path, inputs: NDArray[Any]) -> Outputs:
    session = session_of(path)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: as_input(inputs[row : row + BATCH])}) for row in range(0, len(inputs), BATCH)]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def as_input(batch: NDArray[Any]) -> NDArray[np.float32]:
    """Pictures, uint8 (B, H, W, C), as a network takes them; anything else as it is."""
    return to_model_range(torch.from_numpy(batch)).numpy() if batch.dtype == np.uint8 else batch


def session_of(path: Path) -> Any:
    """On the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _annotate(path: Path, more: Mapping[str, str]) -> None:
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in proto.metadata_props} | dict(more))
    path.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The quantizer warns of every weight that it leaves as it is."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
