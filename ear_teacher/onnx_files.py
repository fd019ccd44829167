"""A trained ear VAE as two ONNX files, each compared with PyTorch before it appears."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.atomic import atomic_write
from data.errors import InputError
from ear_teacher.model import EarVAE
from ear_teacher.pretrained import image_contract

NEEDED = ("onnx", "onnxscript", "onnxruntime")
ONNX_FILES = ("encoder.onnx", "decoder.onnx")
BATCHES = (1, 3, 8)  # exported with 2: a size that was fixed by mistake would show
MAX_FILE_BYTES = 2**31 - 2**24  # protobuf's limit, less the graph
CHECK_SEED = 7


class EncoderPart(nn.Module):
    """images (N, C, S, S) in [-1, 1] -> mu, logvar, each (N, D)."""

    inputs, outputs = ("images",), ("mu", "logvar")

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.posterior_of(images)


class DecoderPart(nn.Module):
    """latent (N, D) -> images (N, C, S, S) in [-1, 1]."""

    inputs, outputs = ("latent",), ("images",)

    def __init__(self, model: EarVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


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
        raise InputError(f"--format onnx needs {', '.join(missing)}: pip install 'earface[onnx]'")


def write_onnx(folder: Path, model: EarVAE, tolerance: float, **metadata: str) -> list[Difference]:
    """encoder.onnx and decoder.onnx, both or neither. model: in evaluation mode, on the CPU.

    metadata: kept in the files beside the image contract. Raises InputError if an output differs by more than
    `tolerance` times its largest absolute value, or times 1 if that is smaller, and if a part cannot be exported.
    """
    examples = _examples(model, max(BATCHES))
    parts: dict[str, tuple[EncoderPart | DecoderPart, Tensor]] = dict(
        zip(ONNX_FILES, ((EncoderPart(model), examples[0]), (DecoderPart(model), examples[1])), strict=True)
    )
    about = {"latent_dim": str(model.config.latent_dim), "image": json.dumps(image_contract(model.config)), **metadata}
    differences: list[Difference] = []
    with contextlib.ExitStack() as both:
        for name, (part, example) in parts.items():
            temporary = both.enter_context(atomic_write(folder / name))
            temporary.write_bytes(_exported(name, part, example[:2], about))
            found = _compare(name, temporary, part, example)
            _check(found, tolerance)
            differences += found
    return differences


@torch.no_grad()
def _examples(model: EarVAE, count: int) -> tuple[Tensor, Tensor]:
    """Pictures that look like ears, a fourth of them noise, and latents: what the parts meet in use."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    images = model.sample(count, "prior" if model.posterior is None else "posterior", generator)
    noise = torch.rand(images.shape, generator=generator) * 2.0 - 1.0
    images[::4] = noise[::4]
    return images, model.encode(images)


def _exported(name: str, part: EncoderPart | DecoderPart, example: Tensor, about: dict[str, str]) -> bytes:
    import onnx

    size = sum(tensor.nbytes for tensor in part.state_dict().values())
    if size > MAX_FILE_BYTES:
        raise InputError(f"{name}: {size / 2**30:.1f} GiB of weights, more than an ONNX file holds; use safetensors")
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                part.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=part.inputs,
                output_names=part.outputs,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(_root(error)).strip().split("\n")[0][:200]
            raise InputError(
                f"{name}: torch cannot express this encoder as ONNX ({reason}); use safetensors"
            ) from error
    proto = program.model_proto
    _strip(proto.graph)
    onnx.helper.set_model_props(proto, about)
    return proto.SerializeToString()


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
    """Their loggers tell about optional packages and graph passes."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_onnx(path: Path, given: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    """The outputs of an ONNX file with one input, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})


@torch.no_grad()
def _compare(name: str, path: Path, part: EncoderPart | DecoderPart, example: Tensor) -> list[Difference]:
    found = []
    for batch in BATCHES:
        wanted = part(example[:batch])
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for output, ours, theirs in zip(part.outputs, wanted, run_onnx(path, example[:batch].numpy()), strict=True):
            reference = ours.double().numpy()
            largest = float(np.abs(reference - theirs).max())
            found.append(Difference(name, output, batch, largest, float(np.abs(reference).max())))
    return found


def _check(differences: Sequence[Difference], tolerance: float) -> None:
    for found in differences:
        if not found.largest <= tolerance * max(1.0, found.scale):  # NaN is refused too
            raise InputError(
                f"{found.file}: {found.output} differs from PyTorch by {found.largest:.3g} at batch {found.batch} "
                f"(largest value {found.scale:.3g}), over --tolerance {tolerance:g}; nothing was written"
            )
