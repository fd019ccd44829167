"""How a VLR face becomes a 128 px face before recognition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from earface.data.face_sizes import NONE, VLRRange, VLRSize

UPSAMPLER_NAMES = {"bicubic": "bicubic", "dsr": "DSR"}
ENLARGING = ("bicubic", "dsr")


@dataclass(frozen=True)
class Upsampler:
    """How a VLR face (B, 3, h, w) becomes (B, 3, 128, 128), in [-1, 1].

    origin: what decides that beside the code, such as the digest of a super-resolver's weights.
    trained_on: digests of the people it knows. vlr: the size of the faces that it takes, or their range; None: any.
    collated: what each of several VLR faces, (h, w, 3) uint8, becomes first so that they make a batch, a float tensor
    (3, S, S); None: it takes one size.
    source: the path of its weights, and degradation: how the faces that it was trained on were downsampled.
    """

    name: str
    enlarge: Callable[[Tensor], Tensor]
    origin: str = ""
    trained_on: frozenset[str] = frozenset()
    vlr: VLRSize | VLRRange | None = None
    collated: Callable[[Tensor], Tensor] | None = None
    source: str = ""
    degradation: str = ""

    @property
    def padded(self) -> bool:
        """Whether it takes faces as `earface.data.padded_faces` makes a batch of them."""
        return isinstance(self.vlr, VLRRange)


NO_UPSAMPLER = Upsampler(NONE, lambda faces: faces)
