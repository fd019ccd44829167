"""What every model of this project does alike: it lives in training checkpoints and in folders of safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.nn.checkpoint import load_fitting, network_state, read_checkpoint
from earface.nn.pretrained_folder import PretrainedFormat, find_pretrained, tuples

Config = TypeVar("Config")


class TrainedModel(nn.Module, ModelHubMixin, Generic[Config]):
    """A network with a `config`, from which and from its weights it is rebuilt.

    A subclass names its `format` and `command`, and takes a configuration as its first argument.
    `save_pretrained(folder)`, `from_pretrained(folder or name)` and `push_to_hub(name)` are the Hugging Face hub's.
    """

    format: ClassVar[PretrainedFormat[Any]]
    command: ClassVar[str]  # whose checkpoints hold it
    old_key: ClassVar[str]  # of its configuration in checkpoints without a `kind`
    config: Config

    # -- checkpoints -------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", weights: str = "averaged") -> Self:
        """From a checkpoint, a glob (the newest match), a run's folder (its best), or what `save_pretrained` wrote.

        In evaluation mode. weights: of a checkpoint, `averaged` (the EMA if the run kept one) or `raw`. Raises
        InputError for anything else.
        """
        if is_exported(path):
            return cls.from_pretrained(path, map_location=device)
        return cls.load_from_checkpoint(path, device, weights)

    @classmethod
    def load_from_checkpoint(cls, path: str | Path, map_location: str = "cpu", weights: str = "averaged") -> Self:
        """A trained model in evaluation mode from a checkpoint of its training, a glob (the newest match), or a run's
        folder (its best).

        weights: `averaged` (the EMA if the run kept one) or `raw`. Raises InputError for any other file.
        """
        return cls.from_checkpoint(read_checkpoint(path, map_location), path, map_location, weights)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Mapping[str, Any], path: str | Path, map_location: str = "cpu", weights: str = "averaged"
    ) -> Self:
        """`load_from_checkpoint` of what `read_checkpoint` returned. path: where from, for error messages."""
        model = cls.build(cls.stored_config(checkpoint, path))
        model.load_weights(checkpoint, path, weights)
        model.load_extras(checkpoint)
        return model.to(map_location).eval()

    @classmethod
    def stored_config(cls, checkpoint: Mapping[str, Any], path: str | Path) -> Config:
        """The configuration of the model in a checkpoint. Raises InputError where that is another model."""
        stored = checkpoint.get("hyper_parameters", {})
        options: Any = None
        if stored.get("kind", cls.format.kind) == cls.format.kind:
            options = stored.get("model" if "kind" in stored else cls.old_key)
        known = {field.name for field in fields(cls.format.config)}
        if not isinstance(options, dict) or cls.format.needed not in options or not options.keys() <= known:
            raise InputError(
                f"{path}: this checkpoint holds no {cls.format.title}; give one written by earface {cls.command}"
            )
        return cls.format.config(**{name: tuples(value) for name, value in options.items()})

    @classmethod
    def build(cls, config: Config) -> Self:
        """With new weights."""
        return cls(config)

    def load_weights(self, checkpoint: Mapping[str, Any], path: str | Path, weights: str = "averaged") -> None:
        """The weights of a checkpoint into this model. Raises InputError when shapes or names differ."""
        stored = checkpoint.get("hyper_parameters", {})
        options = stored.get("model" if "kind" in stored else self.old_key) or {}
        made_with = {name: tuples(value) for name, value in options.items()}
        load_fitting(self, network_state(checkpoint, weights), path, made_with)

    def load_extras(self, checkpoint: Mapping[str, Any]) -> None:
        """Take what else a checkpoint holds of the model."""

    # -- folders -----------------------------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path) -> None:
        self.format.write(save_directory, self.config, self.saved_tensors(), self.saved_provenance())

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str = "cpu", **download: Any
    ) -> Self:
        """A trained model in evaluation mode from what `save_pretrained` or `push_to_hub` wrote: a folder, or a name.

        A folder needs no network. download: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.
        Raises InputError for anything else; the mixin's own reader would trust config.json.
        """
        folder = find_pretrained(str(pretrained_model_name_or_path), **download)
        config, tensors = cls.format.read(folder)
        model = cls.build(config)
        model.load_folder(folder, tensors)
        return model.to(map_location).eval()

    def saved_tensors(self) -> dict[str, Tensor]:
        """By name, what the folder's safetensors file holds."""
        return self.state_dict()

    def saved_provenance(self) -> dict[str, Any] | None:
        """Plain values that the folder keeps beside the configuration."""
        return None

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Take what `saved_tensors` and `saved_provenance` gave. Raises InputError where it does not fit."""
        load_fitting(self, tensors, folder)
