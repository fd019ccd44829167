"""Ears in a model's form, to calibrate an int8 export of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ear_teacher.ear_reader import EarForm, EarReader, sources_of
from ear_teacher.encoding import encode_sources
from earface.data.images import Pixels
from earface.data.pixels import to_uint8
from earface.export.quantization import Calibration, calibration_of


def calibration_ears(form: EarForm, source: str, landmarker: str | None = None) -> Calibration:
    """uint8 ears of a folder (its first folders are the people) or a teacher file, cut to their boxes if it has some.

    landmarker: of canonical ears; None: earface's own. Raises InputError, also for too few ears.
    """
    reader = EarReader(form, landmarker)
    found = sources_of(source, data_root=None, crop_to_bbox=False, folder_subjects=True)
    sources = [replace(each, crop=each.data.bboxes is not None) for each in found]

    def read(rows: list[int]) -> tuple[Sequence[int], Pixels]:
        def flat(ears: Tensor) -> tuple[Tensor]:
            return (ears.flatten(1),)

        ears = encode_sources(flat, [sources[row] for row in rows], reader, batch_size=64, device="cpu")
        shape = (-1, form.in_channels, form.image_size, form.image_size)
        return ears.kept, to_uint8(torch.from_numpy(ears.values[0]).view(shape)).numpy()

    return calibration_of(source, [each.subject for each in sources], read)
