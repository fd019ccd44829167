"""What a signal does to a run, by receiver, workers and moment: `python -m benchmarks.stopping`.

Each case is a process of its own that trains a tiny ear VAE. It says when the moment has come and waits there until the
signals are sent. The processes are forked, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import itertools
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import psutil

from earface.core.errors import entry_point

Moment = Literal["set-up", "data scan", "linear path", "workers", "step", "accumulation", "validation", "checkpoint"]
MOMENTS: tuple[Moment, ...] = (
    *("set-up", "data scan", "linear path", "workers", "step", "accumulation", "validation", "checkpoint"),
)
BEFORE_TRAINING = MOMENTS[:4]
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
RECEIVERS = ("process", "group")
WORKERS = (0, 2, 6)
STEP_OF = {"step": 3, "accumulation": 3, "validation": 5, "checkpoint": 3}  # in last.ckpt, of five an epoch
TRAINED = 42  # training ears
PATIENCE_S = 120.0
GAP_S = 0.03  # between two signals
TINY = (
    *("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--latent-dim", "8", "--batch-size", "4"),
    *("--linear-path-size", "16", "--precision", "32", "--log-every-n-steps", "2", "--progress", "lines"),
    *("--epochs", "2", "--augment", "none", "--accumulate-grad-batches", "2", "--ema-decay", "0.9"),
)


@dataclass(frozen=True)
class Case:
    signals: tuple[str, ...]  # sent one after the other
    receiver: str = "process"
    workers: int = 0
    moment: Moment = "step"
    ignored: tuple[str, ...] = ()  # when the process starts, as under nohup


@dataclass(frozen=True)
class Outcome:
    code: int
    seconds: float  # from the last signal to the end
    left: int  # processes of its group that are alive after it has ended
    step: int | None  # in last.ckpt
    output: str  # stdout and stderr


class Meeting:
    """Two pipes: the run says that the moment has come, and waits there until the signals are sent."""

    def __init__(self, ready: int, go: int) -> None:
        self.ready, self.go = ready, go
        self.over = False

    def wait(self) -> None:
        if not self.over:
            self.over = True
            os.write(self.ready, b"!")
            os.read(self.go, 1)


def arguments(ears: Path, folder: Path, *extra: str) -> list[str]:
    return [
        *("--train-npy", str(ears / "train_teacher.npy"), "--val-npy", str(ears / "val_teacher.npy")),
        *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
        *TINY,
        *extra,
    ]


def train_until(case: Case, meeting: Meeting, argv: Sequence[str]) -> int:
    """In the run's own process: the exit code of `ear_teacher.train`, which meets us at the case's moment."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN if name in case.ignored else signal.SIG_DFL)
    if "SIGINT" not in case.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _meet_at(case, meeting)
    main = importlib.import_module("ear_teacher.train").main
    extra = ("--save-every-n-steps", "2") if case.moment == "checkpoint" else ()
    return main([*argv, "--num-workers", str(case.workers), *extra])


def _meet_at(case: Case, meeting: Meeting) -> None:
    from ear_teacher.datamodule import EarDataset, EarVAEDataModule
    from ear_teacher.model import EarVAE
    from ear_teacher.module import EarVAELightning
    from earface.training import resume
    from earface.training.checkpoint_io import AtomicCheckpointIO

    def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, name)

        def waiting(*args: Any, **options: Any) -> Any:
            if when(*args):
                meeting.wait()
            return original(*args, **options)

        setattr(owner, name, waiting)

    if case.moment == "set-up":
        before(resume, "open_run")
    elif case.moment == "data scan":
        before(EarVAEDataModule, "_open")
    elif case.moment == "linear path":
        before(EarVAE, "fit_closed_form")
    elif case.moment == "workers":  # the first item of the first training batch
        before(EarDataset, "view", lambda dataset, epoch, index: epoch == 0 and len(dataset) == TRAINED)
    elif case.moment in ("step", "accumulation"):
        half = 4 if case.moment == "accumulation" else 5  # of the third step
        before(EarVAELightning, "training_step", lambda module, batch, index: index == half)
    elif case.moment == "validation":
        before(EarVAELightning, "validation_step", lambda module, batch, index: index == 0)
    else:
        before(AtomicCheckpointIO, "save_checkpoint", lambda io, checkpoint, path: checkpoint["global_step"] == 2)


def observe(pid: int, ready: int, go: int, case: Case) -> tuple[bool, float]:
    """Send the signals when the run is ready. Whether it was, and when the last one was sent."""
    met = bool(select.select([ready], [], [], PATIENCE_S)[0]) and bool(os.read(ready, 1))
    send = os.killpg if case.receiver == "group" else os.kill
    for place, name in enumerate(case.signals if met else ()):
        if place:
            time.sleep(GAP_S)
        with contextlib.suppress(ProcessLookupError):
            send(pid, getattr(signal, name))
        wait_until_taken(pid, getattr(signal, name))  # two at once would be one
    sent = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        os.write(go, b"!" * 8)  # each worker waits
    return met, sent


