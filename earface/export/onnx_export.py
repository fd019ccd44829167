"""Networks as ONNX files, each compared with PyTorch before it appears."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.core.progress import progress
from earface.export.options import int8_name

NEEDED = ("onnx", "onnxscript", "onnxruntime")
BATCHES = (1, 3, 8)  # exported with 2: a size that was fixed by mistake would show
MAX_HALF = 65504.0  # float16's largest
HALF_TOLERANCE = 4e-3  # of weights rounded to 11 bits
FEWEST_HALVED = 32  # values of a tensor: a Cast takes as many bytes as half of them save
MAX_FILE_BYTES = 2**31 - 2**24  # protobuf's limit, less the graph


@dataclass(frozen=True)
class OnnxPart:
    """A network with one input, in evaluation mode on the CPU, and the file that it becomes."""

    file: str
    network: nn.Module
    examples: Tensor  # max(BATCHES) of what the network meets in use
    input: str
    outputs: tuple[str, ...]


# Writes a file from those that were exported before it, by name
Derive = Callable[[Mapping[str, Path], Path], None]


@dataclass(frozen=True)
class Difference:
    """Of one output at one batch size, between onnxruntime and PyTorch, both on the CPU."""

    file: str
    output: str
    batch: int
    largest: float  # absolute
    scale: float  # largest absolute value of the output


def require_onnx() -> None:
    """Raise InputError if a package that the export needs is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'`format` onnx needs {", ".join(missing)}: pip install ".[onnx]" in the folder of earface')


def write_parts(
    folder: Path,
    parts: Sequence[OnnxPart],
    tolerance: float,
    metadata: Mapping[str, str],
    half: bool = False,
    opset: int | None = None,
    derived: Mapping[str, Derive] | None = None,
) -> list[Difference]:
    """Every part's file, all or none, of any batch size; metadata: kept in each.

    half: the weights are stored in half precision, and the tolerance is at least HALF_TOLERANCE.
    opset: version of the operator set, None for PyTorch's own; the file's IR version is the lowest that it needs.
    derived: files made of the others, in their order. An int8 file that is none of them is of an earlier export, and
    deleted. Raises InputError if an output differs by more than `tolerance` times its largest absolute value, or times
    1 if that is smaller, and if a part cannot be exported.
    """
    differences: list[Difference] = []
    derived, made = derived or {}, {}
    with contextlib.ExitStack() as together:
        for part in parts:
            temporary = together.enter_context(atomic_write(folder / part.file))
            with progress(f"exporting and comparing {part.file}"):
                temporary.write_bytes(_exported(part, metadata, half, opset))
                found = _compare(temporary, part)
            _check(found, max(tolerance, HALF_TOLERANCE) if half else tolerance)
            differences += found
            made[part.file] = temporary
        for file, derive in derived.items():
            made[file] = together.enter_context(atomic_write(folder / file))
            with progress(f"making {file}"):
                derive(made, made[file])
    for earlier in {int8_name(file) for file in made} - made.keys():
        (folder / earlier).unlink(missing_ok=True)
    return differences


def _exported(part: OnnxPart, metadata: Mapping[str, str], half: bool, opset: int | None) -> bytes:
    import onnx

    size = sum(tensor.nbytes for tensor in part.network.state_dict().values())
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{part.file}: {size / 2**30:.1f} GiB of weights, more than an ONNX file holds; use safetensors"
        )
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                part.network.eval(),
                (part.examples[:2],),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[part.input],
                output_names=part.outputs,
                opset_version=opset,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(_root(error)).strip().split("\n")[0][:200]
            raise InputError(
                f"{part.file}: torch cannot express this network as ONNX ({reason}); use safetensors"
            ) from error
    proto = program.model_proto
    written = next(each.version for each in proto.opset_import if not each.domain)
    if opset is not None and written != opset:
        raise InputError(f"{part.file}: this network cannot be written in `opset` {opset}; {written} can")
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)  # an older onnxruntime reads it
    _strip(proto.graph)
    if half:
        _halve(proto.graph)
    onnx.helper.set_model_props(proto, dict(metadata))
    return proto.SerializeToString()


def _halve(graph: Any) -> None:
    """Store weights as float16, and convert them to float32 when the file is loaded."""
    import onnx

    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FEWEST_HALVED or np.abs(values).max() > MAX_HALF:
            continue
        halved = values.astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _strip(graph: Any) -> None:
    """Remove what the exporter notes at each node: stack traces with this machine's paths."""
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    """Their loggers report optional packages and graph passes."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(path: Path, given: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})


@torch.no_grad()
def _compare(path: Path, part: OnnxPart) -> list[Difference]:
    found = []
    for batch in BATCHES:
        wanted = part.network(part.examples[:batch])
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        theirs = _run(path, part.examples[:batch].numpy())
        for output, ours, its in zip(part.outputs, wanted, theirs, strict=True):
            reference = ours.double().numpy()
            largest = float(np.abs(reference - its).max())
            found.append(Difference(part.file, output, batch, largest, float(np.abs(reference).max())))
    return found


def _check(differences: Sequence[Difference], tolerance: float) -> None:
    for found in differences:
        if not found.largest <= tolerance * max(1.0, found.scale):  # NaN is refused too
            raise InputError(
                f"{found.file}: {found.output} differs from PyTorch by {found.largest:.3g} at batch {found.batch} "
                f"(largest value {found.scale:.3g}), over `tolerance` {tolerance:g}; nothing was written"
            )
