"""Signals: a run that is asked to stop saves everything, says so by its exit code, and leaves no process behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from benchmarks.stopping import SIGNALS, Case, Meeting, Outcome, arguments, expected, outcome_of
from earface.core.stopping import EXIT_PAUSED, PAUSING
from earface.training.workers import WorkerLoader, end_workers
from tests.support.training import assert_same, outcome

pytestmark = pytest.mark.runs

if not hasattr(signal, "SIGHUP"):
    pytest.skip("signals to another process need POSIX", allow_module_level=True)

CHILD = """
import sys
from benchmarks.stopping import Case, Meeting, train_until

case, ready, go = eval(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.exit(train_until(case, Meeting(ready, go), sys.argv[4:]))
"""
PAUSED = [
    Case(("SIGTERM",), "group", 2, "step"),
    Case(("SIGHUP",), "process", 0, "accumulation"),
    Case(("SIGUSR1",), "group", 2, "validation"),
    Case(("SIGINT",), "group", 2, "checkpoint"),
]


def started(case: Case, meeting: Meeting, argv: list[str], output: Path) -> int:
    """In a fresh interpreter, which ends as a user's does."""
    with output.open("wb") as stream:
        command = [sys.executable, "-c", CHILD, repr(case), str(meeting.ready), str(meeting.go), *argv]
        process = subprocess.Popen(
            command,
            pass_fds=(meeting.ready, meeting.go),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    return process.pid


Run = Callable[[Case, Path, Path], Outcome]


@pytest.fixture(scope="module")
def forked() -> Iterator[Run]:
    """Runs a case in a process that is forked from one that has imported everything, which takes longer than a run."""
    server = subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.stopping import *; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    stdin, stdout = server.stdin, server.stdout

    def run(case: Case, ears: Path, folder: Path) -> Outcome:
        print(repr((case, str(ears), str(folder))), file=stdin, flush=True)
        return checked(eval(stdout.readline()))

    yield run
    stdin.close()
    server.wait()


def checked(found: Outcome) -> Outcome:
    assert "Traceback" not in found.output, found.output
    assert found.left == 0
    return found


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 to train on and 18, five validation batches' worth, of other people."""
    from earface.synthetic.ear_set import EarSet, write_ear_set

    folder = tmp_path_factory.mktemp("stopped_ears")
    write_ear_set(folder, EarSet(10, 6, 64, seed=3), val_fraction=0.3, num_workers=1, overwrite=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(ears: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    from ear_teacher.train import main

    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(arguments(ears, folder, "--num-workers", "0")) == 0
    return outcome(folder)


@pytest.mark.parametrize("case", PAUSED, ids=lambda case: case.moment)
def test_a_run_that_a_signal_pauses_ends_as_one_never_stopped(
    case: Case, forked: Run, ears: Path, tmp_path: Path, undisturbed: tuple[dict[str, Any], str]
) -> None:
    from ear_teacher.train import main

    found = forked(case, ears, tmp_path)
    assert (found.code, found.step) == expected(case)
    assert f"paused by {case.signals[0]} in " in found.output
    assert main(arguments(ears, tmp_path, "--num-workers", "0")) == 0
    checkpoint, rows = outcome(tmp_path)
    assert rows == undisturbed[1]
    assert_same(checkpoint, undisturbed[0])


def test_before_the_first_step_a_run_stops_at_once(forked: Run, ears: Path, tmp_path: Path) -> None:
    found = forked(Case(("SIGUSR1",), "group", 2, "linear path"), ears, tmp_path)
    assert (found.code, found.step) == (EXIT_PAUSED, None)
    assert "paused by SIGUSR1 before the first step: nothing new was trained" in found.output


def test_a_second_ctrl_c_is_interrupted(forked: Run, ears: Path, tmp_path: Path) -> None:
    found = forked(Case(("SIGINT", "SIGINT"), "group", 2, "step"), ears, tmp_path)
    assert (found.code, found.step) == (130, None)
    assert found.output.splitlines()[-1] == "interrupted"


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(forked: Run, ears: Path, tmp_path: Path) -> None:
    """Under nohup a run outlives its terminal."""
    found = forked(Case(("SIGHUP",), "group", 0, "step", ignored=("SIGHUP",)), ears, tmp_path)
    assert (found.code, found.step) == (0, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(("SIGTERM",), "group", 2, "step"),
        Case(("SIGINT", "SIGINT"), "process", 0, "data scan"),
        Case(("SIGINT", "SIGINT"), "group", 6, "validation"),
    ],
    ids=lambda case: f"{' '.join(case.signals)}, {case.moment}",
)
def test_a_fresh_interpreter_ends_alike(case: Case, ears: Path, tmp_path: Path) -> None:
    """The second SIGINT comes while the interpreter ends, which takes a while."""
    found = checked(outcome_of(case, ears, tmp_path, started))
    assert (found.code, found.step) == expected(case)


@pytest.mark.slow
def test_every_signal_receiver_number_of_workers_and_moment() -> None:
    """Each of about 130 runs ends as it should, or the table's last column says otherwise."""
    table = subprocess.run(
        [sys.executable, "-m", "benchmarks.stopping"], capture_output=True, text=True, check=False, timeout=1800
    )
    assert table.returncode == 0, table.stdout + table.stderr


@pytest.mark.slow
def test_evaluation_does_not_follow_a_pause_and_follows_the_end(ears: Path, tmp_path: Path) -> None:
    """In a shell, through the command."""
    earface = f"{sys.executable} -m earface"
    train = " ".join([f"{earface} ears train", *arguments(ears, tmp_path, "--num-workers", "0")])
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    for options, code, followed in (("--max-time 0", EXIT_PAUSED, ""), ("", 0, "followed\n")):
        line = subprocess.run(
            f"{train} {options} && echo followed", shell=True, capture_output=True, text=True, env=environment
        )
        assert line.returncode == code
        assert line.stdout.endswith(followed)
        assert ("followed" in line.stdout) == bool(followed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("dsr.train_dsr", "--recognizer none --second-recognizer none --lambda-identity 0 --lambda-feature-match 0"),
        ("facial_rec.finetune_edgeface", "--weights {edgeface} --inputs hr --min-images 1"),
    ],
)
def test_every_trainer_of_faces_is_paused(
    module: str, flags: str, face_set: Path, edgeface: Path, tmp_path: Path
) -> None:
    """In its set-up, by a signal that the handler has to hear: the default would end it otherwise."""
    program = f"""
import os, signal, sys
from earface.training import resume
resume.open_run = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
from {module} import main
sys.exit(main(sys.argv[1:]))
"""
    given = flags.format(edgeface=edgeface).split()
    places = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]
    run = subprocess.run(
        [sys.executable, "-c", program, "--dataset-root", str(face_set), *places, *given],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert run.returncode == EXIT_PAUSED, run.stderr
    assert run.stdout.splitlines()[-1].startswith("paused by SIGTERM before the first step")


@pytest.mark.slow
def test_under_slurm_the_requeue_signal_puts_the_job_back_once_it_is_saved(ears: Path, tmp_path: Path) -> None:
    """scontrol is a stand-in that writes down its arguments and which checkpoint there was."""
    tools, record = tmp_path / "bin", tmp_path / "record"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" $(ls {tmp_path}/run/checkpoints) > {record}\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"JOB_ID": "77", "JOB_NAME": "ears", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}

    def under_slurm(case: Case, meeting: Meeting, argv: list[str], output: Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
            for name, value in slurm.items():
                patch.setenv(f"SLURM_{name}", value)
            return started(case, meeting, argv, output)

    found = outcome_of(Case(("SIGUSR1",)), ears, tmp_path / "run", under_slurm)
    assert (found.code, found.step, found.left) == (EXIT_PAUSED, 3, 0), found.output
    assert record.read_text().split() == ["requeue", "77", "last.ckpt"]
    assert "requeued job 77" in found.output
    assert list(tmp_path.rglob("hpc_ckpt*")) == []


@pytest.mark.slow
def test_a_terminal_that_closes_pauses_the_run_that_prints_to_it(ears: Path, tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and from then on every write to the terminal fails."""
    import pty

    pid, terminal = pty.fork()
    if not pid:
        os.environ["PYTHONPATH"] = str(Path.cwd())
        flags = arguments(ears, tmp_path, "--num-workers", "2", "--epochs", "1000", "--progress", "bar")
        os.execv(sys.executable, [sys.executable, "-m", "ear_teacher.train", *flags])
    shown = b""
    while b"epoch 1/1000" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_PAUSED
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


# Workers


class Slow(torch.utils.data.Dataset[int]):
    """Items that take `seconds`; the first says which process makes it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        time.sleep(self.seconds if index else 0.0)
        return os.getpid()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_outlive_every_signal_that_pauses_a_run(method: str) -> None:
    loader = WorkerLoader(Slow(), batch_size=1, num_workers=1, multiprocessing_context=method)
    batches = iter(loader)
    worker = int(next(batches))
    for number in PAUSING:
        os.kill(worker, number)
    assert {int(each) for each in batches} == {worker}


def test_a_worker_that_is_busy_for_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = WorkerLoader(Slow(3600.0), batch_size=1, num_workers=2)
    batches = iter(loader)
    workers = [psutil.Process(each.pid) for each in batches._workers]
    next(batches)
    end_workers()
    assert not any(worker.is_running() for worker in workers)


def test_listening_leaves_no_handler_behind() -> None:
    from earface.core.stopping import pausable

    before = [signal.getsignal(getattr(signal, name)) for name in SIGNALS]
    inside: list[Any] = []

    @pausable
    def main(argv: Any) -> int:
        inside.extend(signal.getsignal(getattr(signal, name)) for name in SIGNALS)
        return 7

    assert main(None) == 7
    assert [signal.getsignal(getattr(signal, name)) for name in SIGNALS] == before
    taken = [handler for handler, old in zip(inside, before, strict=True) if handler != old]
    assert len(taken) == sum(handler is not signal.SIG_IGN for handler in before)


# What workers that are started rather than forked receive


def test_ears_travel_to_a_started_worker_as_a_files_name(ears: Path) -> None:
    from ear_teacher.config import EarVAETrainingConfig
    from ear_teacher.datamodule import EarVAEDataModule

    module = EarVAEDataModule(
        EarVAETrainingConfig(
            train_npy=(f"{ears}/train_teacher.npy",),
            val_npy=(f"{ears}/val_teacher.npy",),
            image_size=64,
            augment="full",
        )
    )
    module.setup()
    assert_small(module.train_set, module.train_set.images, lambda dataset: dataset.images)


def test_faces_travel_to_a_started_worker_as_a_files_name(face_set: Path, tmp_path: Path) -> None:
    from earface.nn.upsampler import Upsampler
    from facial_rec.config import EdgeFaceTrainingConfig
    from facial_rec.datamodule import EdgeFaceDataModule

    config = EdgeFaceTrainingConfig(
        dataset_root=str(face_set), cache_dir=str(tmp_path), upsampler="bicubic", vlr_size="16", min_images=1
    )
    module = EdgeFaceDataModule(config.of_stage(1), [Upsampler("bicubic", torch.nn.Upsample(128))])
    module.setup()
    ((images,),) = module.train_set.faces.enlarged.values()  # of one upsampler, degraded once
    for dataset in (module.train_set, module.val_set):
        assert_small(dataset, images, lambda each: next(iter(each.faces.enlarged.values()))[0])


def assert_small(dataset: Any, images: np.ndarray, of: Callable[[Any], np.ndarray]) -> None:
    """The pickled dataset is far smaller than its pictures, and shows the same ones."""
    pickled = pickle.dumps(dataset)
    assert len(pickled) < images.nbytes / 4  # the augmentation alone is 65 kB
    np.testing.assert_array_equal(of(pickle.loads(pickled)), images)
