"""A fit that signals pause: its processes, its loader's workers, and its place in SLURM's queue."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from earface.core.notices import as_flags
from earface.core.stopping import TrainingInterrupted, TrainingPaused, pause_signals
from earface.training.workers import end_workers

_FIRST = "EARFACE_FIRST_PROCESS"  # its id, for those that it starts
PATIENCE_S = 60.0  # for the other processes to end, whose state is saved
AT_ONCE_S = 2.0  # for those that may wait for this one


def fit_until_paused(trainer: pl.Trainer, *args: Any, **options: Any) -> bool:
    """`trainer.fit`. True when the run is complete, False when it was paused, which one line says.

    Under SLURM the requeue signal pauses the run and puts the job back into the queue.
    """
    environment = trainer._accelerator_connector.cluster_environment
    _end_with_the_first(trainer.strategy.launcher)
    requeueing = _take_over_requeue(environment)
    with pause_signals() as requests:
        try:
            requests.prepare()
            trainer.fit(*args, **options)
        except TrainingPaused as pause:
            _report(str(pause))
            _end_processes(trainer, PATIENCE_S if requests.deferred else AT_ONCE_S)
            if requeueing is not None and requests.number == requeueing:
                requeue_job()
            if trainer.global_rank:
                sys.exit(0)  # Lightning, torchrun and srun take any other code for a crash, and kill the first process
            return False
        except TrainingInterrupted:
            _end_processes(trainer, AT_ONCE_S)
            raise
        finally:
            requests.ending = True  # nothing is lost any more
            end_workers()
            if os.environ.get(_FIRST) == str(os.getpid()):
                del os.environ[_FIRST]  # what this process starts later is not of this run
    return True


def _end_with_the_first(launcher: Any) -> None:
    """In a process that Lightning starts: end when the first one has, which a collective on a GPU notices late.

    The first one itself is ended by Lightning when another has failed.
    """
    if isinstance(launcher, _SubprocessScriptLauncher) and "LOCAL_RANK" not in os.environ:
        os.environ[_FIRST] = str(os.getpid())
    elif _FIRST in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        first = int(os.environ[_FIRST])
        threading.Thread(target=_watch_parent, args=(first,), name="watch-first-process", daemon=True).start()


def _watch_parent(process: int) -> None:
    while os.getppid() == process:
        time.sleep(1.0)
    os._exit(1)


@rank_zero_only
def _report(message: str) -> None:
    Console().print(f"[yellow]paused[/] {as_flags(message)}; the same command continues", soft_wrap=True)


def _end_processes(trainer: pl.Trainer, patience: float) -> None:
    """Wait for those of the other devices, where Lightning has started them, and kill what is left after `patience`."""
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    processes = list(launcher.procs)
    launcher.procs.clear()  # Lightning watches these, and kills this process too when one is killed
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _take_over_requeue(environment: Any) -> int | None:
    """The signal that requeues this job, None where there is none.

    Lightning's own handler saves in the middle of a step, into a file that a `last.ckpt` takes precedence over.
    """
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    environment.auto_requeue = False
    return environment.requeue_signal


@rank_zero_only
def requeue_job() -> None:
    """`scontrol requeue` of this job, or of this task of a job array; one line says how that went."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        outcome = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        failure = outcome.stderr.strip() or f"exit code {outcome.returncode}" if outcome.returncode else ""
    except OSError as error:
        failure = str(error)
    print(f"job {job} could not be requeued: {failure}" if failure else f"requeued job {job}")
