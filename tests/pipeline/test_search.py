"""Search against loops over a whole matrix with many equal scores, samples of comparisons, and what cannot be used."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections import Counter
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from earface.core.errors import InputError
from pipeline.search import (
    BLOCK,
    CHUNK_SCORES,
    MAX_COMPARISONS,
    NOBODY,
    Searches,
    score_chunks,
    search,
    top_candidates,
    top_candidates_faiss,
)
from tests.row_dependent import RowDependentKernels

CHUNKS = [1, 300, CHUNK_SCORES]
CONFIGURATIONS, COLUMNS = BLOCK["cpu"]


def directions(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)))


def whole(count: int, seed: int) -> Tensor:
    """Rows of -1, 0 and 1: their products are exact, and often equal."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, (count, 4)).astype(np.float32))


def some_mates(probes: int, templates: int, seed: int) -> np.ndarray:
    """A quarter of the probes is of nobody in the gallery."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(probes) < 0.25, NOBODY, rng.integers(0, templates, probes))


def same(one: Searches, other: Searches) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(astuple(one), astuple(other), strict=True))


# The best candidates


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("count", [1, 5, 37, 99])
@pytest.mark.parametrize("seed", range(2))
def test_candidates_are_those_of_a_sorted_matrix_the_lower_row_first(seed: int, count: int, chunk: int) -> None:
    probes, templates = whole(53, seed), whole(37, seed + 100)
    scores = probes.numpy() @ templates.numpy().T
    rows = np.array([sorted(range(37), key=lambda row: (-one[row], row))[:count] for one in scores])
    best, found = top_candidates(probes, templates, count, scores=chunk)
    assert np.array_equal(found.numpy(), rows)
    assert np.array_equal(best.numpy(), np.take_along_axis(scores, rows, axis=1))


def test_candidates_of_any_magnitude_and_sign_are_in_order_and_both_zeros_are_equal() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], 500) * 10.0 ** rng.uniform(-30, 30, 500)
    values[::5] = rng.choice([0.0, -0.0], 100)
    templates = torch.from_numpy(values.astype(np.float32))[:, None]
    assert np.signbit(templates[::5].numpy()).any()
    best, rows = top_candidates(torch.ones(1, 1), templates, 500)
    expected = np.argsort(-templates[:, 0].numpy(), kind="stable")
    assert np.array_equal(rows[0].numpy(), expected)
    assert np.array_equal(best[0].numpy(), templates[expected, 0].numpy())


@pytest.mark.parametrize(("probes", "templates", "shape"), [(0, 3, (0, 2)), (3, 0, (3, 0)), (3, 1, (3, 1))])
def test_candidates_of_few_are_as_many_as_there_are(probes: int, templates: int, shape: tuple[int, int]) -> None:
    best, rows = top_candidates(torch.ones(probes, 4), torch.ones(templates, 4), 2)
    assert best.shape == rows.shape == shape
    assert (best.dtype, rows.dtype) == (torch.float32, torch.int64)


def test_faiss_gives_the_same_scores_and_rows_that_have_them() -> None:
    pytest.importorskip("faiss")
    probes, templates = directions(20, 16, 0), directions(50, 16, 1).repeat(2, 1)
    best, _ = top_candidates(probes, templates, 7)
    scores, rows = top_candidates_faiss(probes, templates, 7)
    assert torch.allclose(scores, best, atol=1e-6)
    assert torch.allclose((probes @ templates.T).gather(1, rows), scores, atol=1e-6)
    assert top_candidates_faiss(probes, templates[:3], 7)[0].shape == (20, 3)


def test_faiss_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\A`search` faiss: .*faiss-cpu.*`search` exact\Z"):
        top_candidates_faiss(torch.ones(1, 4), torch.ones(1, 4), 1)


# Searches


def in_loops(probes: Tensor, mates: np.ndarray, templates: Tensor) -> Searches:
    """Each probe and template in turn."""
    rank, mated, best, best_row, impostor, impostor_of = [], [], [], [], [], []
    for number, (probe, own) in enumerate(zip(probes.tolist(), mates.tolist(), strict=True)):
        scores = [sum(a * b for a, b in zip(probe, template, strict=True)) for template in templates.tolist()]
        others = {row: score for row, score in enumerate(scores) if row != own}
        mated.append(np.nan if own == NOBODY else scores[own])
        rank.append(0 if own == NOBODY else 1 + sum(score >= scores[own] for score in others.values()))
        best_row.append(max(others, key=lambda row: (others[row], -row), default=NOBODY))
        best.append(others.get(best_row[-1], -np.inf))
        impostor += others.values()
        impostor_of += [number] * len(others)
    estimates = [np.array(mated, np.float32), np.array(best, np.float32), np.array(best_row)]
    return Searches(np.array(rank), *estimates, np.array(impostor, np.float32), np.array(impostor_of, np.int64), False)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("templates", [1, 2, 37])
@pytest.mark.parametrize("seed", range(2))
def test_a_search_is_that_of_loops_over_probes_and_templates(seed: int, templates: int, chunk: int) -> None:
    """Most scores are equal to others: others rank before the mate, the first of them is named."""
    probes, gallery, mates = whole(53, seed), whole(templates, seed + 100), some_mates(53, templates, seed)
    assert same(search(probes, mates, gallery, scores=chunk), in_loops(probes, mates, gallery))


@pytest.mark.parametrize("limit", [MAX_COMPARISONS, 500])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_search_is_the_same_bit_for_bit_in_any_chunk(chunk: int, limit: int) -> None:
    probes, templates, mates = directions(101, 512, 0), directions(213, 512, 1), some_mates(101, 213, 0)
    found = search(probes, mates, templates, max_comparisons=limit, scores=chunk)
    assert same(found, search(probes, mates, templates, max_comparisons=limit, scores=213 * 64))
    assert found.sampled == (limit == 500)


@pytest.mark.parametrize("alone", [0, 50, 100])
def test_a_probe_has_the_same_scores_alone(alone: int) -> None:
    """But for rounding: kernels may treat the last rows of a block otherwise than the first."""
    probes, templates = directions(101, 512, 0), directions(213, 512, 1)
    together = torch.cat([scores for _, scores in score_chunks(probes, templates)])
    ((start, scores),) = score_chunks(probes[alone : alone + 1], templates)
    assert start == 0
    assert (scores - together[alone : alone + 1]).abs().max() < 1e-6


def test_a_score_does_not_depend_on_a_kernel_that_rounds_by_its_number_of_rows() -> None:
    probes, templates = directions(101, 512, 0), directions(213, 512, 1)
    mates = some_mates(101, 213, 0)
    with RowDependentKernels():
        assert not torch.equal((probes[:1] @ templates.T), (probes @ templates.T)[:1])  # the stand-in rounds by rows
        together = torch.cat([scores for _, scores in score_chunks(probes, templates)])
        for count in (1, 7, 32, 33, 100):
            apart = torch.cat([scores for _, scores in score_chunks(probes[:count], templates, 1)])
            assert torch.equal(apart, together[:count])
        assert same(search(probes, mates, templates, scores=1), search(probes, mates, templates))


@pytest.mark.parametrize("count", [1, CONFIGURATIONS - 1, CONFIGURATIONS, CONFIGURATIONS + 1])
@pytest.mark.parametrize("templates", [1, COLUMNS, COLUMNS + 1])
def test_products_in_blocks_are_the_whole_product(count: int, templates: int) -> None:
    probes, gallery = whole(count, 0), whole(templates, 1)
    ((start, scores),) = score_chunks(probes, gallery)
    assert start == 0
    assert torch.equal(scores, probes @ gallery.T)  # whole numbers: exact in any order


def test_layout_in_memory_and_the_kind_of_whole_number_do_not_matter() -> None:
    probes, templates, mates = whole(20, 0), whole(9, 1), some_mates(20, 9, 2)
    apart = [rows.repeat_interleave(2, dim=1)[:, ::2] for rows in (probes, templates)]
    assert not apart[0].is_contiguous()
    backwards = np.array(mates[::-1], np.int32)[::-1]
    assert same(search(apart[0], backwards, apart[1]), search(probes, mates, templates))


def test_a_gallery_of_the_mate_alone_gives_nobody_else() -> None:
    found = search(torch.ones(2, 4), np.array([0, 0]), torch.ones(1, 4))
    assert (found.rank.tolist(), found.mated.tolist()) == ([1, 1], [4.0, 4.0])
    assert (found.best.tolist(), found.best_row.tolist()) == ([-np.inf] * 2, [NOBODY] * 2)
    assert len(found.impostor) == len(found.impostor_of) == 0


def test_no_probes_are_no_searches() -> None:
    found = search(torch.empty(0, 4), np.empty(0, np.int64), torch.ones(3, 4))
    arrays = [found.rank, found.mated, found.best, found.best_row, found.impostor, found.impostor_of]
    assert [len(array) for array in arrays] == [0] * 6
    assert [array.dtype.kind for array in arrays] == list("iffifi")
    assert not found.sampled


@pytest.mark.parametrize("mates", [[3], [-2], [0, 0], [[0]], []])
def test_rows_that_there_are_not_are_refused(mates: list[Any]) -> None:
    with pytest.raises(ValueError, match="3 templates, or NOBODY, for each of 1"):
        search(torch.ones(1, 4), np.array(mates, np.int64), torch.ones(3, 4))


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(ValueError, match="0 templates"):
        search(torch.ones(1, 4), np.array([NOBODY]), torch.empty(0, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("broken", [0, 1])
def test_embeddings_that_are_no_numbers_are_refused(broken: int, value: float) -> None:
    """NaN is no lower than the others' scores and none of theirs is above it: it would be at rank 1."""
    rows = [torch.ones(2, 4), torch.ones(3, 4)]
    rows[broken][1, 2] = value
    with pytest.raises(InputError, match="not finite"):
        search(rows[0], np.array([0, 1]), rows[1])
    with pytest.raises(InputError, match="not finite"):
        top_candidates(*rows, 1)


