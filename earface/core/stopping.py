"""Signals that pause a run, and the exit codes that say how it ended.

The first SIGINT, SIGTERM, SIGUSR1 or SIGHUP pauses: at once while nothing has been trained, else where the training
loop next asks for `StopRequests.reason`. A second SIGINT interrupts. A signal that was ignored when the process started
(nohup) stays ignored.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from earface.core.errors import EXIT_INTERRUPTED

EXIT_PAUSED = 75  # EX_TEMPFAIL of sysexits.h: not finished, the same command continues
PAUSING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)  # Windows lacks the last two
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of torchrun, srun and Lightning


class TrainingPaused(BaseException):
    """The state is safe, or nothing was trained yet. Not an Exception: no `except Exception` swallows it."""


class TrainingInterrupted(BaseException):
    """Asked to stop a second time. Not a KeyboardInterrupt, which Lightning turns into exit code 1."""


class StopRequests:
    """What a process was asked by signals."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.number: int | None = None  # of the first signal
        self.interrupts = 0  # SIGINTs
        self.deferred = False  # training has begun: its loop stops by itself where the state is whole
        self.ending = False  # nothing is raised any more
        self.left = False  # main has returned
        self._held = False
        self._waiting: list[int] = []
        self._previous: dict[int, Any] = {}
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    @property
    def reason(self) -> str | None:
        return None if self.number is None else f"by {signal.Signals(self.number).name}"

    def listen(self) -> None:
        """Take the signals over, again where another has taken them since. Only the main thread can."""
        for number in PAUSING:
            before = signal.getsignal(number)
            if before in (signal.SIG_IGN, None, self._handle):
                continue
            try:
                signal.signal(number, self._handle)
            except ValueError:
                return
            self._previous.setdefault(number, before)

    def release(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def prepare(self) -> None:
        """Before anything is trained: a request stops at once from here on. Raises TrainingPaused if there was one."""
        self.deferred = self.ending = False
        if self.number is not None:
            self._pause_at_once()

    def pause(self, message: str) -> NoReturn:
        """The state is saved: unwind, undisturbed by further signals."""
        self.ending = True
        raise TrainingPaused(message)

    def _pause_at_once(self) -> NoReturn:
        self.pause(f"{self.reason} before the first step: nothing new was trained, nothing is lost")

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self.pid:
            return  # a forked worker that has not come to ignore it yet
        if self._held:
            self._waiting.append(number)
            return
        self.interrupts += number == signal.SIGINT
        if number == getattr(signal, "SIGHUP", None):
            self._let_go_of_terminals()
        if self.interrupts > 1:
            self._interrupt()
        elif self.number is None:
            self.number = number
            if self.deferred and not self.ending:
                note(f"{signal.Signals(number).name}: pausing once the state is saved; Ctrl-C twice stops at once")
            elif not self.ending:
                self._pause_at_once()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """What comes meanwhile is heard at the end; processes that start inherit that they are not to hear it.

        Both are needed: a blocked signal goes to another thread, and Python calls its handler in this one.
        """
        blocks = hasattr(signal, "pthread_sigmask")  # not on Windows, where no other process is sent a signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PAUSING) if blocks else set()
        self._held = True
        try:
            yield
        finally:
            if blocks:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._held = False
            waiting, self._waiting = self._waiting, []
            for number in waiting:
                self._handle(number, None)

    def _interrupt(self) -> None:
        if self.left or self.interrupts > 2:
            note("interrupted")
            os._exit(EXIT_INTERRUPTED)
        if not self.ending:
            self.ending = True
            raise TrainingInterrupted

    def _let_go_of_terminals(self) -> None:
        """Output to a terminal that was closed would end the run with an OSError before its state is saved."""
        for number in self._terminals:
            if not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def is_first_process() -> bool:
    """Of those that train together; by what starts them, before they know each other."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def note(line: str) -> None:
    """On stderr, past Python's buffers, which a signal handler may not enter; by the first process alone."""
    if is_first_process():
        with suppress(OSError):
            os.write(2, f"{line}\n".encode(errors="backslashreplace"))


_active: StopRequests | None = None


def current_requests() -> StopRequests:
    """Of the pause_signals() around this call; without one no signal is heard."""
    return _active if _active is not None and _active.pid == os.getpid() else StopRequests()


@contextmanager
def pause_signals() -> Iterator[StopRequests]:
    """Listen to the signals inside. Nested ones are the outermost one.

    A process that was asked to stop is deaf to further signals but a second SIGINT until it ends, unless a person types
    into it.
    """
    global _active
    if _active is not None and _active.pid == os.getpid():
        yield _active
        return
    _active = requests = StopRequests()
    requests.listen()
    try:
        yield requests
    finally:
        _active = None
        requests.ending = requests.left = True
        if requests.number is None or hasattr(sys, "ps1"):
            requests.release()


def pausable(main: Callable[[Sequence[str] | None], int]) -> Callable[[Sequence[str] | None], int]:
    """Decorate a training script's `main(argv)`, inside `entry_point`: a run that is stopped ends in one line.

    The exit code is main's own, EXIT_PAUSED, or EXIT_INTERRUPTED after a second SIGINT. After a signal the process ends
    here, unless a person types into it.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        with pause_signals() as requests:
            try:
                code = main(argv)
            except TrainingPaused as pause:
                print(f"paused {pause}; the same command continues")
                code = EXIT_PAUSED
            except TrainingInterrupted:
                code = EXIT_INTERRUPTED
            requests.ending = True
            sys.stdout.flush()
            if requests.interrupts > 1:
                print("interrupted", file=sys.stderr, flush=True)
                code = EXIT_INTERRUPTED
        if requests.left and requests.number is not None and not hasattr(sys, "ps1"):
            _end_process(code)
        return code

    return run


def _end_process(code: int) -> NoReturn:
    """As the interpreter does, but that takes seconds, and gives signals their own meaning back before it is done."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
