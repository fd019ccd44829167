"""The folder that `EarVAE.save_pretrained` writes and the Hugging Face hub keeps: config.json, model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from safetensors.torch import save
from torch import Tensor

from data.atomic import atomic_write
from data.errors import InputError
from ear_teacher.config import EarVAEConfig
from training.weights import read_weights_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "earface.EarVAE"
RESIZE = "stretch to a square, each axis by itself: OpenCV INTER_AREA where it shrinks, INTER_CUBIC where it grows"

MODEL_CARD = """---
{{ card_data }}
---

A variational autoencoder over ear crops. `config.json` says which images it takes: size, resize rule, value range.

```python
from ear_teacher import EarVAE

model = EarVAE.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
mu = model.encode(images)  # images as config.json says; equal bit for bit in any batch
```
"""


def image_contract(config: EarVAEConfig) -> dict[str, Any]:
    """What an image must be before the model takes it; values of [0, 1] minus mean, divided by std, are in range."""
    channels = config.in_channels
    return {
        "size": config.image_size,
        "channels": "RGB" if channels == 3 else "grey",
        "resize": RESIZE,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "range": [-1.0, 1.0],
    }


def write_pretrained(folder: Path, config: EarVAEConfig, tensors: Mapping[str, Tensor]) -> None:
    """Each file appears whole or not at all, config.json last."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(plain, metadata={"format": "pt"}))  # save_file's are readable to the owner alone
    content = {"kind": KIND, "model": asdict(config), "image": image_contract(config)}
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def find_pretrained(name: str, **download: Any) -> Path:
    """The folder itself, or that of a model on the hub, downloaded or from the cache.

    download: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, as in `hub.snapshot_download`.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise InputError(f"{name}: a folder with {CONFIG} and {WEIGHTS} wanted, not a file")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **download))
    except Exception as error:  # the client's own kinds of failure differ between its versions
        reason = str(error).strip().split("\n")[0][:120]
        raise InputError(f"{name}: no such folder, and no model on the hub that can be had ({reason})") from error


def read_pretrained(folder: Path) -> tuple[EarVAEConfig, dict[str, Tensor]]:
    """The configuration and the tensors, on the CPU. A field that config.json lacks takes its default.

    Raises InputError for files that are missing, damaged or of something else, and for fields that are unknown here.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no {CONFIG}; give a folder that EarVAE.save_pretrained wrote") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InputError(f"{path}: describes no ear VAE; give a folder that EarVAE.save_pretrained wrote")
    config = _config(path, content.get("model"))
    if content.get("image") != (contract := image_contract(config)):
        stored = content.get("image")
        keys = contract if not isinstance(stored, dict) else [k for k in contract if stored.get(k) != contract[k]]
        raise InputError(f"{path}: its images are not those of this version ({', '.join(keys) or 'unknown fields'})")
    return config, read_weights_file(folder / WEIGHTS)


def _config(path: Path, stored: object) -> EarVAEConfig:
    known = {field.name: type(field.default) for field in fields(EarVAEConfig)}
    if not isinstance(stored, dict) or "encoder" not in stored:
        raise InputError(f'{path}: "model" lacks the field encoder')
    unknown = sorted(stored.keys() - known.keys())
    if unknown:
        raise InputError(f"{path}: unknown fields {', '.join(unknown)}; written by a newer version?")
    for name, value in stored.items():
        if type(value) is not known[name]:
            raise InputError(f"{path}: {name} {value!r} is not of type {known[name].__name__}")
    config = EarVAEConfig(**stored)
    try:
        config.check()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config
