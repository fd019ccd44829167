"""Loggers and callbacks that a user names: `wandb,project=ears`, or `my.module:MyCallback,patience=3`."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import loggers
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger

from earface.core.errors import InputError

LOGGERS = {  # by the names that people call them
    name.removesuffix("Logger").lower(): f"pytorch_lightning.loggers:{name}"
    for name in loggers.__all__
    if name not in ("Logger", "TensorBoardLogger")
}


def user_logger(text: str, log_dir: Path) -> Logger:
    """text: one of LOGGERS or `module:Class`, then `,name=value` for its constructor, which also gets the folder and
    the name of the run where it takes them and the text gives none. Raises InputError."""
    name, given = _parts(text, "`logger`")
    place = LOGGERS.get(name, name)
    if ":" not in place:
        raise InputError(f"`logger` {name}: choose tensorboard, none, {', '.join(LOGGERS)}, or give module:Class")
    run = f"{log_dir.parent.name}_{log_dir.name}"
    usual = {"save_dir": str(log_dir), "name": run, "run_name": run}
    found = _built(place, usual, given, "`logger`")
    if not isinstance(found, Logger):
        raise InputError(f"`logger` {text}: is no Logger of Lightning")
    return found


def user_callback(text: str) -> Callback:
    """text: `module:Class`, then `,name=value` for its constructor. Raises InputError."""
    place, given = _parts(text, "`callback`")
    if ":" not in place:
        raise InputError(f"`callback` {place}: give module:Class, such as my_callbacks:Alarm")
    found = _built(place, {}, given, "`callback`")
    if not isinstance(found, Callback):
        raise InputError(f"`callback` {text}: is no Callback of Lightning")
    return found


def _parts(text: str, flag: str) -> tuple[str, dict[str, Any]]:
    name, *pairs = text.split(",")
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{flag} {text}: after the name comes name=value, not {pair!r}")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[key] = value
    return name, given


def _built(place: str, usual: dict[str, Any], given: dict[str, Any], flag: str) -> Any:
    """The object of the class at `module:Class`; `usual`: arguments that it gets if it has them."""
    module, _, name = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # the user's own files, as `python -m` finds them
    try:
        chosen = getattr(import_module(module), name)
        known = inspect.signature(chosen).parameters
        return chosen(**{key: value for key, value in usual.items() if key in known} | given)
    except Exception as error:  # the user's code, or a package that is not installed
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{flag} {place}: {reason}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
