"""What a user can get wrong ends in one line on stderr and exit code 2, never in a traceback."""

from __future__ import annotations

import argparse
import errno
import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, which file, and what to do, in one line."""


class OneLineParser(argparse.ArgumentParser):
    """`argparse` without abbreviations, whose errors are one line instead of usage and message."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


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