# Samples of comparisons


def of_whom(probes: int, mates: np.ndarray, size: int, **options: Any) -> list[list[int]]:
    """The templates of each probe's sample. The only number of a template is its row, so a score shows whose it is."""
    gallery = torch.arange(size, dtype=torch.float32)[:, None]
    found = search(torch.ones(probes, 1), mates, gallery, **options)
    assert found.sampled
    return [found.impostor[found.impostor_of == probe].astype(int).tolist() for probe in range(probes)]


@pytest.mark.parametrize(("limit", "each"), [(1, 1), (60, 1), (150, 2), (60 * 30, 30), (60 * 50 - 1, 49)])
def test_each_probe_has_as_many_comparisons_with_different_other_people(limit: int, each: int) -> None:
    mates = some_mates(60, 51, 0)
    for own, rows in zip(mates, of_whom(60, mates, 51, max_comparisons=limit), strict=True):
        assert len(rows) == len(set(rows)) == each
        assert own not in rows
        assert set(rows) <= set(range(51))


@pytest.mark.parametrize("own", [0, 3, 6, NOBODY])
def test_every_other_template_is_as_likely_in_a_sample(own: int) -> None:
    rows = of_whom(6000, np.full(6000, own), 7, max_comparisons=6000 * 2)
    others = [row for row in range(7) if row != own]
    counted = Counter(row for of_one in rows for row in of_one)
    assert sorted(counted) == others
    expected = 12000 / len(others)
    assert max(abs(count - expected) for count in counted.values()) < 5 * expected**0.5  # standard deviations


