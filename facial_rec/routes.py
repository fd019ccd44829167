"""How VLR faces are enlarged before recognition, by name. The one place here that knows the DSR."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data.degradation import parse_vlr_size
from data.errors import InputError
from data.face_geometry import FACE_SIZE
from facial_rec.inputs import Route
from training.checkpoint import read_checkpoint
from training.inference import weights_digest
from training.pixels import interpolate

ENLARGING = ("interpolation", "dsr")


def routes_of(text: str) -> list[str]:
    """`interpolation,dsr` -> those. Raises InputError."""
    names = [part.strip() for part in text.split(",")]
    if not set(names) <= set(ENLARGING) or len(set(names)) < len(names):
        raise InputError(f"--inputs {text}: interpolation, dsr, or both with a comma")
    return names


def enlarging(names: Iterable[str], dsr_checkpoint: str, vlr_size: str, device: str = "cpu") -> list[Route]:
    """A Route of each of the names that is one of ENLARGING. Raises InputError for the super-resolver."""
    made = {
        "interpolation": lambda: Route("interpolation", lambda vlr: interpolate(vlr, FACE_SIZE)),
        "dsr": lambda: super_resolution(dsr_checkpoint, vlr_size, device),
    }
    return [made[name]() for name in names if name in ENLARGING]


def super_resolution(checkpoint: str, vlr_size: str, device: str) -> Route:
    """checkpoint: of a run, a pattern, or an exported folder, which does not tell whom it was trained on.

    Raises InputError for a model of another size.
    """
    from dsr.model import load_dsr

    model = load_dsr(checkpoint, device)
    if model.config.vlr != parse_vlr_size(vlr_size):
        raise InputError(
            f"{checkpoint}: takes {model.config.vlr_size} px, not {vlr_size}: give --vlr_size "
            f"{model.config.vlr_size}, or another --dsr_checkpoint"
        )
    exported = Path(checkpoint).is_dir()
    people = frozenset() if exported else frozenset(read_checkpoint(checkpoint)["trained_on"])
    return Route("dsr", model, weights_digest(model, str(model.config.vlr)), people)
