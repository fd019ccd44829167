from __future__ import annotations

import pytest
import torch

from earface.nn.precision import autocast, float32_island


def test_float32_island_keeps_double_and_integers_and_restores_autocast() -> None:
    seen: dict[str, object] = {}

    @float32_island
    def look(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen.update(values=values.dtype, ids=ids.dtype, autocast=torch.is_autocast_enabled("cpu"))
        return values

    with torch.autocast("cpu", dtype=torch.bfloat16):
        look(torch.zeros(1, dtype=torch.float64), ids=torch.zeros(1, dtype=torch.int64))
        assert torch.is_autocast_enabled("cpu")
    assert seen == {"values": torch.float64, "ids": torch.int64, "autocast": False}


@pytest.mark.parametrize(
    ("precision", "wanted"), [("32", torch.float32), ("16", torch.bfloat16), ("bf16", torch.bfloat16)]
)
def test_autocast_gives_products_the_type_asked_for_and_bfloat16_for_16_on_a_cpu(
    precision: str, wanted: torch.dtype
) -> None:
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted
