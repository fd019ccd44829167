"""What an int8 file loses against the float one, as `max_loss` counts it: 0 for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.export.quantization import Judge, Loss, Outputs
from earface.metrics.identification import identify, unit_rows


def embedding_loss(people: Sequence[str] = ()) -> Judge:
    """1 - the mean cosine of a picture's two vectors. people: whose each picture is, for rank-1 (leave one out)."""

    def judge(floats: Outputs, int8: Outputs, held_out: NDArray[np.bool_]) -> Loss:
        ours, theirs = unit_rows(floats[0]), unit_rows(int8[0])
        cosines = (ours * theirs).sum(axis=1)
        metrics = {"mean cosine": float(cosines.mean()), "least cosine": float(cosines.min())}
        whose = [person for person, chosen in zip(people, held_out, strict=True) if chosen] if people else []
        if whose and all(whose):
            for name, units in (("float", ours), ("int8", theirs)):
                rank1 = identify(units, whose).rank1
                metrics |= {} if rank1 is None else {f"rank-1 of {name}": rank1}
        return Loss(1 - metrics["mean cosine"], metrics)

    return judge


def picture_loss(originals: NDArray[Any] | None = None) -> Judge:
    """Root mean square of what int8 changes in pixels of [0, 1]; .02 is a PSNR of 34 dB.

    originals: uint8 (N, H, W, C) that a decoder's pictures reconstruct: their PSNR is reported, too.
    """

    def judge(floats: Outputs, int8: Outputs, held_out: NDArray[np.bool_]) -> Loss:
        ours, theirs = ((each[0].clip(-1, 1) + 1) / 2 for each in (floats, int8))
        metrics = {"PSNR of int8 to float": psnr(theirs, ours)}
        if originals is not None:
            wanted = originals[held_out].transpose(0, 3, 1, 2) / np.float32(255)
            metrics |= {"PSNR of float": psnr(ours, wanted), "PSNR of int8": psnr(theirs, wanted)}
        return Loss(float(np.sqrt(np.square(ours - theirs, dtype=np.float64).mean())), metrics)

    return judge


def psnr(pictures: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """dB, of pictures (N, C, H, W) in [0, 1], the mean over them; 100 at most, where they are equal."""
    errors = np.square(pictures - wanted, dtype=np.float64).mean(axis=(1, 2, 3))
    return float(-10 * np.log10(errors.clip(1e-10)).mean())
