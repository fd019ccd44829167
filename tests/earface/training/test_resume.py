"""What a run takes from the machine, and that it keeps it; what is another run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ear_teacher.config import EarVAETrainingConfig
from ear_teacher.train import main
from earface.nn.checkpoint import read_checkpoint
from earface.training import resume
from tests.conftest import only_line

pytestmark = pytest.mark.runs

EPOCH = ("--epochs", "2", "--stop-after-epoch")


def on_a_processor_of(precision: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "automatic_precision", lambda device: (precision, "as this test wants it"))
    monkeypatch.setattr(resume, "automatic_threads", lambda: (threads, "as this test wants them"))


def without_precision(tiny: list[str]) -> list[str]:
    place = tiny.index("--precision")
    return [*tiny[:place], *tiny[place + 2 :]]


def stored(tmp_path: Path) -> tuple[str, int]:
    checkpoint: dict[str, Any] = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    options = checkpoint["hyper_parameters"]["options"]
    return options["precision"], options["num_threads"]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("began", "continued"), [(("32", 1), ("bf16-mixed", 2)), (("bf16-mixed", 1), ("32", 2))])
def test_a_resumed_run_keeps_the_precision_and_the_threads_it_began_with(
    began: tuple[str, int],
    continued: tuple[str, int],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """Both change the last bits of its numbers."""
    on_a_processor_of(*began, monkeypatch)
    main([*without_precision(tiny), *EPOCH, "1"])
    assert (stored(tmp_path), torch.get_num_threads()) == (began, began[1])
    shown = capsys.readouterr().out
    assert f"precision {began[0]}: as this test wants it" in shown
    assert f"threads {began[1]}: as this test wants them" in shown
    on_a_processor_of(*continued, monkeypatch)
    assert main([*without_precision(tiny), "--epochs", "2"]) == 0
    assert (stored(tmp_path), torch.get_num_threads()) == (began, began[1])
    shown = capsys.readouterr().out
    assert f"precision {began[0]}: as when the run began" in shown
    assert f"threads {began[1]}: as when the run began" in shown


def test_another_precision_by_flag_is_another_run(tiny: list[str], tmp_path: Path, capsys: Any) -> None:
    main([*tiny, *EPOCH, "1"])
    capsys.readouterr()
    assert main([*without_precision(tiny), "--precision", "bf16-mixed", "--epochs", "2"]) == 2
    assert "precision 32 -> bf16-mixed" in only_line(capsys)


def test_what_differs_is_one_short_line_with_the_ways_out(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ("--checkpoint-dir", "ear_teacher/checkpoints", "--log-dir", "ear_teacher/logs")
    main([*tiny, *folders, *EPOCH, "1"])
    capsys.readouterr()
    changed = ("--lr", "2e-3", "--latent-dim", "16", "--augment", "light", "--kl-weight", ".123456789", "--seed", "7")
    assert main([*tiny, *folders, "--epochs", "2", *changed]) == 2
    line = only_line(capsys).strip()
    assert len(line) <= len("error: ") + 200
    assert (
        "last.ckpt: 5 other settings (augment none -> light, kl_weight 0.00025 -> 0.12345..., latent_dim 8 -> 16, ...)"
        in line
    )
    assert all(way in line for way in ("--name", "--resume never", "--init-from"))


def test_a_name_puts_a_run_under_runs(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tiny.index("--checkpoint-dir")
    unplaced = [*tiny[:place], *tiny[place + 4 :]]
    assert main([*unplaced, "--epochs", "1", "--name", "first.try-1"]) == 0
    assert (tmp_path / "runs/first.try-1/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "runs/first.try-1/logs/ear_vae/version_0/metrics.csv").is_file()
    assert not (tmp_path / "ear_teacher").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--name", "a/b"), "--name a/b: letters"),
        (("--name", ".."), "--name ..: letters"),
        (("--name", "one", "--log-dir", "elsewhere"), "--name one and --log-dir elsewhere: give one of the two"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(
    given: tuple[str, ...], said: str, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = tiny.index("--checkpoint-dir")
    assert main([*tiny[:place], *tiny[place + 4 :], *given]) == 2
    assert said in only_line(capsys)


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_under_slurm_only_resume_decides_what_a_run_continues_from(
    resume: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Lightning takes hpc_ckpt_N.ckpt of its default folder, whichever run wrote it."""
    main([*tiny, "--epochs", "3"])
    other = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    new = tmp_path / "new"
    for folder in (".", "checkpoints", "logs", "logs/ear_vae", "logs/ear_vae/version_0"):
        (new / folder).mkdir(parents=True, exist_ok=True)
        (new / folder / "hpc_ckpt_1.ckpt").write_bytes(other)
    monkeypatch.chdir(new)
    for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "1" if name == "NTASKS" else "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "ears")
    places = ("--checkpoint-dir", str(new / "checkpoints"), "--log-dir", str(new / "logs"))
    assert main([*tiny, *places, "--epochs", "1", "--resume", resume]) == 0
    assert read_checkpoint(new / "checkpoints" / "last.ckpt")["run"]["epochs_done"] == 1
    assert "continuing" not in capsys.readouterr().out.partition("best val/loss")[0]


def test_of_several_processes_the_first_alone_sets_an_old_run_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would move the same file."""
    old = tmp_path / "last.ckpt"
    old.touch()
    folders = {"checkpoint_dir": str(tmp_path), "log_dir": str(tmp_path / "logs")}
    options = EarVAETrainingConfig(train_npy=("a.npy",), val_npy=("b.npy",), resume="never", precision="32", **folders)
    monkeypatch.setenv("RANK", "1")
    resume.open_run(options, "ear_vae")
    assert old.is_file()
    monkeypatch.setenv("RANK", "0")
    resume.open_run(options, "ear_vae")
    assert (tmp_path / "replaced_0" / "last.ckpt").is_file()
