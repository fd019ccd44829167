"""EarVAE: a variational autoencoder over ear crops. `earface ears check` checks it on this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "model":  # `from model import EarVAE` in this folder: the package's module takes this one's place
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.modules[__name__] = import_module("ear_teacher.model")

if __name__ == "__main__":
    import runpy

    runpy.run_module("ear_teacher.model_summary", run_name="__main__")  # it ends the process

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.config import EDGEFACE_VARIANTS, EarVAEConfig
from ear_teacher.decoder import build_decoder
from ear_teacher.encoders import LOGVAR_LIMIT, build_encoder
from ear_teacher.hub import FORMAT, FROM_FACES, MODEL_CARD
from ear_teacher.linear_path import LinearPath, share
from ear_teacher.posterior import AggregatePosterior
from earface.nn.fixed_batches import in_fixed_batches
from earface.nn.trained_model import TrainedModel

if TYPE_CHECKING:
    from ear_teacher.given_ears import Misfits
    from earface.data.given import Pictures

POSTERIOR_PREFIX = "aggregate_posterior."  # in a safetensors file, before its mean and factor
INFERENCE_BATCH = 8  # one shape for every inference call: kernels, and so the last bit, depend on it


class EarVAE(
    TrainedModel[EarVAEConfig],
    library_name="earface",
    pipeline_tag="image-feature-extraction",
    tags=["ear-biometrics", "vae"],
    model_card_template=MODEL_CARD,
):
    """Images (B, C, S, S) in [-1, 1] to a Gaussian posterior over `latent_dim` latents, and back.

    With a linear path (`linear_path_size` > 0) mu is a whitened pixel-PCA projection plus the encoder's correction,
    and the reconstruction its inverse plus the decoder's; both corrections start at zero. The latents are, in a row,
    those of shape, the identity part, which a margin loss over people trains, and the appearance code.
    """

    format, command, old_key = FORMAT, "ears train", "model"

    def __init__(self, config: EarVAEConfig | None = None, encoder_weights: str = "none", **overrides: Any) -> None:
        super().__init__()
        self.config = config = EarVAEConfig(**{**asdict(config or EarVAEConfig()), **overrides})
        config.check()
        self.encoder = build_encoder(config, encoder_weights)
        linear = config.linear_path_size > 0
        self.decoder = build_decoder(config)
        self.linear_path: LinearPath | None = None
        if linear:
            self.linear_path = LinearPath(
                config.linear_dim, config.in_channels, config.linear_path_size, config.image_size
            )
            for layer in (self.encoder.head.mu, self.encoder.head.logvar):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.appearance: AppearanceCode | None = None
        if config.appearance_dim:
            self.appearance = AppearanceCode(config.appearance_dim, config.in_channels, config.image_size)
        for name in ("linear_path", "appearance"):
            if (part := getattr(self, name)) is not None:
                share(self.encoder, name, part)
                share(self.decoder, name, part)
        self.posterior: AggregatePosterior | None = None
        self.from_faces = False  # whether its licence is that of EdgeFace's weights

    @torch.no_grad()
    def closed_form_rows(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, P): what identity part, appearance code and linear path are fitted on, in this order."""
        rows = [images.new_zeros(len(images), 0)]
        if self.encoder.identity is not None:
            rows.append(self.encoder.embedding(images).float())
        if self.appearance is not None:
            rows.append(self.appearance.measure(images))
            images = self.appearance.split(images)[0]
        if self.linear_path is not None:
            rows.append(self.linear_path.downsample(images))
        return torch.cat(rows, dim=1)

    @torch.no_grad()
    def fit_closed_form(self, rows: Tensor) -> None:
        """Start the identity part as PCA of the backbone's embeddings and the linear path as probabilistic PCA, and
        standardise the appearance code. rows: (N, P), training images through `closed_form_rows`."""
        if (identity := self.encoder.identity) is not None:
            size = identity.linear.in_features
            identity.fit(rows[:, :size])
            rows = rows[:, size:]
        if self.appearance is not None:
            codes, rows = rows.split([self.appearance.size, rows.shape[1] - self.appearance.size], dim=1)
            self.appearance.fit(codes)
        if self.linear_path is not None:
            logvar = self.linear_path.fit(rows)
            self.encoder.head.logvar.bias[: len(logvar)].copy_(logvar.clamp(-LOGVAR_LIMIT + 1, 0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> reconstruction (B, C, S, S), mu (B, D), logvar (B, D). The latent is mu plus noise while training."""
        mu, logvar = self.encoder(images)
        latent = self.reparameterize(mu, logvar) if self.training else mu
        return self.decode(latent), mu, logvar

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * (0.5 * logvar).exp()

    def encode(self, images: Tensor) -> Tensor:
        """mu (B, D). In evaluation mode an image's mu is the same bit for bit alone and in any batch."""
        return self.encode_posterior(images)[0]

    def identity(self, images: Tensor) -> Tensor:
        """(B, identity_dim) of length 1: the identity part of mu, whose cosine tells people apart.

        As exact as `encode`. Raises ValueError of a model that has none.
        """
        if not self.config.identity_dim:
            raise ValueError("this model has no identity part; `encode` gives its latents")
        return F.normalize(self.encode(images)[:, self.config.identity_part], dim=1)

    def embed(self, pictures: Pictures, *, batch_size: int = 64, misfits: Misfits = "refuse") -> Tensor:
        """(N, D) float32 on the CPU, without gradient, of ears in any form that Python code has them in: mu, or of a
        model with an identity part that alone, at length 1 (`identity`).

        pictures: one or several, as `earface.data.given` takes them: crops or photographs of one ear each, which are
        brought into the model's form; or a float tensor (B, C, S, S) in it. misfits: a picture without a usable ear
        is refused; with "nan" its row is NaN, and a warning counts such rows. Raises InputError.
        """
        from ear_teacher.given_ears import encode_given  # on first use: it needs OpenCV

        encode = self.identity if self.config.identity_dim else self.encode
        return encode_given(self, self.config, encode, pictures, batch_size, misfits)

    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar, each (B, D): of `encoder`, in evaluation mode on batches split and padded to one shape."""
        config = self.config
        wanted = (config.in_channels, config.image_size, config.image_size)
        if images.shape[1:] != wanted or not images.is_floating_point():
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"expected float images (B, {', '.join(map(str, wanted))}) in [-1, 1], not {found}")
        if self.training:
            mu, logvar = self.encoder(images)
            return mu, logvar
        mu, logvar = in_fixed_batches(self.encoder, images, INFERENCE_BATCH)
        return mu, logvar

    def decode(self, latent: Tensor) -> Tensor:
        """(B, D) -> (B, C, S, S) in [-1, 1]."""
        images: Tensor = self.decoder(latent)
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps, finest first: the input of a detector or a landmarker."""
        return self.encoder.features(images)

    def pooled_features(self, images: Tensor) -> Tensor:
        """The coarsest map averaged over positions, (B, C): the encoder's features before the latents."""
        return self.features(images)[-1].mean(dim=(2, 3))

    @torch.no_grad()
    def sample(self, num_samples: int, source: str = "prior", generator: torch.Generator | None = None) -> Tensor:
        """New ears (num_samples, C, S, S) from `prior` (N(0, I)) or from the fitted aggregate `posterior`."""
        device = next(self.parameters()).device
        if source == "prior":
            latent = torch.randn(num_samples, self.config.latent_dim, generator=generator)
        elif source == "posterior":
            if self.posterior is None:
                raise ValueError("no aggregate posterior: set model.posterior = AggregatePosterior.fit(moments)")
            latent = self.posterior.sample(num_samples, generator)
        else:
            raise ValueError(f"source {source!r}: choose 'prior' or 'posterior'")
        return self.decode(latent.to(device))

    @torch.no_grad()
    def interpolate(self, first: Tensor, second: Tensor, steps: int = 8) -> Tensor:
        """Decoded straight lines between two batches' latents: (B, C, S, S) twice -> (B, steps, C, S, S)."""
        start, end = self.encode(first), self.encode(second)
        positions = torch.linspace(0, 1, steps, device=start.device).view(1, -1, 1)
        latents = torch.lerp(start[:, None], end[:, None], positions)
        between: Tensor = self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return between

    # -- trained models ----------------------------------------------------------------------------------------------

    def load_extras(self, checkpoint: Mapping[str, Any]) -> None:
        """The aggregate posterior, if the checkpoint holds one, and whether the weights began with faces."""
        self.load_posterior(checkpoint.get("aggregate_posterior"))
        options = checkpoint.get("hyper_parameters", {}).get("options", {})
        self.from_faces = self.config.encoder in EDGEFACE_VARIANTS and options.get("encoder_weights") != "none"

    def load_posterior(self, stored: Mapping[str, Tensor] | None) -> None:
        """stored: `mean` and `factor`."""
        if stored:
            # with other strides, as Cholesky returns it, samples would differ in the last bit
            self.posterior = AggregatePosterior(stored["mean"].cpu(), stored["factor"].cpu().contiguous())

    def saved_provenance(self) -> dict[str, Any] | None:
        return {"licence": FROM_FACES} if self.from_faces else None

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        return super().generate_model_card(*args, licence=FROM_FACES, from_faces=self.from_faces, **kwargs)

    def saved_tensors(self) -> dict[str, Tensor]:
        posterior = {} if self.posterior is None else vars(self.posterior)
        return self.state_dict() | {f"{POSTERIOR_PREFIX}{name}": tensor for name, tensor in posterior.items()}

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        posterior = {name: tensors.pop(name) for name in list(tensors) if name.startswith(POSTERIOR_PREFIX)}
        super().load_folder(folder, tensors)
        self.from_faces = FORMAT.read_provenance(folder).get("licence") == FROM_FACES
        self.load_posterior({name.removeprefix(POSTERIOR_PREFIX): tensor for name, tensor in posterior.items()})


if not TYPE_CHECKING:  # a type checker would accept any name of this module

    def __getattr__(name: str) -> Any:
        if name == "EarDetector":  # offered here as `EarVAE` is, and imported on first use
            return import_module("ear_teacher.detector.model").EarDetector
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
