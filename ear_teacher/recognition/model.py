"""EarRecognizer: ears in one form to embeddings in which the ears of one person are near. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.config import EDGEFACE_VARIANTS
from ear_teacher.encoders import build_backbone
from ear_teacher.hub import FROM_FACES
from ear_teacher.model import EarVAE
from ear_teacher.recognition.config import FROM_VAE, EarRecognizerConfig
from ear_teacher.recognition.hub import FORMAT, MODEL_CARD, TAGS, EarRecognizerProvenance, read_provenance
from earface.core.errors import InputError
from earface.nn.checkpoint import load_fitting, network_state, read_checkpoint
from earface.nn.edgeface import build_network
from earface.nn.edgeface import layer_groups as edgeface_groups
from earface.nn.edgeface_weights import VARIANTS, check_fit, published_file, read_edgeface, variant_named
from earface.nn.fixed_batches import in_fixed_batches
from earface.nn.inference import weights_digest
from earface.nn.trained_model import TrainedModel

if TYPE_CHECKING:
    from ear_teacher.given_ears import Misfits
    from earface.data.given import Pictures

INFERENCE_BATCH = 16  # one shape for every call: kernels, and so the last bit, depend on it


class PooledEncoder(nn.Module):
    """An encoder's coarsest map, averaged over its places, through a linear layer between two batch norms.

    (B, 3, S, S) in [-1, 1] -> (B, embedding_dim).
    """

    def __init__(self, config: EarRecognizerConfig, weights: str) -> None:
        super().__init__()
        self.backbone = build_backbone(config.encoder_config, weights)
        width = self.backbone.channels[-1]
        self.neck = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, config.embedding_dim, bias=False),
            nn.BatchNorm1d(config.embedding_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.neck(self.backbone(images)[-1].mean(dim=(2, 3)))
        return embeddings


class EarRecognizer(
    TrainedModel[EarRecognizerConfig],
    library_name="earface",
    pipeline_tag="image-feature-extraction",
    tags=TAGS,
    model_card_template=MODEL_CARD,
):
    """Ears (B, 3, S, S) in [-1, 1], RGB, in the form of `config.contract`, to embeddings (B, D).

    backbone_weights: `pretrained`, `none` or a file.
    """

    format, command, old_key = FORMAT, "ears recognize train", "recognizer"

    def __init__(
        self, config: EarRecognizerConfig | None = None, backbone_weights: str = "none", **overrides: Any
    ) -> None:
        super().__init__()
        self.config = config = EarRecognizerConfig(**{**vars(config or EarRecognizerConfig()), **overrides})
        config.check()
        self.provenance = EarRecognizerProvenance()
        self.network: Any
        if config.is_edgeface:
            self.network = build_network(variant_named(config.backbone))
            if backbone_weights != "none":
                self._load_edgeface(backbone_weights)
        else:
            self.network = PooledEncoder(config, backbone_weights)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D), not normalised."""
        embeddings: Tensor = self.network(images)
        return embeddings

    def embeddings(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D) of length 1, float32, of the ear and its mirror image together."""
        return unit(unit(self(images)) + unit(self(images.flip(3))))

    @torch.no_grad()
    def embed_exactly(self, images: Tensor) -> Tensor:
        """`embeddings` in evaluation mode, equal bit for bit alone and in any batch, on one device."""
        return in_fixed_batches(lambda part: (self.embeddings(part),), images, INFERENCE_BATCH)[0]

    @torch.no_grad()
    def embed_measured(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same bits, and of each ear, (B,): the mean length of its embedding and of the mirror image's before they
        are brought to 1, and their cosine.
        """

        def embed(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            both = [self(part).float(), self(part.flip(3)).float()]
            own, mirrored = map(unit, both)
            norms = (both[0].norm(dim=1) + both[1].norm(dim=1)) / 2
            return unit(own + mirrored), norms, (own * mirrored).sum(dim=1)

        embeddings, norms, alike = in_fixed_batches(embed, images, INFERENCE_BATCH)
        return embeddings, norms, alike

    def embed(self, pictures: Pictures, *, batch_size: int = 64, misfits: Misfits = "refuse") -> Tensor:
        """(N, D) of length 1, float32 on the CPU, without gradient, of ears in any form that Python code has them in.

        pictures: one or several, as `earface.data.given` takes them: crops or photographs of one ear each, which are
        brought into the model's form; or a float tensor (B, 3, S, S) in it. misfits: a picture without a usable ear
        is refused; with "nan" its row is NaN, and a warning counts such rows. Raises InputError.
        """
        from ear_teacher.given_ears import encode_given  # on first use: it needs OpenCV

        return encode_given(self, self.config, self.embed_exactly, pictures, batch_size, misfits)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, the size and the contract: embeddings of one digest may be compared."""
        return weights_digest(self, f"{self.config.image_size} {self.config.contract}")

    # -- weights -----------------------------------------------------------------------------------------------------

    def load_encoder(self, path: str) -> None:
        """The encoder of an ear VAE's checkpoint. Raises InputError for another encoder or file."""
        checkpoint = read_checkpoint(path)
        stored = EarVAE.stored_config(checkpoint, path)
        if stored.encoder != FROM_VAE.get(self.config.backbone, self.config.backbone):
            held = EDGEFACE_VARIANTS.get(stored.encoder, stored.encoder)
            raise InputError(f"{path}: has the encoder {held}, not {self.config.backbone}; give `backbone`")
        edgeface = self.config.is_edgeface
        prefix = "encoder.backbone.net." if edgeface else "encoder.backbone."
        state = {
            name.removeprefix(prefix): value
            for name, value in network_state(checkpoint).items()
            if name.startswith(prefix)
        }
        load_fitting(self.network if edgeface else self.network.backbone, state, path)

    def _load_edgeface(self, weights: str) -> None:
        """Published face weights, or a file of them; their last layer starts the embedding."""
        wanted = VARIANTS[self.config.backbone]
        path = published_file(self.config.backbone) if weights == "pretrained" else Path(weights)
        found, state = read_edgeface(path)
        if not VARIANTS[found].same_network(wanted):
            raise InputError(f"{path}: holds {found}, not {self.config.backbone}; give that as `backbone`")
        own = {f"model.{name}": value for name, value in self.network.state_dict().items()}
        check_fit(path, found, state, own)
        self.network.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})

    def layer_groups(self) -> list[list[nn.Module]]:
        """The backbone's, from the input on."""
        groups: list[list[nn.Module]] = (
            edgeface_groups(self.network) if self.config.is_edgeface else self.network.backbone.layer_groups()
        )
        return groups

    def new_layers(self) -> list[nn.Module]:
        """Behind the backbone, with random weights at the start."""
        return [] if self.config.is_edgeface else [self.network.neck]

    # -- trained models ----------------------------------------------------------------------------------------------

    def load_extras(self, checkpoint: Mapping[str, Any]) -> None:
        self.provenance = EarRecognizerProvenance.of_run(checkpoint)

    def saved_provenance(self) -> dict[str, Any]:
        return {**self.provenance.plain(), "digest": self.digest}

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        licence = self.provenance.licence
        return super().generate_model_card(*args, licence=licence, from_faces=licence == FROM_FACES, **kwargs)

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        super().load_folder(folder, tensors)
        self.provenance = read_provenance(folder)


def unit(embeddings: Tensor) -> Tensor:
    """(B, D) -> (B, D) float32 of length 1."""
    return F.normalize(embeddings.float(), dim=1)
