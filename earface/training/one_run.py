"""One run, one folder: a second one that would write the same checkpoints is refused while the first is alive."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from earface.core.errors import InputError
from earface.core.files import atomic_write, is_running, this_machine
from earface.core.notices import warn

LOCK, HOLDER = ".run.lock", "running.json"  # what the system locks, and who holds it; the second goes when a run ends
PATIENCE_S = 10.0  # for workers of a process that was killed, which hold its lock until they notice


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, by a lock that the system gives back when it dies.

    What a dead run has left there is taken over with a note; so is a folder whose file system has no locks. Raises
    InputError, naming host and process, where another run holds it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with ExitStack() as held:
        held.callback(_leave_nothing, folder, made)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _acquire(held, FileLock(folder / LOCK), folder)
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            warn(f"{folder}: cannot be locked ({reason}): start no second run in it")
        left = _holder(folder)
        if left:
            warn(f"{folder}: {_described(left)} ended there without a word; this run takes its folder over")
        with suppress(OSError):
            with atomic_write(folder / HOLDER, sync=False) as temporary:
                temporary.write_text(json.dumps(_this_process()), encoding="utf-8")
            held.callback((folder / HOLDER).unlink, missing_ok=True)
        yield


def _acquire(held: ExitStack, lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(folder)
        if not holder and not os.access(folder / LOCK, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from None
        if holder.get("machine") != this_machine() or is_running(holder["process"]):
            raise InputError(
                f"`checkpoint_dir` {folder}: {_described(holder)} is training in it: wait for it, stop it, or give "
                "another folder"
            ) from None
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:  # a lock that is a file, where the system has no better one
            return
    held.callback(lock.release)


def _leave_nothing(folder: Path, made: list[Path]) -> None:
    """Of a run that was refused before its first checkpoint: neither the lock nor the folders that it made."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        for each in made:
            each.rmdir()


def _this_process() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": platform.node(), "machine": this_machine(), "process": os.getpid(), "since": since}


def _holder(folder: Path) -> dict[str, Any]:
    """Who wrote that it runs there; empty where nobody did, or not to be read."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and isinstance(found.get("process"), int) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _described(holder: dict[str, Any]) -> str:
    if not holder:
        return "another run"
    return f"process {holder['process']} on {holder.get('host')} (since {holder.get('since')})"
