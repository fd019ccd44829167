"""A tuned recogniser: from the checkpoint of a run to the folder that others load, and back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.nn.checkpoint import find_checkpoint, load_fitting, network_state, read_checkpoint
from earface.nn.lora import add_adapters, merge_adapters
from earface.nn.pretrained_folder import CONFIG, WEIGHTS
from facial_rec.contract import FaceContract
from facial_rec.model import EdgeFace

KIND = "earface.EdgeFace"
LICENCE = "CC BY-NC-SA 4.0, as EdgeFace's own weights: not for commercial use"


@dataclass(frozen=True)
class Tuning:
    """What must be known of a tuned recogniser beside its weights."""

    variant: str
    contract: str  # FaceContract.id: embeddings of another must not be compared with its own
    crop: str
    inputs: str  # what it was shown, such as dsr=.7,hr=.3
    vlr_size: str
    degradation: str
    trained_on: tuple[str, ...]  # digests of the identities
    licence: str = LICENCE


def load_tuned(path: str | Path, weights: str = "averaged") -> tuple[EdgeFace, Tuning]:
    """Of a checkpoint of facial_rec.finetune_edgeface, a pattern (the newest match), or what `save_tuned` wrote.

    The model is in evaluation mode, on the CPU, with low-rank adapters merged. weights: of a checkpoint, `averaged` or
    `raw`. Raises InputError for anything else.
    """
    if (folder := _folder(path)) is not None:
        return _read_folder(folder)
    found = find_checkpoint(path)
    checkpoint = read_checkpoint(found)
    stored = checkpoint.get("hyper_parameters", {})
    if "edgeface" not in stored:
        raise InputError(f"{found}: not a checkpoint of facial_rec.finetune_edgeface")
    options = stored["options"]
    model = EdgeFace(stored["edgeface"]["variant"])
    if options["stage"] == 2 and options["lora_rank"]:
        add_adapters(model, options["lora_rank"])
    load_fitting(model, network_state(checkpoint, weights), found)
    merge_adapters(model)
    return model.requires_grad_(True).eval(), Tuning(
        variant=model.variant,
        contract=FaceContract(options["face_crop"]).id,
        crop=options["face_crop"],
        **{name: options[name] for name in ("inputs", "vlr_size", "degradation")},
        trained_on=tuple(checkpoint["trained_on"]),
    )


def is_tuned(name: str) -> bool:
    """Whether `load_tuned` is for it, rather than `load_edgeface`."""
    return _folder(name) is not None or name.endswith(".ckpt")


def _folder(name: str | Path) -> Path | None:
    """The folder that it is, or whose weights it is: with these comes whom they were trained on."""
    path = Path(name)
    if path.is_dir():
        return path
    return path.parent if path.name == WEIGHTS and (path.parent / CONFIG).is_file() else None


def load_tuned_for(name: str, crop: str) -> tuple[EdgeFace, Tuning]:
    """`load_tuned`, for faces of this crop. Raises InputError also where it was tuned on another."""
    model, tuning = load_tuned(name)
    if tuning.crop != crop:
        raise InputError(f"{name}: was tuned on {tuning.crop} crops, not {crop}: give that crop, or another recogniser")
    return model, tuning


def save_tuned(folder: Path, model: EdgeFace, tuning: Tuning) -> None:
    """Each file appears whole or not at all, config.json last. The weights have the names of the authors' files."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(plain, metadata={"format": "pt"}))
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps({"kind": KIND, **asdict(tuning)}, indent=1) + "\n", encoding="utf-8")


def _read_folder(folder: Path) -> tuple[EdgeFace, Tuning]:
    path = folder / CONFIG
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no {CONFIG}; give a folder that facial_rec.export wrote") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.pop("kind", None) != KIND:
        raise InputError(f"{path}: describes no tuned EdgeFace; give a folder that facial_rec.export wrote")
    wanted = {field.name for field in fields(Tuning)}
    people = content.get("trained_on")
    if content.keys() != wanted or not isinstance(people, list) or not all(isinstance(one, str) for one in people):
        differing = ", ".join(sorted(content.keys() ^ wanted)) or "trained_on"
        raise InputError(f"{path}: fields are missing, unknown or damaged ({differing})")
    tuning = Tuning(**{**content, "trained_on": tuple(people)})
    if tuning.contract != FaceContract(tuning.crop).id:  # type: ignore[arg-type]
        raise InputError(f"{path}: its faces are not those of this version (contract {tuning.contract})")
    return EdgeFace.from_weights(folder / WEIGHTS, tuning.variant), tuning