@pytest.mark.parametrize("enrolled", [True, False])
def test_comparisons_are_sampled_only_beyond_the_limit(enrolled: bool) -> None:
    probes, templates, mates = whole(6, 0), whole(5, 1), np.full(6, 2 if enrolled else NOBODY)
    all_others = 6 * (4 if enrolled else 5)
    everything = search(probes, mates, templates, max_comparisons=all_others)
    assert not everything.sampled
    assert len(everything.impostor) == all_others
    assert search(probes, mates, templates, max_comparisons=all_others - 1).sampled


def test_the_sample_follows_the_seed() -> None:
    mates = some_mates(60, 51, 0)
    samples = [of_whom(60, mates, 51, max_comparisons=200, seed=seed) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


# Memory


class Largest(TorchFunctionMode):
    """The numbers of the largest tensor that a function of PyTorch gives."""

    numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for one in given if isinstance(given, tuple) else (given,):
            self.numbers = max(self.numbers, one.numel() if isinstance(one, Tensor) else 0)
        return given


@pytest.mark.parametrize(("probes", "templates"), [(16, 1_000_000), (300_000, 20)])
def test_memory_does_not_grow_with_the_templates_or_the_probes(probes: int, templates: int) -> None:
    """A whole matrix would be 16 or 6 million scores."""
    rows, gallery = torch.full((probes, 8), 0.5), torch.full((templates, 8), 0.5)
    mates = np.zeros(probes, np.int64)
    chunk = max(2**20, CONFIGURATIONS * templates)
    tracemalloc.start()
    try:
        with Largest() as largest:
            top_candidates(rows, gallery, 1, scores=chunk)
            search(rows, mates, gallery, max_comparisons=2 * probes, scores=chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert chunk / 2 < largest.numbers <= chunk
    assert peak < 4 * chunk + 100 * probes  # bytes of NumPy: no whole matrix, and the result of each probe
