"""An interrupted and resumed run ends as one that never stopped, to the last bit and the last row."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ear_teacher.train import main
from earface.core.files import atomic_write
from earface.core.stopping import EXIT_PAUSED
from earface.training.callbacks import LastCheckpoint
from tests.forks import FORKS
from tests.support.training import assert_same, outcome

pytestmark = pytest.mark.runs

PLAN = (
    *("--epochs", "4", "--augment", "full", "--denoise", "--accumulate-grad-batches", "2", "--ema-decay", "0.9"),
    *("--kl-anneal-strategy", "threshold", "--kl-anneal-threshold-psnr", "5", "--kl-anneal-epochs", "2"),
    *("--schedule", "plateau", "--plateau-patience", "0", "--warmup-epochs", "1", "--contrastive-weight", "0.1"),
    *("--freeze-layers", "1", "--save-every-n-steps", "2", "--linear-path-size", "0"),
)


def arguments(ear_set: Path, folder: Path, *extra: str) -> list[str]:
    from tests.conftest import TINY

    return [
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
        *TINY,
        *PLAN,
        *extra,
    ]


@pytest.fixture(scope="module")
def uninterrupted(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(arguments(ear_set, folder)) == 0
    return outcome(folder)


def assert_as_uninterrupted(folder: Path, uninterrupted: tuple[dict[str, Any], str]) -> None:
    checkpoint, rows = outcome(folder)
    assert rows == uninterrupted[1]
    assert_same(checkpoint, uninterrupted[0])


def test_stopped_between_epochs(ear_set: Path, tmp_path: Path, uninterrupted: Any) -> None:
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "2")) == EXIT_PAUSED
    half = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert half["run"]["epochs_done"] == 2
    assert main(arguments(ear_set, tmp_path)) == 0
    assert_as_uninterrupted(tmp_path, uninterrupted)


def test_resumed_with_other_workers(ear_set: Path, tmp_path: Path, uninterrupted: Any) -> None:
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "1", "--num-workers", "2")) == EXIT_PAUSED
    assert main(arguments(ear_set, tmp_path, "--num-workers", "1")) == 0
    assert_as_uninterrupted(tmp_path, uninterrupted)


def assert_each_step_once(folder: Path) -> None:
    """In TensorBoard, of which a step that ends an epoch has two rows."""
    (log,) = {path.parent for path in folder.rglob("events.out.*")}
    events = EventAccumulator(str(log), size_guidance={"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert len(steps) == len({*steps}), tag


def train_until_step_6(argv: list[str], number: signal.Signals) -> None:
    """In a process of its own, which sends itself a signal once that step is saved."""
    save = LastCheckpoint._save

    def save_and_signal(self: LastCheckpoint, trainer: pl.Trainer) -> None:
        save(self, trainer)
        if trainer.global_step == 6:
            with atomic_write(self.path.with_name("best.ckpt")) as temporary:  # what a kill leaves, a request does not
                temporary.touch()
                os.kill(os.getpid(), number)

    LastCheckpoint._save = save_and_signal  # type: ignore[method-assign]
    sys.exit(main(argv))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_interrupted_in_the_middle_of_an_epoch(
    ear_set: Path, tmp_path: Path, uninterrupted: Any, number: signal.Signals
) -> None:
    """After the first of the second epoch's five steps."""
    process = FORKS.Process(target=train_until_step_6, args=(arguments(ear_set, tmp_path), number))
    process.start()
    process.join()
    assert process.exitcode == (EXIT_PAUSED if number == signal.SIGTERM else -signal.SIGKILL)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == (7 if number == signal.SIGTERM else 6)  # a request is heard at the next step
    assert len([*tmp_path.rglob(".*.tmp")]) == (number == signal.SIGKILL)
    assert main(arguments(ear_set, tmp_path)) == 0
    assert_as_uninterrupted(tmp_path, uninterrupted)
    assert not [*tmp_path.rglob(".*.tmp")]
    assert_each_step_once(tmp_path)


def test_resumed_from_a_best_checkpoint(ear_set: Path, tmp_path: Path, uninterrupted: Any) -> None:
    """Written at the end of a validation, before the epoch has ended and before `val/ssim` was judged."""
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "2")) == EXIT_PAUSED
    best = tmp_path / "checkpoints" / "ear_vae-epoch=001-*.ckpt"
    assert main(arguments(ear_set, tmp_path, "--resume", str(best))) == 0
    checkpoint, rows = outcome(tmp_path)
    assert rows == uninterrupted[1]
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "annealing"):
        assert_same(checkpoint[part], uninterrupted[0][part], part)


def test_a_finished_run_says_so(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(ear_set, tmp_path, "--epochs", "1")) == 0
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    capsys.readouterr()
    assert main(arguments(ear_set, tmp_path, "--epochs", "1")) == 0
    assert "finished" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_other_options_are_refused_by_name(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "1")) == EXIT_PAUSED
    assert main(arguments(ear_set, tmp_path, "--lr", "0.5")) == 2
    error = capsys.readouterr().err
    assert "lr 0.001 -> 0.5" in error
    assert "--init-from" in error
    assert error.count("\n") == 1


def test_a_checkpoint_from_before_an_option_existed_is_continued(ear_set: Path, tmp_path: Path) -> None:
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "1")) == EXIT_PAUSED
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for stored in ("model", "options"):
        del checkpoint["hyper_parameters"][stored]["sam_size"]
    torch.save(checkpoint, path)
    assert main(arguments(ear_set, tmp_path, "--stop-after-epoch", "2")) == EXIT_PAUSED
    assert torch.load(path, weights_only=True)["run"]["epochs_done"] == 2


def test_never_sets_the_old_run_aside(ear_set: Path, tmp_path: Path) -> None:
    assert main(arguments(ear_set, tmp_path, "--epochs", "1")) == 0
    old = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    assert main(arguments(ear_set, tmp_path, "--epochs", "1", "--resume", "never", "--lr", "0.01")) == 0
    assert (tmp_path / "checkpoints" / "replaced_0" / "last.ckpt").read_bytes() == old


def test_init_from_takes_weights_only(ear_set: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(arguments(ear_set, first, "--epochs", "1")) == 0
    start = first / "checkpoints" / "last.ckpt"
    assert main(arguments(ear_set, second, "--epochs", "1", "--init-from", str(start), "--lr", "1e-9")) == 0
    given = torch.load(start, weights_only=True)["state_dict"]
    kept = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
    name = "model.decoder.project.weight"
    assert torch.allclose(kept["state_dict"][name], given[name], atol=1e-6)
    assert kept["global_step"] == 5
