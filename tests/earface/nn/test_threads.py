"""How many threads a run takes."""

from __future__ import annotations

import pytest
import torch

from earface.nn.threads import automatic_threads, choose, halves


def test_candidates_go_down_to_one() -> None:
    assert [halves(count) for count in (1, 2, 6, 8)] == [[1], [2, 1], [6, 3, 1], [8, 4, 2, 1]]


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({4: 1.0, 2: 1.9, 1: 3.6}, 4),  # an idle machine
        ({4: 1.9, 2: 1.0, 1: 1.5}, 4),  # an operation that is small for four
        ({4: 9.0, 2: 1.9, 1: 3.6}, 2),  # two cores are taken
        ({4: 40.0, 2: 12.0, 1: 3.6}, 1),  # all but one
        ({4: 8.0, 2: 4.1, 1: 4.0}, 4),  # at the limit
    ],
)
def test_fewer_threads_are_taken_where_they_are_far_faster(milliseconds: dict[int, float], chosen: int) -> None:
    assert choose(milliseconds) == chosen


def test_a_number_that_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert automatic_threads() == (torch.get_num_threads(), "as OMP_NUM_THREADS says")


def test_pytorchs_own_number_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        chosen, reason = automatic_threads()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert (chosen, reason) == (3, "all there are") or (chosen < 3 and reason.endswith("of 3 cores busy"))
