"""Which pictures a folder holds, and the paths that a file beside them may name."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath

from earface.core.errors import InputError
from earface.core.files import require_folder
from earface.core.notices import warn
from earface.data.picture_formats import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    UNREAD_EXTENSIONS,
    looks_like_picture,
    reason_unread,
)

# thumbnails, rubbish and snapshots of Synology, QNAP, macOS and Windows; what begins with a dot is hidden everywhere
SYSTEM_FOLDERS = (
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@thumb", "__macosx"),
    *("__pycache__", "$recycle.bin", "system volume information", "lost+found"),
)
SHOWN = 3


@dataclass
class FolderPictures:
    """What is below a folder."""

    folder: Path
    paths: list[Path] = field(default_factory=list)  # sorted by their relative path
    left_out: list[tuple[Path, str]] = field(default_factory=list)  # what may be a picture and is not read, and why

    def names_left_out(self) -> list[tuple[str, str]]:
        """`left_out` by the name below the folder, as reports list it."""
        return [(path.relative_to(self.folder).as_posix(), reason) for path, reason in self.left_out]

    def described(self) -> str:
        """What was left out, in a line; empty if nothing was."""
        if not self.left_out:
            return ""
        kinds = ", ".join(f"{count} {reason}" for reason, count in Counter(why for _, why in self.left_out).items())
        names = [name for name, _ in self.names_left_out()]
        more = ", ..." if len(names) > SHOWN else ""
        return f"{len(names)} left out: {kinds} ({', '.join(names[:SHOWN])}{more})"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's rather than the user's."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def scan_images(folder: str | os.PathLike[str]) -> FolderPictures:
    """Every picture below `folder`: known extensions, in any case.

    Links are followed, but for one to what is listed anyway. Hidden and system folders are none of the user's.
    Raises InputError if there is no such folder.
    """
    require_folder(folder)
    walk = _Walk(Path(folder))
    walk.into(walk.folder)
    walk.follow_links()
    walk.paths.sort(key=walk.order)
    walk.left_out.sort(key=lambda entry: walk.order(entry[0]))
    return FolderPictures(walk.folder, walk.paths, walk.left_out)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The paths of `scan_images`, with a warning of what is left out.

    Raises InputError if there is none, as for a folder that does not exist.
    """
    found = scan_images(folder)
    described = found.described()
    if not found.paths:
        raise InputError(f"{folder}: holds no pictures ({', '.join(EXTENSIONS)}){described and f'; {described}'}")
    if described:
        warn(f"{folder}: {described}", [f"{name}: {reason}" for name, reason in found.names_left_out()])
    return found.paths


def pictures_at(path: str | os.PathLike[str]) -> list[Path]:
    """The picture at `path`, or those of the folder there, as `list_images`. Raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        return list_images(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"{path}: neither a picture ({', '.join(EXTENSIONS)}) nor a folder")
    return [path]


class _Walk:
    """Collects the pictures; real folders first, so that of a folder and a link to it the folder is listed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self.left_out: list[tuple[Path, str]] = []
        self.real: dict[Path, Path] = {}  # each folder, and what it is after following links
        self.linked_folders: list[Path] = []
        self.linked_files: list[Path] = []

    def into(self, folder: Path) -> None:
        for parent, folders, names in os.walk(folder, onerror=self._refused):
            self.real[Path(parent)] = Path(parent).resolve()
            shown = [Path(parent, name) for name in folders if not is_hidden(name)]
            self.linked_folders += [path for path in shown if path.is_symlink()]
            folders[:] = [path.name for path in shown if not path.is_symlink()]
            for name in names:
                if not is_hidden(name):
                    self._file(Path(parent, name))

    def follow_links(self) -> None:
        while self.linked_folders:
            link = min(self.linked_folders)
            self.linked_folders.remove(link)
            if link.resolve() in self.real.values():
                self.left_out.append((link, "linked to a folder that is listed itself"))
            else:
                self.into(link)
        listed = {self.real[path.parent] / path.name for path in self.paths} if self.linked_files else set()
        for link in self.linked_files:
            if link.resolve() in listed:
                self.left_out.append((link, "linked to a picture that is listed itself"))
            else:
                self.paths.append(link)

    def order(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.folder).parts

    def _file(self, path: Path) -> None:
        extension = path.suffix.lower()
        if extension in OTHER_EXTENSIONS:
            return
        linked = path.is_symlink()
        if linked and not path.exists():
            self.left_out.append((path, "linked to what is not there (fetch it, as by dvc pull or datalad get)"))
        elif extension in EXTENSIONS:
            (self.linked_files if linked else self.paths).append(path)
        elif extension in UNREAD_EXTENSIONS or looks_like_picture(path):
            self.left_out.append((path, reason_unread(extension)))

    def _refused(self, error: OSError) -> None:
        self.left_out.append((Path(os.fsdecode(error.filename)), f"in a folder that cannot be read ({error.strerror})"))


class DataRoot:
    """The folder that relative paths of an NPY, CSV or JSON start from and may not leave."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        require_folder(folder)

    def resolve(self, written: str | PurePath) -> Path:
        """The path meant by what a file says; backslashes and drive letters are read the Windows way.

        Absolute paths are returned as written, relative ones below the folder, with `..` worked out before links are
        followed. Raises InputError for an empty path, one with a NUL, and a relative one that leaves the folder.
        """
        text = str(written)
        if not text or "\0" in text:
            raise InputError(f"{text!r} is not a path")
        windows = PureWindowsPath(text)
        if isinstance(written, PureWindowsPath) or windows.drive or ("\\" in text and not text.startswith("/")):
            written = Path(windows) if os.name == "nt" else Path(windows.as_posix())
        path = Path(written)
        if path.is_absolute() or windows.anchor:
            return path
        parts = path.parts
        if ".." in parts:
            parts = PurePath(posixpath.normpath(path.as_posix())).parts
            if parts[:1] == ("..",):
                raise InputError(f"{text!r} leaves {self.folder}: write it as an absolute path if that is meant")
        return self.folder.joinpath(*parts)

    def written(self, path: Path) -> str:
        """How a file in this folder names `path`: relative where it lies below, so that both can be moved."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
        folder = Path(os.path.abspath(self.folder))  # noqa: PTH100
        return (absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute).as_posix()
