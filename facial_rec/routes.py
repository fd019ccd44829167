"""How VLR faces are enlarged before recognition, by name. The one place here that knows the DSR."""

from __future__ import annotations

from collections.abc import Iterable

from earface.core.errors import InputError
from earface.data.degradation import parse_vlr_size
from earface.data.face_alignment import FACE_SIZE
from earface.data.pixels import interpolate
from earface.nn.inference import weights_digest
from facial_rec.input_cache import Route

ENLARGING = ("interpolation", "dsr")


def routes_of(text: str) -> list[str]:
    """`interpolation,dsr` -> those. Raises InputError."""
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= set(ENLARGING) or len(set(names)) < len(names):
        raise InputError(f"--inputs {text}: interpolation, dsr, or both with a comma")
    return names


def enlarging(
    names: Iterable[str], dsr_checkpoint: str, vlr_size: str | None, device: str = "cpu", precision: str = "32"
) -> list[Route]:
    """A Route of each of the names that is one of ENLARGING. Raises InputError for the super-resolver."""
    made = {
        "interpolation": lambda: Route("interpolation", lambda vlr: interpolate(vlr, FACE_SIZE)),
        "dsr": lambda: super_resolution(dsr_checkpoint, device, precision, vlr_size),
    }
    return [made[name]() for name in names if name in ENLARGING]


def super_resolution(checkpoint: str, device: str = "cpu", precision: str = "32", vlr_size: str | None = None) -> Route:
    """checkpoint: of a run, a pattern, or an exported folder. precision: 32, 16 or bf16, the last two with autocast.

    A face's pixels are the same alone and in any batch. Raises InputError for a model of another size than vlr_size.
    """
    from dsr.model import load_dsr
    from dsr.upscale import super_resolve

    model = load_dsr(checkpoint, device)
    if vlr_size is not None and model.config.vlr != parse_vlr_size(vlr_size):
        raise InputError(
            f"{checkpoint}: takes {model.config.vlr_size} px, not {vlr_size}: give --vlr_size "
            f"{model.config.vlr_size}, or another --dsr_checkpoint"
        )
    made = model.provenance
    return Route(
        "dsr",
        lambda vlr: super_resolve(model, vlr, precision),
        origin=weights_digest(model, str(model.config.vlr)),
        trained_on=frozenset(made.trained_on),
        vlr=model.config.vlr,
        source=checkpoint,
        degradation=made.degradation,
    )
