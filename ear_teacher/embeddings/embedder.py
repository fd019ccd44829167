"""What makes the embeddings of a table, a trained ear VAE or ear recogniser, and all in which the two differ there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ear_teacher.ear_reader import EarForm
from ear_teacher.encoding import Encode
from ear_teacher.loading import TrainedEarVAE, load_trained
from ear_teacher.model import EarVAE
from ear_teacher.recognition.loading import TrainedEarRecognizer, is_recognizer, load_recognizer
from ear_teacher.recognition.model import EarRecognizer

TITLES = {model.format.kind: model.format.title for model in (EarVAE, EarRecognizer)}
LATENTS = "cosine of the latents, centred on the mean of the run's validation ears"
IDENTITIES = "cosine of the embeddings"


@dataclass(frozen=True)
class EarEmbedder:
    """Trained weights in evaluation mode on a device, and how their embeddings are compared."""

    kind: str  # of TITLES
    source: Path  # the checkpoint, or the folder
    weights: str  # averaged or raw; of a folder: exported
    digest: str  # embeddings of one digest may be compared
    form: EarForm  # the ears that it takes
    shape: dict[str, Any]  # what a table's metadata says of the model alone
    encode: Encode  # ears -> embeddings (B, D), and of a VAE their log variances
    has_logvar: bool
    center: NDArray[np.float32]  # (D,) from where the angle between two embeddings is measured
    measure: str  # how two embeddings are compared, in words
    crop_to_bbox: bool | None  # whether it was trained on pictures cropped to their boxes; None: not known

    @property
    def title(self) -> str:
        return TITLES[self.kind]


def load_embedder(path: str, device: str, weights: str) -> EarEmbedder:
    """path: a checkpoint, a pattern (the newest match), a run's folder (its best), or an exported folder.

    Raises InputError for anything but an ear VAE or an ear recogniser.
    """
    if is_recognizer(path):
        return recognizer_embedder(load_recognizer(path, device, weights), weights)
    return vae_embedder(load_trained(path, device, weights))


def vae_embedder(trained: TrainedEarVAE) -> EarEmbedder:
    """Latents, centred on the mean of the aggregate posterior, which is the same for every table, or of the prior."""
    model, config = trained.model, trained.model.config
    center = np.zeros(config.latent_dim, np.float32) if model.posterior is None else model.posterior.mean.numpy()
    return EarEmbedder(
        kind=model.format.kind,
        source=trained.source,
        weights=trained.weights,
        digest=trained.digest,
        form=config,
        shape={"latent_dim": config.latent_dim},
        encode=model.encode_posterior,
        has_logvar=True,
        center=center,
        measure=LATENTS,
        crop_to_bbox=trained.run["crop_to_bbox"] if trained.run else None,
    )


def recognizer_embedder(trained: TrainedEarRecognizer, weights: str) -> EarEmbedder:
    """Embeddings of length 1, compared by their cosine as in training. weights: averaged or raw, of a checkpoint."""
    config = trained.model.config
    return EarEmbedder(
        kind=trained.model.format.kind,
        source=trained.source,
        weights=weights if trained.run else "exported",
        digest=trained.digest,
        form=config,
        shape={"backbone": config.backbone, "embedding_dim": config.embedding_dim},
        encode=lambda ears: (trained(ears),),
        has_logvar=False,
        center=np.zeros(config.embedding_dim, np.float32),
        measure=IDENTITIES,
        crop_to_bbox=False,
    )
