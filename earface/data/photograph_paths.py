"""Which files annotations are of: names that another program or computer wrote, and files that nobody wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.folders import DataRoot, is_hidden, list_images

UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file


class PhotographPaths:
    """Resolves the names of photographs in a file of annotations.

    Where the user names the folder that they lie in, a name that leads to no file there (`C:\\ears\\1.jpg`,
    `/data/local-files/?d=ears/1.jpg`, `my%20ear.jpg`) means the picture of that name below the folder, if there is one
    alone, or one alone of which the folder agrees too.
    """

    def __init__(self, source: Path, folder: str | os.PathLike[str] | None) -> None:
        """source: the file of annotations. folder: that relative names start from; None: that of `source`."""
        self.source, self.searched = source, folder is not None
        self._root = DataRoot(source.parent if folder is None else folder)
        self._by_name: dict[str, list[Path]] | None = None
        self._num_found = 0

    def resolve(self, written: str) -> Path:
        """Raises InputError for a name that may not be followed, and for one that several pictures have."""
        try:
            path, problem = self._root.resolve(written), None
        except InputError as error:
            if not self.searched or not written or "\0" in written:
                raise
            path, problem = None, error
        if not self.searched or (path is not None and _is_file(path)):
            assert path is not None
            return path
        found = self._below(written)
        if found is not None:
            self._num_found += 1
            return found
        if problem is not None:
            raise problem
        assert path is not None
        return path  # missing: reported with the others

    def report(self) -> None:
        """Warn of the names that were not followed."""
        if self._num_found:
            warn(
                f"{self.source}: {self._num_found} of its file names lead nowhere, and the pictures of these names "
                f"below {self._root.folder} were taken"
            )

    def _below(self, written: str) -> Path | None:
        if self._by_name is None:
            self._by_name = {}
            for path in list_images(self._root.folder):
                self._by_name.setdefault(path.name, []).append(path)
        for parts in _readings(written):
            if candidates := self._by_name.get(parts[-1]):
                return self._alone(written, parts, candidates)
        return None

    def _alone(self, written: str, parts: list[str], candidates: list[Path]) -> Path:
        agreed = [_agreement(path, parts) for path in candidates]
        best = [path for path, count in zip(candidates, agreed, strict=True) if count == max(agreed)]
        if len(best) > 1:
            raise InputError(f"{written} may be {best[0]} or {best[1]}: write which, below {self._root.folder}")
        return best[0]


def visible_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Those below `folder` that match, without hidden ones and those in a system's own folders."""
    for path in sorted(folder.rglob(pattern)):
        if not any(map(is_hidden, path.relative_to(folder).parts)) and path.is_file():
            yield path


def _readings(written: str) -> Iterator[list[str]]:
    """The parts of a name as it stands, of a URL, and of an uploaded file."""
    plain = re.split(r"[\\/]+", written)
    address = re.split(r"[\\/]+", unquote(re.sub(r".*[?&]d=", "", written).partition("?")[0]))
    for parts in (plain, address, [*address[:-1], UPLOADED.sub("", address[-1], count=1)]):
        if parts[-1]:
            yield parts


def _agreement(path: Path, parts: list[str]) -> int:
    """How many parts two paths share at their end."""
    pairs = zip(reversed(path.parts), reversed(parts), strict=False)
    return next((count for count, (first, second) in enumerate(pairs) if first != second), len(parts))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long
        return False
