"""What the folder of a tuned recogniser says beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

KIND = "earface.EdgeFace"
LICENCE = "CC BY-NC-SA 4.0, as EdgeFace's own weights: not for commercial use"


@dataclass(frozen=True)
class EdgeFaceProvenance:
    """What must be known of a tuned recogniser beside its weights."""

    variant: str
    contract: str  # FaceContract.id: embeddings of another must not be compared with its own
    crop: str
    inputs: str  # what it was shown, such as dsr=.7,hr=.3
    vlr_size: str
    degradation: str
    trained_on: tuple[str, ...]  # digests of the identities
    licence: str = LICENCE
