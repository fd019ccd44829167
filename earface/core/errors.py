"""What a user can get wrong ends in one line on stderr and exit code 2, never in a traceback."""

from __future__ import annotations

import argparse
import errno
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, which file, and what to do, in one line."""


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
            raise InputError(f"unrecognized arguments: {flag}{advice_for(flag, known, help_command)}")


def advice_for(flag: str, known: Iterable[str], help_command: str) -> str:
    """The end of the report of an unknown name: the nearest known one, or where all are shown."""
    from difflib import get_close_matches

    by_spelling = {name.lstrip("-").replace("_", "-"): name for name in known}
    typed = flag.lstrip("-").replace("_", "-")
    near = get_close_matches(typed, by_spelling, n=1) or [name for name in by_spelling if name.startswith(typed)]
    return f"; did you mean {by_spelling[near[0]]}?" if near else f" (see {help_command})"


class _Main(Protocol):
    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def entry_point(main: Callable[[Sequence[str] | None], int | None]) -> _Main:
    """Decorate an entry script's `main(argv)`: input errors and a full disk become one line and exit code 2.

    The decorated function returns the exit code: `sys.exit(main())`.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except InputError as error:
            message = str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
                raise
            where = f" while writing {error.filename}" if error.filename else ""
            message = f"{error.strerror}{where}: free some space or choose another folder, then run the same command"
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        print("error: " + " ".join(message.split()), file=sys.stderr)
        return EXIT_BAD_INPUT

    return run
