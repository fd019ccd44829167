"""A run that goes on with another number of processes: what its checkpoint counts in their batches is counted anew."""

from __future__ import annotations

from typing import Any


def recount(checkpoint: dict[str, Any], before: int, now: int, batches: int, accumulated: int = 1) -> None:
    """In place: an epoch goes on behind what was trained on in it, the learning rate at the same part of its schedule.

    batches: of an epoch, of each process now. accumulated: batches of an optimiser step. Where a step does not end at
    the same picture, part of one is trained on again.
    """
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    for name in ("current", "total"):
        tracker = progress[name]
        wanted = tracker["ready"] * before // now // accumulated * accumulated
        if progress["is_last_batch"] and name == "current":
            wanted = batches
        moved = wanted - tracker["ready"]  # what was ready and not completed stays so
        progress[name] = {key: value + moved for key, value in tracker.items()}
    for loader in loop["state_dict"]["combined_loader"]:
        loader["handed_out"] = progress["current"]["ready"]
    for schedule in checkpoint["lr_schedulers"]:
        schedule["last_epoch"] = schedule["last_epoch"] * before // now
        for rate in filter(None, schedule["lr_lambdas"]):
            for steps in ("warmup_steps", "total_steps"):  # those of this run stay
                rate.pop(steps)
