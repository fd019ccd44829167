"""What a user can get wrong ends in one line on stderr and exit code 2, never in a traceback.

A message writes an option as a Python user knows it, in backticks: `vlr_size`. The command line shows it as --vlr-size.
"""

from __future__ import annotations

import argparse
import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from earface.core.notices import as_flags, collecting_warnings, one_line, show_warnings
from earface.core.pipes import EXIT_CLOSED_PIPE, quiet_closed_pipe

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
_ADVICE = {  # to what the file system says
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space or choose another folder"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "allow it, or choose another folder"),
    errno.ENAMETOOLONG: "shorten the name",
    errno.ENOENT: "put it there",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit on open files (ulimit -n) or lower `num_workers`"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.EOPNOTSUPP), "check the disk or network share, or use another"),
}
SHARED_MEMORY_ADVICE = "use `num_workers` 0, or give a container more: docker's shm-size, such as 2g"
_NO_SHARED_MEMORY = ("unable to allocate shared memory", "out of shared memory", "killed by signal: Bus error")
_OUT_OF_MEMORY = ("CUDA out of memory", "MPS backend out of memory", "ALLOC_FAILED")


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, which file, and what to do, in one line."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class OneLineParser(argparse.ArgumentParser):
    """`argparse` without abbreviations, whose errors are one line instead of usage and message."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Defaults)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

        self.add_argument("--version", action=_Version, nargs=0, help="show the project's version and exit")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse; an unknown flag is reported before a required one that is missing."""
        given = list(sys.argv[1:] if args is None else args)
        refuse_unknown_flags(given, self._option_string_actions, f"{self.prog} --help")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, False) else action.help


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        show_version()


def show_version() -> NoReturn:
    """Print the project's version and end the program."""
    from earface import __version__

    print(f"earface {__version__}")
    raise SystemExit(0)


def refuse_unknown_flags(arguments: Sequence[str], known: Iterable[str], help_command: str) -> None:
    """Raise InputError for a `--flag` that is not one of `known` (`--flags` too), naming the nearest of them."""
    known = tuple(known)
    for argument in arguments:
        flag = argument.partition("=")[0]
        if argument == "--":
            return
        if flag.startswith("--") and flag not in known:
            spelled = flag.replace("_", "-")
            raise InputError(f"unrecognized arguments: {spelled}{advice_for(flag, known, help_command)}")


def advice_for(flag: str, known: Iterable[str], help_command: str) -> str:
    """The end of the report of an unknown name: the nearest known one, or where all are shown."""
    from difflib import get_close_matches

    by_spelling = {name.lstrip("-").replace("_", "-"): name for name in known}
    typed = flag.lstrip("-").replace("_", "-")
    near = get_close_matches(typed, by_spelling, n=1) or [name for name in by_spelling if name.startswith(typed)]
    if not near:
        return f" (see {help_command})"
    return f"; did you mean {f'--{near[0]}' if flag.startswith('--') else by_spelling[near[0]]}?"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one that it was raised from, is that of a GPU's memory. By its name: no torch here."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError" or any(sign in str(error) for sign in _OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Main(Protocol):
    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def entry_point(main: Callable[[Sequence[str] | None], int | None]) -> _Main:
    """Decorate an entry script's `main(argv)`: an InputError becomes one line and exit code 2.

    So do what the file system refuses and a GPU whose memory is full. What was warned of is shown at the end, and
    whatever the console's encoding is, every name can be printed.
    The decorated function returns the exit code: `sys.exit(main())`.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # not a notebook's
                stream.reconfigure(errors="backslashreplace")
        with quiet_closed_pipe(), collecting_warnings():
            try:
                code = main(argv) or 0
                show_warnings()
                return code
            except BrokenPipeError:
                raise
            except Exception as error:
                message = _one_line(error)
                if not message:
                    raise
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                return EXIT_INTERRUPTED
            print("error: " + " ".join(as_flags(message).split()), file=sys.stderr)
            return EXIT_BAD_INPUT
        return EXIT_CLOSED_PIPE

    return run


def _one_line(error: Exception) -> str:
    """What a user can do something about; empty for a fault of the program."""
    if isinstance(error, InputError):
        return str(error)
    if is_out_of_memory(error):
        return "out of GPU memory: lower `batch_size`, or use `device` cpu"
    if any(sign in str(error) for sign in _NO_SHARED_MEMORY):  # of a loader's worker, whose class is any
        return f"shared memory (/dev/shm) is full, where loader workers put batches: {SHARED_MEMORY_ADVICE}"
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{refusal(error)}"


def refusal(error: OSError) -> str:
    """What the file system says, and what to do about it."""
    advice = _ADVICE.get(error.errno or 0, "choose another place")
    return f"{error.strerror or error}: {advice}, then run the same command"


@contextmanager
def reading(path: str | os.PathLike[str], otherwise: str) -> Iterator[None]:
    """Around all that a reader does with a file: what is raised is an InputError that names the file.

    otherwise: what is said of content that the reader, or a library, fails on in any other way.
    """
    try:
        yield
    except InputError as error:
        if one_line(str(path)) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None
    except (MemoryError, RecursionError):
        raise InputError(f"{path}: {otherwise}; it asks for more memory or depth than there is") from None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a library was sent to a place that no file has
            raise InputError(f"{path}: {otherwise}") from error
        raise InputError(f"{path}: {refusal(error)}") from error
    except Exception as error:  # broken files make libraries raise almost anything
        raise InputError(f"{path}: {otherwise}") from error
