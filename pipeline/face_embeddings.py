"""Embeddings of the faces of an evaluation, and the quality of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from earface.data.face_rows import FaceRow
from earface.data.face_sizes import NONE
from earface.data.picture_rows import PictureRow
from earface.metrics.image_quality import sharpness
from earface.nn.edgeface import EMBEDDING_DIM
from facial_rec.recognizer import FaceRecognizer
from pipeline.configurations import Condition, Configuration, FaceLoader
from pipeline.quality import COMPUTED, Quality


class EmbeddingCache:
    """Embeddings of the faces of an evaluation, each computed once: those of HR faces serve every condition."""

    def __init__(
        self, faces: FaceLoader, progress: Callable[[int], None] = lambda done: None, *, mirrored: bool = True
    ) -> None:
        """progress: called with the number of embeddings computed since the last call. mirrored: whether faces are
        compared with their mirror images, which takes twice as long.
        """
        self.mirrored = mirrored
        self.faces, self.progress = faces, progress
        self._hr: dict[tuple[tuple[str, str], str], Tensor] = {}
        self._quality: dict[tuple[str, ...], Tensor] = {}  # COMPUTED, by recogniser, how it was enlarged, and path

    @torch.no_grad()
    def hr(self, recognizer: FaceRecognizer, rows: Sequence[FaceRow]) -> Tensor:
        """(N, 512) of HR faces, on the CPU."""
        wanted = [row for row in rows if (recognizer.key, str(row.path)) not in self._hr]
        wanted = list({row.path: row for row in wanted}.values())
        at = 0
        for batch in self.faces.batches(wanted, None) if wanted else ():
            found = self._measured(recognizer, hr := self.faces.hr(batch), hr, wanted[at : at + len(hr)], "")
            for row, embedding in zip(wanted[at : at + len(found)], found, strict=True):
                self._hr[recognizer.key, str(row.path)] = embedding
            at += len(found)
            self.progress(len(found))
        empty = torch.empty(0, EMBEDDING_DIM)
        return torch.stack([self._hr[recognizer.key, str(row.path)] for row in rows]) if rows else empty

    def enrolled(self, configuration: Configuration, rows: Sequence[FaceRow]) -> Tensor:
        """(N, 512) of HR faces by the configuration's recogniser, on the CPU."""
        return self.hr(configuration.recognizer, rows)

    @torch.no_grad()
    def of_configurations(
        self, configurations: Sequence[Configuration], rows: Sequence[FaceRow], condition: Condition
    ) -> Mapping[str, Tensor]:
        """Configuration -> (N, 512) of the probes, on the CPU. Each upsampler runs once for all recognisers."""
        low = [each for each in configurations if each.upsampler.name != NONE]
        upsamplers = {each.upsampler.name: each.upsampler for each in low}
        parts = {each.name: [torch.empty(0, EMBEDDING_DIM)] for each in low}
        at = 0
        for batch in self.faces.batches(rows, condition) if rows else ():
            vlr = self.faces.vlr(batch, condition)
            part = rows[at : at + len(vlr)]
            at += len(vlr)
            enlarged = {name: upsampler.enlarge(vlr).float().clamp(-1, 1) for name, upsampler in upsamplers.items()}
            for each in low:
                how = _how(each, condition)
                parts[each.name].append(self._measured(each.recognizer, enlarged[each.upsampler.name], vlr, part, how))
                self.progress(len(vlr))
        return {
            each.name: torch.cat(parts[each.name]) if each.name in parts else self.hr(each.recognizer, rows)
            for each in configurations
        }

    def quality(self, configuration: Configuration, rows: Sequence[FaceRow], condition: Condition | None) -> Quality:
        """COMPUTED of faces that were embedded: probes under a condition, or with None enrolled ones."""
        how = _how(configuration, condition)
        found = [self._quality[*configuration.recognizer.key, how, str(row.path)] for row in rows]
        own = torch.stack(found) if found else torch.empty(0, len(COMPUTED))
        return dict(zip(COMPUTED, own.numpy().T, strict=True))

    def _measured(
        self, recognizer: FaceRecognizer, faces: Tensor, seen: Tensor, rows: Sequence[PictureRow], how: str
    ) -> Tensor:
        """The embeddings of faces (B, 3, S, S), on the CPU; keeps their quality. seen: what they were enlarged from."""
        embeddings, *measures = recognizer.measured(faces, mirrored=self.mirrored)
        together = torch.stack([*measures, sharpness(seen).to(embeddings)], dim=1).cpu()
        for row, own in zip(rows, together, strict=True):
            self._quality[*recognizer.key, how, str(row.path)] = own
        return embeddings.cpu()


def _how(configuration: Configuration, condition: Condition | None) -> str:
    """How a face came to the recogniser; empty for HR."""
    return "" if condition is None or configuration.upsampler.name == NONE else f"{configuration.name} {condition}"
