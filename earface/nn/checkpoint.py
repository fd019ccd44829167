"""Checkpoints that survive a kill and a full disk, and that run nothing when they are read."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earface.core.errors import InputError, reading
from earface.core.files import refuse_lfs_pointer, require_checkpoint
from earface.core.spellings import current_options


def find_checkpoint(path: str | Path) -> Path:
    """The file itself, the newest match of a glob, or of a run's folder its best by val/loss.

    Raises InputError when there is none.
    """
    found = require_checkpoint(path)
    return best_of_run(found) if Path(path).is_dir() else found


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A training checkpoint as a dict of plain values and tensors, its options under today's names.

    Never unpickles anything else.
    """
    found = find_checkpoint(path)
    refuse_lfs_pointer(found)
    with reading(found, "not a readable checkpoint (truncated or of another kind)"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch recommends to load such a file without protection
                checkpoint = torch.load(found, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({named[1]})" if named else ""
            raise InputError(f"{found}: refused, it holds more than tensors and plain values{what}") from error
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise InputError(f"{found}: not a training checkpoint (it has no state_dict)")
        stored = checkpoint.get("hyper_parameters")
        if isinstance(stored, dict) and isinstance(stored.get("options"), dict):
            stored["options"] = current_options(stored["options"])
    return checkpoint


def best_of_run(last: Path) -> Path:
    """The checkpoint beside `last` whose val/loss is the run's lowest; `last` itself where there is none.

    last: the last.ckpt of a run, which knows it, wherever its folder was moved.
    """
    for name, state in read_checkpoint(last).get("callbacks", {}).items():
        if name.startswith("ModelCheckpoint") and state.get("monitor") == "val/loss" and state["best_model_path"]:
            best = last.parent / Path(state["best_model_path"]).name
            return best if best.is_file() else last
    return last


def model_state(checkpoint: Mapping[str, Any], weights: str = "averaged") -> dict[str, Tensor]:
    """The weights in a checkpoint: `averaged` (the EMA if the run kept one) or `raw` (what the optimiser moved)."""
    if weights == "averaged":
        return checkpoint["state_dict"]
    if weights == "raw":
        return checkpoint.get("current_model_state", checkpoint["state_dict"])
    raise ValueError(f"weights {weights!r}: choose 'averaged' or 'raw'")


def network_state(checkpoint: Mapping[str, Any], weights: str = "averaged") -> dict[str, Tensor]:
    """Those of `model_state` that belong to the Lightning module's `model`, under that model's own names."""
    state = model_state(checkpoint, weights)
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def load_fitting(
    model: nn.Module, state: dict[str, Tensor], path: str | Path, made_with: Mapping[str, Any] | None = None
) -> None:
    """`load_state_dict`, or an InputError of one line when names or shapes differ.

    path: where `state` is from. made_with: the options of its model where they are known; the error lists those that
    `model.config` has not.
    """
    own = model.state_dict()
    shared = own.keys() & state.keys()
    wrong = sorted((own.keys() ^ state.keys()) | {name for name in shared if own[name].shape != state[name].shape})
    if wrong:
        options = (made_with or {}).items()
        differing = [f"{name} {value}" for name, value in options if getattr(model.config, name, None) != value]
        reason = f"it was made with {', '.join(differing)}" if differing else f"first at {wrong[0]}"
        raise InputError(f"{path}: {len(wrong)} tensors do not fit this model; {reason}")
    model.load_state_dict(state)
