"""Text files that somebody else wrote, in whatever encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

from earface.core.errors import InputError
from earface.core.files import LFS_ADVICE, is_lfs_pointer
from earface.core.notices import warn


def decoded(content: bytes, path: Path) -> str:
    """The text of a file: UTF-8, UTF-16 by its mark, else Windows-1252 with a warning.

    Raises InputError for what is no text.
    """
    if is_lfs_pointer(content):
        raise InputError(f"{path}: {LFS_ADVICE}")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(content) % 2 == 0
    if b"\0" in content and not wide:
        raise InputError(f"{path}: not a text file")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        problem = error
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8 ({problem}): save it in UTF-8") from None
    line = content.count(b"\n", 0, problem.start) + 1
    warn(f"{path}: is not UTF-8 (line {line}) and was read as Windows-1252: check its names, or save it in UTF-8")
    return text
