"""A training step of every trainer makes the host wait for nothing and copies nothing; a validation batch copies once.

On fake CUDA tensors, so that a mistake shows without a GPU; tensors of two devices raise by themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.cuda.cases import CASES, THOROUGH, Case, Counted, Files, count
from tests.cuda.fake import PRECISIONS

pytestmark = pytest.mark.runs

# Every day, one network of each trainer in every precision, and all others in the one that GPUs train in.
DAILY = ("ear teacher, conv", "detector, conv, landmarks", "dsr, all terms", "edgeface, stage 2, arcface")
STEPS = [
    pytest.param((name, each), marks=() if each == "bfloat16" or name in DAILY else pytest.mark.slow)
    for name in CASES
    for each in (PRECISIONS if name in THOROUGH else ["bfloat16"])
]


@pytest.fixture(scope="module")
def built(files: Files) -> Callable[[str], Case]:
    return functools.lru_cache(1)(lambda name: CASES[name](files))


@pytest.fixture(scope="module", params=STEPS, ids=", ".join)
def counted(request: pytest.FixtureRequest, built: Callable[[str], Case]) -> tuple[torch.dtype, Counted]:
    name, own = request.param
    return PRECISIONS[own], count(built(name), own)


def test_a_training_step_neither_waits_nor_copies(counted: tuple[Any, Counted]) -> None:
    traffic = counted[1].training
    assert not traffic.events, f"\n{traffic.report()}"


def test_a_validation_batch_copies_once_at_most(counted: tuple[Any, Counted]) -> None:
    traffic = counted[1].validation
    assert len(traffic.events) == traffic.count("to host") <= 1, f"\n{traffic.report()}"


def test_the_networks_run_in_the_precision(counted: tuple[torch.dtype, Counted]) -> None:
    wanted, both = counted
    for traffic in (both.training, both.validation):
        assert wanted in traffic.products
        assert traffic.products <= {wanted, torch.float32, torch.float64}  # losses, and sums of moments
