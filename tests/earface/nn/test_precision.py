from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from earface.nn.precision import autocast, automatic_precision, emulation, float32_island, has_native_bfloat16


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


DECISION = """
from earface.nn.precision import automatic_precision, emulation
print(automatic_precision("cpu")[0], "|", emulation("cpu", "bf16-mixed"))
"""


def decided(**environment: str) -> list[str]:
    command = [sys.executable, "-c", DECISION]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return [part.strip() for part in done.stdout.split("|")]


@pytest.mark.runs
def test_a_processor_without_native_bfloat16_trains_in_float32_and_half_precision_gets_a_note() -> None:
    precision, note = decided(ONEDNN_MAX_CPU_ISA="AVX2")
    assert precision == "32"
    assert "emulates bfloat16" in note
    assert "times slower" in note


def test_what_is_decided_and_what_is_noted_agree() -> None:
    precision, note = automatic_precision("cpu")[0], emulation("cpu", "bf16-mixed")
    assert (precision == "bf16-mixed") == (note == "")


def test_a_missing_private_name_counts_as_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_native_bfloat16()
    assert automatic_precision("cpu")[0] == "32"


@pytest.mark.parametrize(
    ("capability", "wanted"), [((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_gpus_train_in_bfloat16_from_compute_capability_8_on(
    capability: tuple[int, int], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    precision, reason = automatic_precision("cuda")
    assert precision == wanted
    assert f"{capability[0]}.{capability[1]}" in reason


def test_apple_gpus_train_in_float32() -> None:
    assert automatic_precision("mps")[0] == "32"


@pytest.mark.parametrize("precision", ["32", "32-true"])
def test_full_precision_is_never_emulated(precision: str) -> None:
    assert emulation("cpu", precision) == ""
