"""EdgeFace: faces to embeddings of 512 dimensions. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from earface.core.errors import InputError
from earface.nn.edgeface import build_network, layer_groups
from earface.nn.edgeface_weights import (
    VARIANTS,
    check_fit,
    published_file,
    published_name,
    read_edgeface,
    variant_named,
)
from earface.nn.lora import add_adapters, merge_adapters
from earface.nn.trained_model import TrainedModel
from facial_rec.config import EdgeFaceConfig, finetuned_folder
from facial_rec.contract import SIZE
from facial_rec.hub import FORMAT, MODEL_CARD, EdgeFaceProvenance, read_provenance


class EdgeFace(
    TrainedModel[EdgeFaceConfig],
    library_name="earface",
    pipeline_tag="image-feature-extraction",
    tags=["face-recognition"],
    model_card_template=MODEL_CARD,
):
    """Faces (B, 3, 112, 112) in [-1, 1], RGB, as a `FaceContract` gives them, to embeddings (B, 512).

    variant: a key of `VARIANTS`, with random weights; `from_weights` reads some. The state dict has the names of the
    authors' files.
    """

    format, command, old_key = FORMAT, "faces finetune", "edgeface"

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.provenance = EdgeFaceProvenance()
        self.model = build_network(variant_named(variant))
        self.channels: list[int] = [info["num_chs"] for info in self.model.feature_info]

    @property
    def config(self) -> EdgeFaceConfig:  # type: ignore[override]
        return EdgeFaceConfig(self.variant)

    @classmethod
    def from_weights(cls, weights: str | Path = "pretrained", variant: str | None = None) -> Self:
        """In evaluation mode, with the weights of a file, the authors' own ("pretrained"), or random ones ("none").

        variant: needed unless a file is given; a file of another network is refused. An int8 file and its float
        counterpart are one network: `model.variant` is then that of the file. Raises InputError for weights that are
        not available or do not fit tensor by tensor.
        """
        if variant is not None:
            variant_named(variant)
        elif weights in ("pretrained", "none"):
            raise InputError(f"`weights` {weights}: which? Choose `variant` from {', '.join(VARIANTS)}")
        if weights == "none":
            return cls(str(variant)).eval()
        path = published_file(str(variant)) if weights == "pretrained" else Path(weights)
        found, state = read_edgeface(path)
        if variant is not None and not VARIANTS[found].same_network(VARIANTS[variant]):
            raise InputError(f"{path}: holds {found}, not {variant}; leave `variant` out, or give a file of {variant}")
        model = cls(found)
        check_fit(path, found, state, model.state_dict())
        model.load_state_dict(state)
        model.variant = published_name(found, state)
        return model.eval()

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, 512), not normalised: their lengths are related to image quality."""
        return self.from_features(self.features(faces))

    def embed(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, 512) of length 1, float32 also under autocast; dot products are cosines."""
        return unit(self(faces))

    def features(self, faces: Tensor) -> list[Tensor]:
        """The maps of the four stages, finest first: (B, `channels[i]`, s, s) with s = 28, 14, 7, 3.

        Raises ValueError for faces of another shape, or not of floating point.
        """
        if faces.shape[1:] != (3, SIZE, SIZE) or not faces.is_floating_point():
            found = f"{faces.dtype} {tuple(faces.shape)}"
            raise ValueError(f"float faces (B, 3, {SIZE}, {SIZE}) in [-1, 1] wanted (FaceContract), not {found}")
        return self.model.forward_intermediates(faces, intermediates_only=True)

    def from_features(self, maps: list[Tensor]) -> Tensor:
        """`forward` of the faces whose `features` these maps are: one pass gives both."""
        return self.model.forward_head(self.model.norm_pre(maps[-1]))

    # -- fine-tuned models -------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", weights: str = "averaged") -> Self:
        return super().load(finetuned_folder(path) or path, device, weights)

    @classmethod
    def build(cls, config: EdgeFaceConfig) -> Self:
        return cls(config.variant)

    def load_weights(self, checkpoint: Mapping[str, Any], path: str | Path, weights: str = "averaged") -> None:
        """The low-rank adapters of the checkpoint, if any, are merged."""
        options = checkpoint["hyper_parameters"]["options"]
        if options["stage"] == 2 and options["lora_rank"]:
            add_adapters(self, options["lora_rank"])
        super().load_weights(checkpoint, path, weights)
        merge_adapters(self)
        self.requires_grad_(True)

    def load_extras(self, checkpoint: Mapping[str, Any]) -> None:
        options = checkpoint["hyper_parameters"]["options"]
        about = {name: options[name] for name in ("crop", "upsampler", "vlr_size", "degradation")}
        self.provenance = EdgeFaceProvenance(**about, trained_on=tuple(checkpoint["trained_on"]))

    def saved_provenance(self) -> dict[str, Any]:
        return {"contract": self.provenance.contract, **asdict(self.provenance)}

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        super().load_folder(folder, tensors)
        self.provenance = read_provenance(folder)

    # -- layers ------------------------------------------------------------------------------------------------------

    def layer_groups(self) -> list[list[nn.Module]]:
        """From the input on: the four stages, the first with the stem, and the output layer with its norm."""
        return layer_groups(self.model)


def unit(embeddings: Tensor) -> Tensor:
    """(B, D) -> (B, D) float32 of length 1."""
    return F.normalize(embeddings.float(), dim=1)
