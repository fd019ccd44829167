"""What a checkpoint counts in steps is counted anew for another number of processes."""

from __future__ import annotations

from typing import Any

import pytest

from earface.training.process_count import recount


def checkpoint(ready: int, total: int, ended: bool = False) -> dict[str, Any]:
    """Written after a batch, whose end hooks are running."""

    def counted(count: int) -> dict[str, int]:
        return {"ready": count, "started": count, "processed": count, "completed": count - 1}

    progress = {"current": counted(ready), "total": counted(total), "is_last_batch": ended}
    loaders = [{"epoch": total // 5, "handed_out": ready}]
    rates = [{"warmup_steps": 10, "total_steps": 50, "scale": 0.5}, None]
    return {
        "loops": {"fit_loop": {"epoch_loop.batch_progress": progress, "state_dict": {"combined_loader": loaders}}},
        "lr_schedulers": [{"last_epoch": total, "lr_lambdas": rates}],
    }


@pytest.mark.parametrize(
    ("before", "now", "batches", "accumulated", "ready", "place"),
    [
        (2, 1, 10, 1, 3, 6),
        (1, 2, 5, 1, 6, 3),
        (1, 2, 5, 1, 7, 3),  # half a step is taken again
        (2, 4, 2, 1, 1, 0),
        (4, 1, 20, 2, 2, 8),
        (2, 3, 3, 2, 4, 2),
    ],
)
def test_an_epoch_goes_on_behind_the_same_picture(
    before: int, now: int, batches: int, accumulated: int, ready: int, place: int
) -> None:
    stored = checkpoint(ready, 5 + ready)
    recount(stored, before, now, batches, accumulated)
    loop = stored["loops"]["fit_loop"]
    assert loop["epoch_loop.batch_progress"]["current"] == {
        **dict.fromkeys(("ready", "started", "processed"), place),
        "completed": place - 1,
    }
    assert loop["state_dict"]["combined_loader"][0]["handed_out"] == place
    assert place * now <= ready * before < (place + accumulated) * now


def test_an_epoch_that_is_over_stays_over_and_the_schedule_keeps_its_place() -> None:
    """11 batches of one process are 5 of two, and a picture left over."""
    stored = checkpoint(5, 15, ended=True)
    recount(stored, 2, 1, 11)
    assert stored["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 11
    (schedule,) = stored["lr_schedulers"]
    assert schedule["last_epoch"] == 30
    assert schedule["lr_lambdas"] == [{"scale": 0.5}, None]
