"""The folder that a model's `save_pretrained` writes and the Hugging Face hub keeps: config.json, model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import huggingface_hub as hub
from safetensors.torch import save
from torch import Tensor

from earface.core.errors import InputError
from earface.core.files import CONFIG, WEIGHTS, atomic_write, read_json
from earface.nn.weights import read_weights_file

PROVENANCE = "provenance"

Config = TypeVar("Config")  # a dataclass whose fields have plain defaults, with check()


@dataclass(frozen=True)
class PretrainedFormat(Generic[Config]):
    """What the folder of one class of models holds."""

    model: str  # the class, whose save_pretrained writes it
    title: str  # what it is called in messages
    config: type[Config]
    needed: str  # the field that config.json must have: neither weights nor images show it
    contract: Callable[[Config], dict[str, Any]]  # what an image must be before the model takes it
    limits: str = ""  # of every such model, for its card
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = dict  # of a config.json that an earlier version wrote

    @property
    def kind(self) -> str:
        return f"earface.{self.model}"

    def write(
        self, folder: Path, config: Config, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any] | None = None
    ) -> None:
        """Each file appears whole or not at all, config.json last. provenance: plain values, of `read_provenance`."""
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_write(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(plain, metadata={"format": "pt"}))  # save_file's are readable to the owner alone
        options: Any = config
        content = {"kind": self.kind, "model": asdict(options), "image": self.contract(config)}
        content |= {} if provenance is None else {PROVENANCE: dict(provenance)}
        with atomic_write(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def read_provenance(self, folder: Path) -> dict[str, Any]:
        """What `write` was given, of a folder that `read` takes; empty where it was given nothing."""
        stored = self.upgrade(read_json(folder / CONFIG)).get(PROVENANCE, {})
        if not isinstance(stored, dict):
            raise InputError(f"{folder / CONFIG}: {PROVENANCE} is no table of names and values")
        return stored

    def read(self, folder: Path) -> tuple[Config, dict[str, Tensor]]:
        """The configuration and the tensors, on the CPU. A field that config.json lacks takes its default.

        Raises InputError for files that are missing, damaged or of something else, and for fields that are unknown.
        """
        path, advice = folder / CONFIG, f"give a folder that {self.model}.save_pretrained wrote"
        if not path.is_file():
            raise InputError(f"{folder}: holds no {CONFIG}, and is no run with a last.ckpt; {advice}, or a run's")
        content = read_json(path)
        if not isinstance(content, dict) or content.get("kind") != self.kind:
            raise InputError(f"{path}: describes no {self.title}; {advice}")
        content = self.upgrade(content)
        config = self._config(path, content.get("model"))
        if content.get("image") != (contract := self.contract(config)):
            stored = content.get("image")
            keys = contract if not isinstance(stored, dict) else [k for k in contract if stored.get(k) != contract[k]]
            raise InputError(
                f"{path}: its images are not those of this version ({', '.join(keys) or 'unknown fields'})"
            )
        return config, read_weights_file(folder / WEIGHTS)

    def _config(self, path: Path, stored: object) -> Config:
        options: Any = self.config
        known = {field.name: type(field.default) for field in fields(options)}
        if not isinstance(stored, dict) or self.needed not in stored:
            raise InputError(f'{path}: "model" lacks the field {self.needed}')
        unknown = sorted(stored.keys() - known.keys())
        if unknown:
            raise InputError(f"{path}: unknown fields {', '.join(unknown)}; written by a newer version?")
        for name, value in stored.items():
            wanted = list if known[name] is tuple else known[name]
            if type(value) is not wanted:
                raise InputError(f"{path}: {name} {value!r} is not of type {wanted.__name__}")
        config = options(**{name: tuples(value) for name, value in stored.items()})
        try:
            config.check()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return config


def tuples(value: Any) -> Any:
    """JSON's lists as a dataclass has them."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


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
