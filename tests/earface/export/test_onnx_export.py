"""What every export's ONNX files have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.export.onnx_export import BATCHES, OnnxPart, write_parts

pytestmark = pytest.mark.runs


class Spectrum(nn.Module):
    """Eigenvalues, which ONNX has no operator for."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(images @ images.transpose(1, 2))


def test_a_network_with_an_operation_that_onnx_lacks_is_one_line(tmp_path: Path) -> None:
    part = OnnxPart("spectrum.onnx", Spectrum(), torch.rand(max(BATCHES), 4, 4), "images", ("values",))
    with pytest.raises(InputError, match=r"spectrum\.onnx: torch cannot express .*eigh.*; use safetensors") as caught:
        write_parts(tmp_path, [part], 1e-4, {})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
