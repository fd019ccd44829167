"""Decide whether a run starts, continues, or is finished, before anything is built."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from earface.core.errors import InputError
from earface.core.options import result_fields, to_plain
from earface.core.stopping import is_first_process
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.inference import device_of_accelerator
from earface.nn.precision import automatic_precision, emulation
from earface.nn.threads import automatic_threads
from earface.training.config import RunOptions

KEPT = "as when the run began"
SHOWN, LONGEST_VALUE = 3, 10  # of the settings that differ, so that the message stays one line on a screen
Options = TypeVar("Options", bound=RunOptions)


@dataclass(frozen=True)
class Run:
    """Where a run logs and what it continues from."""

    name: str
    log_dir: Path
    checkpoint: Path | None = None
    data: Mapping[str, Any] | None = None  # DataDigest.stored of the checkpoint, if it has one
    epoch: int = 0  # epochs that are complete
    step: int = 0
    csv_rows: int = 0
    finished: bool = False
    precision: str = ""  # why it is what it is
    threads: str = ""  # why as many


def open_run(options: Options, name: str) -> tuple[Run, Options]:
    """Follow `resume`; with the options as the run takes them.

    What is left to the machine, precision and threads, is decided here, or kept from the run's start.

    Raises InputError when the checkpoint is not one of this run, naming the fields.
    """
    logs = Path(options.log_dir) / name
    folder = Path(options.checkpoint_dir)
    if not options.fast_dev_run:
        for flag, path in (("`checkpoint_dir`", folder), ("`log_dir`", logs)):
            check_writable(flag, path)
    if options.resume == "never":
        if not options.fast_dev_run and is_first_process():
            _set_aside(folder)
        return _started(options, name, logs)
    if options.resume == "auto":
        if options.fast_dev_run or options.init_from or not (folder / "last.ckpt").is_file():
            if not options.fast_dev_run:
                _refuse_to_mix(options, folder)
            return _started(options, name, logs)
        path = folder / "last.ckpt"
    else:
        path = find_checkpoint(options.resume)
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("run")
    if not state or state.get("name") != name:
        raise InputError(f"{path}: not a checkpoint of {name}; choose another `checkpoint_dir`, or `resume` never")
    stored = checkpoint["hyper_parameters"]["options"]
    kept = options.precision == "auto" and "precision" in stored
    if kept:
        options = dataclasses.replace(options, precision=stored["precision"])
    threads_kept = options.num_threads == 0 and stored.get("num_threads", 0) > 0
    if threads_kept:
        options = dataclasses.replace(options, num_threads=stored["num_threads"])
    _compare(options, stored, path)
    run = Run(
        name,
        logs / state["version"],
        checkpoint=path,
        data=checkpoint.get("data"),
        epoch=state["epochs_done"],
        step=checkpoint["global_step"],
        csv_rows=state["csv_rows"],
        finished=state["epochs_done"] >= options.epochs or (state["stopped_early"] and options.resume == "auto"),
        precision=KEPT if kept else _note(options),
        threads=KEPT if threads_kept else "",
    )
    return run, options


def _started(options: Options, name: str, logs: Path) -> tuple[Run, Options]:
    reason = _note(options)
    if options.precision == "auto":
        precision, reason = automatic_precision(device_of_accelerator(options.accelerator))
        options = dataclasses.replace(options, precision=precision)  # type: ignore[arg-type]
    threads = ""
    alone = options.devices in ("auto", "1") and device_of_accelerator(options.accelerator) == "cpu"
    if options.num_threads == 0 and alone:  # Lightning divides the cores among several processes
        count, threads = automatic_threads()
        options = dataclasses.replace(options, num_threads=count)
    return Run(name, _next_version(logs), precision=reason, threads=threads), options


def _note(options: RunOptions) -> str:
    return emulation(device_of_accelerator(options.accelerator), options.precision)


def check_writable(flag: str, folder: Path) -> None:
    """Before hours are spent: can the folder be made, or written to?"""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{flag} {folder}: {existing} is a file; give a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{flag} {folder}: {existing} may not be written to; give another folder")


def _compare(options: RunOptions, stored: dict[str, Any], path: Path) -> None:
    current = to_plain(options)
    stored = to_plain(type(options)()) | stored  # an option that came later was at its default
    differing = [
        f"{field} {_short(stored[field])} -> {_short(current[field])}"
        for field in sorted(result_fields(options))
        if stored[field] != current[field]
    ]
    if differing:
        count = "1 other setting" if len(differing) == 1 else f"{len(differing)} other settings"
        shown = ", ".join(differing[:SHOWN]) + (", ..." if len(differing) > SHOWN else "")
        raise InputError(f"{path}: {count} ({shown}): `name` NAME for a new run, `resume` never, or `init_from`")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _next_version(logs: Path) -> Path:
    taken = [int(match[1]) for entry in logs.glob("version_*") if (match := re.fullmatch(r"version_(\d+)", entry.name))]
    return logs / f"version_{max(taken, default=-1) + 1}"


def _refuse_to_mix(options: RunOptions, folder: Path) -> None:
    if options.init_from and options.resume == "auto" and (folder / "last.ckpt").is_file():
        raise InputError(
            f"`init_from` starts a new run, but {folder} already holds one: choose another `checkpoint_dir`, or add "
            "`resume` never (the old checkpoints are set aside)"
        )


def _set_aside(folder: Path) -> None:
    """Move the checkpoints of an earlier run into `replaced_N`, so that none is overwritten."""
    old = sorted(folder.glob("*.ckpt"))
    if not old:
        return
    number = 0
    while (folder / f"replaced_{number}").exists():
        number += 1
    target = folder / f"replaced_{number}"
    target.mkdir()
    for path in old:
        path.rename(target / path.name)
