"""Means of loss terms and of validation metrics, and the watch for values that are not finite."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor

from earface.training.term_log import NonFiniteLossError, TermLog, ValidationSums


def files(indices: Tensor) -> str:
    return ", ".join(f"ear_{index}.png" for index in indices.tolist())


def fill(log: TermLog, values: np.ndarray) -> None:
    for step, (loss, recon) in enumerate(values):
        log.add(step, {"loss": torch.tensor(loss), "recon": torch.tensor(recon)}, torch.tensor([step]))


VALUES = np.random.default_rng(0).uniform(0, 10, (23, 2)).astype(np.float32)


def means(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("loss", "recon"), values.astype(np.float64).mean(0), strict=True))


@pytest.mark.parametrize("check_every", [1, 4, 100])
def test_means_are_plain_means(check_every: int) -> None:
    log = TermLog(files, check_every)
    fill(log, VALUES[:5])
    assert log.take_window() == pytest.approx(means(VALUES[:5]), rel=1e-12)
    fill(log, VALUES[5:])
    assert log.take_window() == pytest.approx(means(VALUES[5:]), rel=1e-12)
    assert log.take_epoch() == pytest.approx(means(VALUES), rel=1e-12)
    fill(log, VALUES[:3])
    assert log.take_epoch() == pytest.approx(means(VALUES[:3]), rel=1e-12)


def test_means_are_over_all_processes_and_the_first_one_goes_on_with_their_sums() -> None:
    first, second, resumed = TermLog(files), TermLog(files), TermLog(files)
    fill(first, VALUES[:3])
    fill(second, VALUES[3:8])

    def total(sums: torch.Tensor) -> torch.Tensor:
        return sums + torch.tensor([*second.epoch.values()], dtype=torch.float64)

    resumed.load_state_dict(first.state_dict(total))
    fill(resumed, VALUES[8:])
    assert resumed.take_window() == pytest.approx(means(VALUES), rel=1e-12)
    assert resumed.take_epoch() == pytest.approx(means(VALUES), rel=1e-12)
    assert first.take_window(total) == pytest.approx(means(VALUES[:8]), rel=1e-12)
    assert first.take_epoch(total) == pytest.approx(means(VALUES[:8]), rel=1e-12)


def test_a_window_without_a_step_is_empty() -> None:
    assert TermLog(files).take_window() == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("check_every", [1, 3, 100])
def test_a_term_that_is_not_finite_names_step_term_and_samples(bad: float, check_every: int) -> None:
    log = TermLog(files, check_every)

    def train() -> None:
        for step in range(9):
            recon = torch.tensor(bad if step >= 4 else 1.0)
            log.add(step, {"loss": torch.tensor(1.0), "recon": recon}, torch.tensor([2 * step, 2 * step + 1]))
        log.take_epoch()

    with pytest.raises(NonFiniteLossError) as caught:
        train()
    assert str(caught.value) == "step 4: recon not finite on ear_8.png, ear_9.png"


def test_saving_finds_what_is_not_finite_before_it_is_saved() -> None:
    log = TermLog(files, check_every=100)
    log.add(0, {"loss": torch.tensor(float("nan"))}, torch.tensor([1]))
    with pytest.raises(NonFiniteLossError, match=r"ear_1\.png"):
        log.state_dict()


def test_stored_terms_hold_no_graph() -> None:
    log = TermLog(files, check_every=100)
    weight = torch.ones(1, requires_grad=True)
    log.add(0, {"loss": (weight * 2).sum()}, torch.tensor([0]))
    assert not log.pending[0][1].requires_grad


def test_a_saved_log_goes_on_as_if_never_stopped() -> None:
    stopped, other = TermLog(files, check_every=4), TermLog(files)
    fill(stopped, VALUES[:3])
    stopped.take_window()
    fill(stopped, VALUES[3:10])  # some of it still pending
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    fill(other, VALUES[10:])
    assert other.take_window() == pytest.approx(means(VALUES[3:]), rel=1e-12)
    assert other.take_epoch() == pytest.approx(means(VALUES), rel=1e-12)


# Validation


@pytest.mark.parametrize("check_every", [1, 3, 100])
def test_validation_means_weigh_each_batch_by_its_samples(check_every: int) -> None:
    counts = np.random.default_rng(1).integers(1, 9, len(VALUES))
    sums = ValidationSums(check_every=check_every)
    for (loss, recon), count in zip(VALUES, counts, strict=True):
        sums.add({"loss": torch.tensor(loss), "recon": torch.tensor(recon)}, int(count))
    wanted = np.average(VALUES.astype(np.float64), axis=0, weights=counts)
    assert sums.means() == pytest.approx(dict(zip(("loss", "recon"), wanted, strict=True)), rel=1e-12)


def test_names_may_have_samples_of_their_own_which_only_the_device_counts() -> None:
    sums = ValidationSums(("accuracy", "unseen"), check_every=100)
    sums.add({"loss": torch.tensor(4.0)}, 2)
    sums.add({"accuracy": torch.tensor(0.5)}, torch.tensor(4))
    sums.add({"accuracy": torch.tensor(torch.nan)}, torch.tensor(0))  # the mean of nothing
    sums.add({"accuracy": torch.tensor(1.0)}, torch.tensor(12))
    sums.add({}, 3)
    assert sums.means() == {"accuracy": 0.875, "loss": 4.0}


def test_processes_with_unequal_shares_have_the_means_of_all_samples() -> None:
    """The total is what an all-reduce of both processes' tensors gives."""
    shares = [ValidationSums(("loss", "recon")) for _ in range(2)]
    for (loss, recon), share in zip(VALUES[:3], (shares[0], shares[1], shares[1]), strict=True):
        share.add({"loss": torch.tensor(loss), "recon": torch.tensor(recon)}, 5)
    parts: list[Tensor] = []
    shares[0].means(lambda part: parts.append(part) or part)
    assert shares[1].means(lambda part: part + parts[0]) == pytest.approx(means(VALUES[:3]), rel=1e-12)


@pytest.mark.parametrize("check_every", [1, 100])
def test_a_validation_term_that_is_not_finite_is_named_before_it_is_read(check_every: int) -> None:
    sums = ValidationSums(check_every=check_every, step=40)

    def validate() -> None:
        sums.add({"loss": torch.tensor(1.0), "psnr": torch.tensor(torch.inf)}, 2)
        sums.means()

    with pytest.raises(NonFiniteLossError, match=r"\Astep 40: psnr not finite in validation\Z"):
        validate()
