"""Pictures of ears to ears in one form, and teacher files of them: `earface ears prepare --images FOLDER`.

ears/SUBJECT/NAME.png                     each ear in its form; index.csv there says where it came from
train_teacher.npy, val_teacher.npy        what training reads: split by subject, no photograph on both sides
prepare_report.json                       what was left out, and why
kept.png, rejected.png, histograms.png    to look at

Of `--fit stretch` the teacher files name the pictures as they come.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.data.options import EAR_RESULTS, EarPreparationOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Read, locate, split, check, write; 0, or 2 with one line on stderr."""
    options = parse_options(EarPreparationOptions, argv, prog="earface ears prepare")
    pattern = None if options.subject_pattern is None else _compiled(options.subject_pattern)
    require_folder(Path(options.images))
    for path in filter(None, (options.index, options.splits, options.landmarker, options.detector)):
        require_file(path)
    _make_folder(Path(options.out), options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from rich.console import Console

        from earface.data.ear_preparation import prepare_ears

    prepare_ears(options, pattern, Console())
    return 0


def _make_folder(out: Path, overwrite: bool) -> None:
    """Before hours of reading."""
    try:
        output_folder(out, EAR_RESULTS, overwrite)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` {out}: {error.strerror}") from None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"`subject_pattern` {pattern}: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
