"""Metrics of super-resolved faces: image quality against HR, and whether recognisers still identify them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.core.errors import InputError
from earface.data.face_dataset import FaceBatch
from earface.data.pixels import to_unit
from earface.metrics.identification import one_gallery_picture, rank_one_hits
from earface.metrics.image_quality import luma, psnr, ssim
from earface.nn.frozen import FrozenRecognizer

HR = "HR"  # the method that returns the HR face itself
QUALITIES = ("psnr", "psnr_y", "ssim")
CONVENTION = (
    "PSNR and SSIM per face, then the mean; [0, 1] RGB of all 128x128 pixels; SSIM Gaussian 11x11, sigma 1.5; psnr_y: "
    "BT.601 luma without the outermost VLR pixel; cosine: of a face and its HR original; rank1: the first HR face of "
    "each identity is the gallery, its other faces are the probes; rank1_all: the gallery also has the identities with "
    "a single face"
)

Upscale = Callable[[Tensor], Tensor]  # (B, 3, h, w) -> (B, 3, 128, 128), in [-1, 1]


@dataclass(frozen=True)
class MeasuredFaces:
    """N faces of one method."""

    embeddings: dict[str, Tensor]  # recogniser -> (N, D) of length 1
    quality: dict[str, NDArray[np.float64]]  # of QUALITIES -> (N,); dB, dB, and at most 1; empty for HR

    def cosines(self, truth: MeasuredFaces) -> dict[str, NDArray[np.float64]]:
        """recogniser -> (N,) of each face and its HR original."""
        return {
            name: (own * truth.embeddings[name]).sum(dim=1).double().numpy() for name, own in self.embeddings.items()
        }


@torch.no_grad()
def measure(
    methods: Mapping[str, Upscale],
    batches: Iterable[FaceBatch],
    recognizers: Mapping[str, FrozenRecognizer],
    border: int,
) -> dict[str, MeasuredFaces]:
    """Each method, and HR, on the same faces.

    border: pixels that the PSNR of Y leaves out on each side. Raises InputError for a method that gives NaN.
    """
    parts: dict[str, dict[str, list[Tensor]]] = {name: defaultdict(list) for name in (HR, *methods)}
    for batch in batches:
        hr = batch["hr"]
        results = {HR: hr} | {name: upscale(batch["vlr"]).float().clamp(-1, 1) for name, upscale in methods.items()}
        for name, faces in results.items():
            if not faces.isfinite().all():
                raise InputError(f"{name}: gives values that are not finite; its weights are broken")
            for recognizer, network in recognizers.items():
                parts[name][recognizer].append(network(faces)[1].cpu())
            if name != HR:
                found, wanted = to_unit(faces), to_unit(hr)
                values = (
                    psnr(found, wanted),
                    psnr(luma(found), luma(wanted), crop_border=border),
                    ssim(found, wanted),
                )
                for quality, value in zip(QUALITIES, values, strict=True):
                    parts[name][quality].append(value.cpu())
    return {
        name: MeasuredFaces(
            {recognizer: torch.cat(own[recognizer]) for recognizer in recognizers},
            {quality: torch.cat(own[quality]).double().numpy() for quality in QUALITIES if name != HR},
        )
        for name, own in parts.items()
    }


def mean_metrics(faces: MeasuredFaces, truth: MeasuredFaces, identities: Sequence[str]) -> dict[str, float]:
    """Means by name, with the recogniser in brackets. Rank-1 is left out if the gallery has a single identity."""
    found = {name: float(values.mean()) for name, values in faces.quality.items()}
    for name, cosines in faces.cosines(truth).items():
        found[f"cosine[{name}]"] = float(cosines.mean())
        for label, everybody in (("rank1", False), ("rank1_all", True)):
            hits = identified(faces.embeddings[name], truth.embeddings[name], identities, everybody)
            if len(hits):
                found[f"{label}[{name}]"] = float(hits.double().mean())
    return found


def identified(faces: Tensor, truth: Tensor, identities: Sequence[str], everybody: bool = False) -> Tensor:
    """Whether each probe is identified, (P,) bool; `one_gallery_picture` chooses the probes among the faces (N, D).

    everybody: the gallery also has the identities with a single picture. Empty if it has fewer than two identities.
    """
    gallery, probes = one_gallery_picture(identities)
    if everybody:
        gallery = sorted(set(range(len(identities))) - set(probes))
    if len(gallery) < 2 or not probes:
        return torch.empty(0, dtype=torch.bool)
    owners, wanted = [identities[row] for row in gallery], [identities[row] for row in probes]
    return rank_one_hits(faces[probes], wanted, truth[gallery], owners)
