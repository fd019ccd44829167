"""Checkpoints survive a failed write, and reading one runs nothing."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.nn.checkpoint import find_checkpoint, model_state, read_checkpoint
from earface.training.checkpoint_io import AtomicCheckpointIO
from tests.support.hostile import Payload

OLD = {"state_dict": {"weight": torch.arange(6.0)}, "epoch": 3, "options": {"lr": 1e-3, "names": ["a", None]}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(OLD, path)
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_old(path: Path) -> None:
    """The old file is whole, and nothing lies beside it."""
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], OLD["state_dict"]["weight"])
    assert list(path.parent.iterdir()) == [path]


def test_what_was_saved_is_read(saved: Path) -> None:
    read = read_checkpoint(saved)
    assert torch.equal(read.pop("state_dict")["weight"], torch.arange(6.0))
    assert read == {"epoch": 3, "options": {"lr": 1e-3, "names": ["a", None]}}
    assert list(saved.parent.iterdir()) == [saved]


def test_checksums_are_left_out_of_checkpoints_alone(saved: Path, tmp_path: Path) -> None:
    """They would take most of the time of writing, and torch.load does not look at them."""
    torch.save(OLD, tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "other.pt") as plain, zipfile.ZipFile(saved) as checkpoint:
        assert plain.testzip() is None
        assert checkpoint.testzip() is not None


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(OLD, tmp_path / "a" / "b" / "last.ckpt")
    assert_old(tmp_path / "a" / "b" / "last.ckpt")


def test_a_failing_write_leaves_the_old_file_and_nothing_else(saved: Path) -> None:
    unwritable: dict[str, Any] = {"state_dict": {"weight": torch.zeros(6)}, "hook": lambda: None}
    with pytest.raises((pickle.PicklingError, AttributeError)):
        AtomicCheckpointIO().save_checkpoint(unwritable, saved)
    assert_old(saved)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ, so a write fails with EFBIG
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100_000], ids=["none", "some"])
def test_a_full_disk_leaves_the_old_file_and_says_so_in_one_line(saved: Path, room: int) -> None:
    large = {"state_dict": {"weight": torch.zeros(1_000_000)}}
    with files_limited_to(room), pytest.raises((InputError, OSError)) as caught:
        AtomicCheckpointIO().save_checkpoint(large, saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.EFBIG
    assert_old(saved)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "hostile.ckpt", tmp_path / "ran"
    content = {"state_dict": {}, "extra": Payload(marker)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(path)
    assert message.startswith(f"{path}: refused, it holds more than tensors and plain values")
    assert "weights_only" not in message  # torch's advice is to load it unprotected
    assert not marker.exists()


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(saved: Path, fraction: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * fraction)])
    assert str(saved) in refusal(saved)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"epoch,step\n0,1\n", bytes(1000)], ids=["png", "csv", "zeros"]
)
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.ckpt"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_garbage_is_one_line(tmp_path: Path) -> None:
    path, generator = tmp_path / "garbage.ckpt", np.random.default_rng(0)
    for length in range(1, 200):
        path.write_bytes(b"\x80\x02" * (length % 2) + generator.bytes(length))
        assert str(path) in refusal(path)


@pytest.mark.parametrize(
    "content", [{"weight": torch.zeros(2)}, [1, 2], torch.zeros(2)], ids=["bare", "list", "tensor"]
)
def test_a_torch_file_without_state_dict_is_no_training_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert refusal(path) == f"{path}: not a training checkpoint (it has no state_dict)"


@pytest.mark.parametrize("newest", ["a", "b", "c"])
def test_a_pattern_means_its_newest_match(tmp_path: Path, newest: str) -> None:
    for name in ("a", "b", "c"):
        path = tmp_path / f"{name}.ckpt"
        path.touch()
        os.utime(path, (1000, 2000 if name == newest else 1000))
    (tmp_path / "z.ckpt").mkdir()  # a folder is no checkpoint, however new
    assert find_checkpoint(str(tmp_path / "*.ckpt")) == tmp_path / f"{newest}.ckpt"


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "run[1].ckpt"
    path.touch()
    (tmp_path / "run1.ckpt").touch()
    assert find_checkpoint(path) == path


@pytest.mark.parametrize("name", ["absent.ckpt", "*.ckpt", "."])
def test_a_missing_checkpoint_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / name) in refusal(tmp_path / name)


def test_averaged_and_raw_weights() -> None:
    with_average = {"state_dict": {"w": torch.zeros(1)}, "current_model_state": {"w": torch.ones(1)}}
    assert model_state(with_average)["w"] == 0
    assert model_state(with_average, "raw")["w"] == 1
    assert model_state({"state_dict": {"w": torch.zeros(1)}}, "raw")["w"] == 0
    with pytest.raises(ValueError, match="choose 'averaged' or 'raw'"):
        model_state(with_average, "ema")


def test_removing_a_checkpoint_twice_is_no_error(saved: Path) -> None:
    for _ in range(2):
        AtomicCheckpointIO().remove_checkpoint(saved)
    assert not saved.exists()


def of_run(path: Path, best: str, scores: dict[str, float]) -> None:
    """Files as a run leaves them: each a checkpoint, `last.ckpt` with what ModelCheckpoint knows."""
    path.mkdir(parents=True)
    state = {"monitor": "val/loss", "best_model_path": f"/elsewhere/{best}"}
    for name in (*scores, "last.ckpt"):
        torch.save({"state_dict": {}, "callbacks": {"ModelCheckpoint{'monitor': 'val/loss'}": state}}, path / name)


@pytest.mark.parametrize("inside", [".", "checkpoints"])
def test_a_runs_folder_means_its_best_by_val_loss(inside: str, tmp_path: Path) -> None:
    of_run(tmp_path / "run" / inside, "second.ckpt", {"first.ckpt": 2.0, "second.ckpt": 1.0})
    assert find_checkpoint(tmp_path / "run") == tmp_path / "run" / inside / "second.ckpt"
    assert not is_exported(tmp_path / "run")


def test_where_the_best_is_gone_a_runs_folder_means_its_last(tmp_path: Path) -> None:
    of_run(tmp_path / "run", "gone.ckpt", {})
    assert find_checkpoint(tmp_path / "run") == tmp_path / "run" / "last.ckpt"


def test_a_folder_that_is_no_runs_is_one_line_and_may_be_an_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder without last\.ckpt"):
        find_checkpoint(tmp_path)
    assert is_exported(tmp_path)
    assert not is_exported(tmp_path / "absent")
