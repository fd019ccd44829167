"""EdgeFace as its authors publish it: the variants, where their files are, and reading one in full or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from earface.core.downloads import download, hub_file
from earface.core.errors import InputError
from earface.nn.weight_layouts import LAYOUTS
from earface.nn.weights import read_weights_file

GITLAB = "https://gitlab.idiap.ch/bob/bob.paper.tbiom2023_edgeface/-/raw/master/checkpoints"  # as in their hubconf.py
INT8_VALUES = 256
ADVICE = (
    "give a file of the authors (edgeface_xxs.pt and others, huggingface.co/Idiap or github.com/otroshi/"
    "edgeface), or fine-tuned weights in that layout"
)


@dataclass(frozen=True)
class Variant:
    """One published network: an EdgeNeXt with 512 outputs (George et al. 2024)."""

    network: str  # timm's name
    width: int  # channels of its stem
    rank_ratio: float | None = None  # gamma of its low-rank linear layers
    repository: str | None = None  # on the Hugging Face hub
    sha256: str | None = None  # of the file where it is on the authors' GitLab alone

    def same_network(self, other: Variant) -> bool:
        return (self.network, self.rank_ratio) == (other.network, other.rank_ratio)


VARIANTS = {
    "edgeface_xxs": Variant("edgenext_xx_small", 24, repository="Idiap/EdgeFace-XXS"),
    "edgeface_xs_gamma_06": Variant("edgenext_x_small", 32, 0.6, "Idiap/EdgeFace-XS-GAMMA"),
    "edgeface_s_gamma_05": Variant("edgenext_small", 48, 0.5, "Idiap/EdgeFace-S-GAMMA"),
    "edgeface_base": Variant("edgenext_base", 80, repository="Idiap/EdgeFace-Base"),
    "edgeface_xxs_q": Variant(
        "edgenext_xx_small", 24, sha256="46be7cc7e8d6e23501c0627fe5fbef101922ee9b85ccbef476987ab1a320b053"
    ),
    "edgeface_xs_q": Variant(
        "edgenext_x_small", 32, sha256="a31314377876ab9fa2a75e5638bc528efe79fd17d5c9c0a228fb7f846d7581a6"
    ),
}


def variant_named(name: str) -> Variant:
    if name not in VARIANTS:
        raise InputError(f"`variant` {name}: choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def published_file(name: str) -> Path:
    """The authors' file of a variant, downloaded the first time. Raises InputError if it is not available."""
    variant = variant_named(name)
    if variant.repository is not None:
        return Path(hub_file(variant.repository, [f"{name}.pt"], what=name, advice=ADVICE))
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.pt"  # where torch.hub keeps the authors' own downloads
    if not path.is_file():
        download(f"{GITLAB}/{name}.pt", path, variant.sha256, what=name, advice=ADVICE)
    return path


def read_edgeface(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The variant of the weights in a file, and the weights, on the CPU, under the authors' names.

    Recognised by the stem's width and the kind of linear layers; of two variants of one network, the float one.
    Raises InputError for a file that is missing, damaged or of something else.
    """
    try:
        state = read_weights_file(path)
    except InputError as error:
        raise InputError(f"{error}; {ADVICE}") from None
    stem = state.get("model.stem.0.weight", torch.empty(0))
    low_rank = any(".linear1." in key for key in state)
    for name, variant in VARIANTS.items():
        if stem.shape[:1] == (variant.width,) and low_rank == (variant.rank_ratio is not None):
            return name, state
    layout = next((layout.name for layout in LAYOUTS if all(mark in state for mark in layout.marks)), "EdgeFace")
    held = "no EdgeFace weights that are known here" if layout == "EdgeFace" else f"{layout} weights"
    raise InputError(f"{path}: holds {held}; {ADVICE}")


def published_name(name: str, state: Mapping[str, Tensor]) -> str:
    """The int8 variant of the same network if its output layer has no more distinct values than int8.

    Such a file was published in int8, whatever type its numbers have now.
    """
    int8 = f"{name}_q"
    if int8 in VARIANTS and state["model.head.fc.weight"].unique().numel() <= INT8_VALUES:
        return int8
    return name


def check_fit(path: Path, name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError unless `state` has the names and shapes of `wanted`, and plain finite numbers in them."""
    faults = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [key for key in wanted if key in state and state[key].shape != wanted[key].shape],
    }
    if not any(faults.values()):  # never reads tensors of another size
        faults["not finite numbers"] = [key for key, value in state.items() if not _plain_and_finite(value)]
    listed = "; ".join(f"{fault} {_first(keys)}" for fault, keys in faults.items() if keys)
    if listed:
        raise InputError(f"{path}: not the weights of {name}: {listed}; {ADVICE}")


def _plain_and_finite(value: Tensor) -> bool:
    plain = value.layout == torch.strided and value.device.type == "cpu" and value.is_floating_point()
    return plain and bool(value.isfinite().all())


def _first(keys: Iterable[str], count: int = 2) -> str:
    keys = list(keys)
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")
