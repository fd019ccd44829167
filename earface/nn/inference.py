"""What every tool that uses a trained model starts from: a device, and the name of its weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.nn.threads import automatic_threads

Network = TypeVar("Network", bound=nn.Module)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def choose_device(name: str) -> str:
    """`cuda`, `mps` or `cpu`, set to float32 and to the same result at every run. Raises InputError if it is not there.

    name: `auto` is the GPU if there is one.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"`device` cuda: {why_no_gpu()}; use `device` cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("`device` mps: PyTorch sees no GPU of Apple's here; use `device` cpu")
    device = device_of_accelerator(name)
    if device == "cuda":
        check_gpu_age("`device` cpu")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # its default is True, 10 bits of mantissa
    torch.backends.cudnn.deterministic = True
    if device == "cpu":
        _choose_threads()
    return device


@functools.cache
def _choose_threads() -> None:
    """Once in a process."""
    torch.set_num_threads(automatic_threads()[0])


def in_evaluation(
    function: Callable[Concatenate[Network, Given], Result],
) -> Callable[Concatenate[Network, Given], Result]:
    """Decorate a function of a network, which is in evaluation mode inside and as it was afterwards."""

    @functools.wraps(function)
    def run(network: Network, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        modes = {module: module.training for module in network.modules()}
        network.eval()
        try:
            return function(network, *args, **kwargs)
        finally:
            for module, training in modes.items():
                module.training = training

    return run


def device_of_accelerator(accelerator: str) -> str:
    """The device that one of Lightning's names means here: cpu, cuda, mps, or another name as it is."""
    name = accelerator.lower()
    if name in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if name in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu" if name == "auto" else name


def why_no_gpu() -> str:
    """Why PyTorch has no CUDA here, in one clause."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch is built for CPUs alone"
    return "PyTorch sees no GPU here"


def check_gpu_age(advice: str) -> None:
    """Raise InputError for a GPU that this PyTorch holds no code for. advice: the flag to use instead."""
    built = [int(name.split("_")[1].rstrip("af")) for name in torch.cuda.get_arch_list() if "_" in name]
    found = torch.cuda.get_device_capability()
    if built and 10 * found[0] + found[1] < min(built):
        raise InputError(
            f"{torch.cuda.get_device_name()}: its compute capability is {found[0]}.{found[1]}, and this PyTorch is "
            f"built for {min(built) / 10:.1f} and later; install a build for older GPUs, or use {advice}"
        )


def weights_digest(model: nn.Module, geometry: str = "") -> str:
    """SHA-256 (64 hex digits) of `geometry` and of every weight's name, type, shape and bytes.

    geometry: the image size where the weights do not show it. A checkpoint and what is exported from it have the same
    digest, an int8 file and its floats too; averaged and raw weights have not. Buffers that are not saved do not count.
    """
    digest = hashlib.sha256(geometry.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def in_columns(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (B, D) and (B,) side by side."""
    return torch.cat([part if part.ndim > 1 else part[:, None] for part in parts], dim=1)