def wait_until_taken(pid: int, number: int) -> None:
    """Where Linux reports it: a busy machine lets a process wait for longer than the gap between two signals."""
    status = Path(f"/proc/{pid}/status")
    with contextlib.suppress(OSError):
        while number in pending(status.read_text()):
            time.sleep(0.001)


def pending(status: str) -> set[int]:
    """The signals that a process has still to take, from its /proc/PID/status."""
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return {bit + 1 for mask in masks for bit in range(64) if mask >> bit & 1}


def members(group: int) -> list[psutil.Process]:
    """The living processes of a group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def outcome_of(case: Case, ears: Path, folder: Path, start: Callable[[Case, Meeting, list[str], Path], int]) -> Outcome:
    """start: begins the run in a process that leads its own group; returns its number."""
    folder.mkdir(parents=True, exist_ok=True)
    (ready, say), (hear, go) = os.pipe(), os.pipe()
    try:
        pid = start(case, Meeting(say, hear), arguments(ears, folder), folder / "output")
        os.close(say)
        met, sent = observe(pid, ready, go, case)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seconds = time.monotonic() - sent
    finally:
        for each in (ready, hear, go):
            os.close(each)
    left = members(pid)
    for process in left:
        process.kill()
    output = (folder / "output").read_text()
    if not met:
        raise RuntimeError(f"{case}: ended with {code} before its moment:\n{output[-2000:]}")
    return Outcome(code, seconds, len(left), last_step(folder), output)


def last_step(folder: Path) -> int | None:
    from earface.nn.checkpoint import read_checkpoint

    path = folder / "checkpoints" / "last.ckpt"
    return int(read_checkpoint(path)["global_step"]) if path.exists() else None


def forked(case: Case, meeting: Meeting, argv: list[str], output: Path) -> int:
    pid = os.fork()
    if not pid:
        _run_and_exit(case, meeting, argv, output)
    return pid


def _run_and_exit(case: Case, meeting: Meeting, argv: list[str], output: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        code = train_until(case, meeting, argv)
        atexit._run_exitfuncs()  # where no signal has come
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def import_once() -> None:
    """What every run needs, before the first fork."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    from ear_teacher import datamodule, module  # noqa: F401
    from earface.training import trainer  # noqa: F401

    torch.set_num_threads(1)  # a forked process must not need another one's threads


def serve() -> None:
    """Run the cases that come on stdin, `(case, ears, folder)` a line, and print each outcome: for tests."""
    import_once()
    for line in sys.stdin:
        case, ears, folder = eval(line)
        print(repr(outcome_of(case, Path(ears), Path(folder), forked)), flush=True)


def cases() -> Iterator[Case]:
    """Every moment with every signal and receiver; all numbers of workers for the two signals that are sent most, once
    there are workers."""
    for moment, name, receiver in itertools.product(MOMENTS, SIGNALS, RECEIVERS):
        crossed = name in ("SIGINT", "SIGTERM") and moment not in ("set-up", "data scan")
        for workers in WORKERS if crossed else WORKERS[1:2]:
            yield Case((name,), receiver, workers, moment)
    for moment, receiver, workers in itertools.product(("linear path", "step", "validation"), RECEIVERS, WORKERS):
        yield Case(("SIGINT", "SIGINT"), receiver, workers, moment)  # type: ignore[arg-type]


def expected(case: Case) -> tuple[int, int | None]:
    """Exit code and the step in last.ckpt."""
    if len(case.signals) > 1:
        return 130, None
    return 75, STEP_OF.get(case.moment)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=__doc__)
    parser.parse_args(argv)
    from earface.synthetic.ear_set import EarSet, write_ear_set

    import_once()
    wrong = 0
    print(f"{'moment':<13}{'signal':<16}{'receiver':<9}{'workers':>7}{'exit':>6}{'s':>6}{'left':>6}{'step':>6}")
    scratch = Path(tempfile.mkdtemp())  # a TemporaryDirectory would go when the first forked process ends
    try:
        ears = scratch / "ears"
        write_ear_set(ears, EarSet(10, 6, 64, seed=3), val_fraction=0.3, num_workers=1, overwrite=True)
        for number, case in enumerate(cases()):
            found = outcome_of(case, ears, scratch / str(number), forked)
            fine = (found.code, found.step) == expected(case) and not found.left and "Traceback" not in found.output
            wrong += not fine
            print(
                f"{case.moment:<13}{' '.join(case.signals):<16}{case.receiver:<9}{case.workers:>7}{found.code:>6}"
                f"{found.seconds:>6.1f}{found.left:>6}{found.step if found.step is not None else '-':>6}"
                f"{'' if fine else '  WRONG'}",
                flush=True,
            )
            if not fine:
                print(found.output[-3000:], file=sys.stderr)
    finally:
        shutil.rmtree(scratch)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
