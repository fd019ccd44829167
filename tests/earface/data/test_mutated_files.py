"""Readers take a mutated file or refuse it by an InputError of one line: `benchmarks.fuzz` does so for hours."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import attack_once, mutated, mutated_json, samples
from earface.core.errors import InputError
from earface.data.npy import read_teacher_npy

READERS = (
    *("COCO", "CSV", "PTS", "points", "YOLO", "JSON", "NPY", "gallery", "embeddings", "ONNX"),
    *("checkpoint", "weights", "picture", "header"),
)
EXAMPLES = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Path], Callable[[Path], object]]]:
    return samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_read_or_refused_in_one_line(
    reader: str, made: dict[str, tuple[list[Path], Callable[[Path], object]]]
) -> None:
    files, read = made[reader]
    originals = [path.read_bytes() for path in files]

    @settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck])
    @given(st.integers(0, len(files) - 1), st.integers(0, 2**32 - 1))
    def check(place: int, seed: int) -> None:
        draw, path = random.Random(seed), files[place]
        change = mutated_json if path.suffix == ".json" and seed % 4 else mutated
        assert not attack_once(read, path, change(originals[place], draw), originals[place])

    for path in files:
        read(path)
    check()


@pytest.mark.parametrize("shape", [(10**12, 0), (10**12, 0, 2)])
def test_rows_that_hold_nothing_are_refused_at_once(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """128 bytes would become so many objects."""
    with (tmp_path / "t.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with pytest.raises(InputError, match="holds nothing"):
        read_teacher_npy(tmp_path / "t.npy")


def test_rows_that_hold_nothing_within_a_pickle_are_refused_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array({"image_paths": np.empty((10**12, 0), np.uint8)}, dtype=object))
    with pytest.raises(InputError, match="holds nothing"):
        read_teacher_npy(tmp_path / "t.npy")
