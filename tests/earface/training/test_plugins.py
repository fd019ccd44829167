"""The user's own loggers and callbacks: by Lightning's names, and by import path from the working folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pytorch_lightning.loggers import CSVLogger

from ear_teacher.train import main
from earface.core.errors import InputError
from earface.training.plugins import user_callback, user_logger
from tests.conftest import only_line
from tests.support.training import metric_rows

OWN = """
from pathlib import Path

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger


class Counter(Callback):
    def __init__(self, file, step=1):
        self.file, self.step, self.count = Path(file), step, 0

    def on_train_batch_end(self, *args):
        self.count += self.step
        self.file.write_text(str(self.count))


class Lines(Logger):
    name, version = "lines", "0"

    def __init__(self, save_dir):
        super().__init__()
        self.file = Path(save_dir) / "lines.txt"

    def log_hyperparams(self, *args, **options):
        pass

    def log_metrics(self, metrics, step=None):
        with self.file.open("a") as file:
            file.write(f"{step} {metrics.get('val/psnr')}\\n")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_training.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_training", raising=False)
    return tmp_path


def test_the_users_callback_and_logger_take_part_in_a_run(own: Path, tiny: list[str]) -> None:
    plugins = ("--callback", "my_training:Counter,file=count.txt,step=10", "--logger", "my_training:Lines")
    assert main([*tiny, "--epochs", "2", "--perceptual-weight", "0", "--cache-dir", str(own / "cache"), *plugins]) == 0
    assert (own / "count.txt").read_text() == str(10 * 2 * 10)  # 40 ears in batches of 4
    version = own / "logs" / "ear_vae" / "version_0"
    rows = [line.split() for line in (version / "lines.txt").read_text().splitlines()]
    wanted = [(row["step"], row["val/psnr"]) for row in metric_rows(own) if "val/psnr" in row]
    found = [(int(step), float(psnr)) for step, psnr in rows if psnr != "None"]
    assert found == [(step, pytest.approx(psnr, rel=1e-6)) for step, psnr in wanted]
    assert not list(version.glob("events*"))  # it takes TensorBoard's place
    assert yaml.safe_load((version / "config.yaml").read_text())["logger"] == ["my_training:Lines"]


def test_a_logger_of_lightning_by_its_name_gets_the_runs_folder(tmp_path: Path) -> None:
    found = user_logger("csv,flush_logs_every_n_steps=7", tmp_path / "dsr" / "version_3")
    assert isinstance(found, CSVLogger)
    assert Path(found.log_dir).is_relative_to(tmp_path / "dsr" / "version_3")
    assert found._flush_logs_every_n_steps == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tensorbord", ", csv, mlflow, wandb, or give module:Class"),
        ("wandb,project", "comes name=value, not 'project'"),
        ("nowhere.at_all:Logger", "No module named 'nowhere'"),
        ("pathlib:Nothing", "no attribute 'Nothing'"),
        ("pathlib:Path", "is no Logger of Lightning"),
        ("csv,colour=red", "unexpected keyword argument 'colour'"),
    ],
)
def test_a_logger_that_cannot_be_had_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`logger`") as caught:
        user_logger(text, tmp_path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["EarlyStopping", "pathlib:Path", "pytorch_lightning.callbacks:EarlyStopping"])
def test_a_callback_that_cannot_be_had_is_refused_in_one_line(
    text: str, own: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*tiny, "--perceptual-weight", "0", "--cache-dir", str(own / "cache"), "--callback", text]) == 2
    assert only_line(capsys).startswith("error: --callback ")
    assert user_callback("pytorch_lightning.callbacks:EarlyStopping,monitor=val/psnr,mode=max").mode == "max"
