"""A run's best checkpoints: which are kept, and their scores when the run goes on in another folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor


def best_checkpoints(folder: str, name: str, best: Mapping[str, Literal["min", "max"]]) -> list[Checkpoint]:
    """The best three by `val/loss` and the best one by each of `best`: a metric's name without `val/`, and its mode.

    File names never contain a metric's slash.
    """
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "save_on_train_epoch_end": False,
        "enable_version_counter": False,
    }
    return [
        ModelCheckpoint(
            monitor="val/loss",
            mode="min",
            save_top_k=3,
            filename=f"{name}-epoch={{epoch:03d}}-val_loss={{val/loss:.4f}}",
            **shared,
        ),
        *(
            ModelCheckpoint(
                monitor=f"val/{metric}",
                mode=mode,
                save_top_k=1,
                filename=f"best-{metric}-epoch={{epoch:03d}}-val_{metric}={{val/{metric}:.4f}}",
                **shared,
            )
            for metric, mode in best.items()
        ),
    ]


def carry_over_scores(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Before the callbacks get their states: what Lightning does not give back to them.

    That is the score of the last file, which other checkpoints hold too. And, of a run whose folder was moved, the
    scores of the files in its place: Lightning forgets them where the folder's name has changed, a worse epoch then
    counts as the best, and the files that it had kept stay beside the new ones.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key)
        if not isinstance(callback, ModelCheckpoint) or not state:
            continue
        callback.current_score = state.get("current_score")
        if state["dirpath"] != str(callback.dirpath):
            state.update(_of_files_in(Path(str(callback.dirpath)), state["best_k_models"], callback))


def _of_files_in(folder: Path, scores: Mapping[str, Tensor], callback: ModelCheckpoint) -> dict[str, Any]:
    """ModelCheckpoint's state. scores: of files in any other folder, of which those that `folder` has are kept."""
    by_name = {re.split(r"[/\\]", path)[-1]: score for path, score in scores.items()}
    kept = {str(folder / name): score for name, score in by_name.items() if (folder / name).is_file()}
    sign = 1.0 if callback.mode == "min" else -1.0
    order = sorted(kept, key=lambda path: sign * float(kept[path]))
    full = len(order) == callback.save_top_k
    return {
        "dirpath": str(folder),
        "best_k_models": kept,
        "best_model_path": order[0] if order else "",
        "best_model_score": kept[order[0]] if order else None,
        "kth_best_model_path": order[-1] if full else "",
        "kth_value": kept[order[-1]] if full else callback.kth_value,
        "last_model_path": "",
    }
