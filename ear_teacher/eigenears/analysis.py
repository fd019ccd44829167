"""Eigenears of a model and a set of ears: metrics, pictures and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ear_teacher.eigenears.appearance import appearance, laterality_share, parts
from ear_teacher.eigenears.components import Components, picture_metric, principal_components, share_of_pictures
from ear_teacher.eigenears.config import EigenearOptions
from ear_teacher.eigenears.factors import SIDE, default_index, explained_by_group, read_factors, subject_share
from ear_teacher.eigenears.pose import FEWEST, pose_by_index, pose_by_landmarks
from ear_teacher.eigenears.report import EigenearResults, write_components, write_scores
from ear_teacher.eigenears.traversals import moved_landmarks, save_pictures
from ear_teacher.loading import Ears
from ear_teacher.metrics.baselines import PixelPCA
from ear_teacher.metrics.reconstruction import encode_all, encode_posteriors
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.core.progress import progress
from earface.data.ear_contract import STRETCH, EarAligner

FEW_EARS = 100  # with fewer, chance explains several percent of a component
MIN_SUBJECTS = 3  # for cross-validation inside cross-validation


def find_factors(options: EigenearOptions, ears: Ears) -> tuple[str | None, Mapping[str, NDArray[np.float64]] | None]:
    """The factors of synthetic ears and their file, if there is a usable one.

    Raises InputError if the file given by `factors` cannot be used; one that was only found is ignored.
    """
    path = options.factors or default_index(ears.files[0].source, ears.names)
    if path is None:
        return None, None
    if len(set(ears.subjects or ears.names)) < MIN_SUBJECTS:
        if not options.factors:
            return None, None
        raise InputError(f"{ears.source}: fewer than {MIN_SUBJECTS} subjects cannot be cross-validated on {path}")
    return path, read_factors(path, ears.names)


def notes(ears: Ears, options: EigenearOptions, found: Components) -> list[str]:
    """Notes on the metrics, one sentence each."""
    lines = [f"{ears.source}: {ears.skipped} unreadable pictures left out"] if ears.skipped else []
    if found.scores.shape[1] < options.components:
        lines.append(
            f"{found.scores.shape[1]} components, not {options.components}: "
            f"no more carry variance in these {len(ears.names)} ears"
        )
    if len(ears.names) < FEW_EARS:
        chance = f"{1 / (len(ears.names) - 1):.0%} of a component by chance"
        lines.append(f"only {len(ears.names)} ears: brightness explains {chance}, colour and gradient twice that each")
    return lines


def create_eigenears(
    model: EarVAE,
    ears: Ears,
    factors: Mapping[str, NDArray[np.float64]] | None,
    aligner: EarAligner,
    out: Path,
    options: EigenearOptions,
    device: str,
) -> tuple[EigenearResults, list[str]]:
    """Compute the metrics, and write everything but eigenears.json to `out`. aligner: has the landmarker of names."""
    batch = options.batch_size
    look = appearance(ears.images)
    mu, logvar = encode_posteriors(model, ears.images, batch, device)
    for measured in (mu, logvar):
        measured[:, model.config.shape_dim :] = 0  # one light for all: eigenears are of shape
    metric = picture_metric(model, mu.double().numpy(), batch, device) if options.metric == "picture" else None
    components = principal_components(mu, options.components, look.brightness[:, 0], metric)
    count = components.scores.shape[1]
    with progress("fitting pixel PCA"):
        pixel_pca = PixelPCA.fit(ears.images, count, device=device)
    pixel_codes = encode_all(pixel_pca.encode, ears.images, batch, device).double().numpy()
    owners = np.unique(np.asarray(ears.subjects or ears.names), return_inverse=True)[1]
    if factors and not ears.sides:
        ears = replace(ears, sides=["r" if side > 0 else "l" for side in factors[SIDE]])
    stretched = model.config.contract in ("", STRETCH)
    pose, posed = (None, 0) if stretched else pose_by_landmarks(components.scores, ears, aligner)
    named, landmark_noise = moved_landmarks(model, mu.double().numpy(), ears, components, aligner, options, device)
    found = EigenearResults(
        components=components,
        pictures=share_of_pictures(components.scores, ears.images),
        pixel_pca=share_of_pictures(pixel_codes, ears.images),
        plain=principal_components(mu, count, look.brightness[:, 0]).variance,
        parts=parts(components.scores, look),
        movements=named,
        landmark_noise=landmark_noise,
        pose=pose,
        pose_by_index=None if factors else pose_by_index(components.scores, ears),
        laterality=laterality_share(components.scores, ears.sides) if ears.sides else None,
        subject=subject_share(components.scores, owners) if ears.subjects else None,
        factors=explained_by_group(components.scores, factors, owners) if factors else None,
    )
    save_pictures(out, model, ears, mu, logvar, found, options, device)
    write_components(out / "components.csv", found)
    write_scores(out / "scores.csv", ears.names, ears.subjects, components.scores)
    lines = notes(ears, options, components)
    if stretched:
        lines.append("pose is not measured by landmarks: stretched pictures have lost the ears' proportions")
    elif pose is None:
        lines.append(f"pose is not measured by landmarks: they form an ear in {posed} pictures, fewer than {FEWEST}")
    return found, lines
