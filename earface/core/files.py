"""Files that appear whole or not at all, and the folders and the room for them.

A file is written under a temporary name beside the target, synced, then renamed.
"""

from __future__ import annotations

import errno
import filecmp
import functools
import glob
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.core.limits import MAX_JSON_BYTES

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of an exported folder
LFS_ADVICE = "is Git LFS's pointer to the file: fetch the file itself by git lfs pull"
ABANDONED_AFTER_S = 24 * 3600.0  # a live writer touches its file more often than that
_TEMPORARY = re.compile(r"\..+\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}|[0-9a-f]{16})\.tmp")


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, sync: bool = True, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` (folders are made); on success it becomes `path`, on failure it goes.

    The body creates, fills and closes the file at the yielded path, whose name ends in `.tmp` whatever the suffix of
    `path`, so that no glob for finished files finds it. Readers and concurrent writers of `path` see an old or a new
    file, never a part of one: the last to finish wins. An OSError of the body (a full disk) names `path`.
    sync=False skips the flush to disk, for many small files that can be made again after a power cut.
    private: only the owner may read it (mode 600), for what people can be found by.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # names are limited to 255 bytes
    temporary = target.parent / f".{target.name[:60]}.{this_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        if private:
            temporary.chmod(0o600)
        if sync:
            _flush_to_disk(temporary, os.O_RDWR)
        temporary.replace(target)
    except OSError as error:
        if error.filename is None or os.fsdecode(error.filename) == str(temporary):
            error.filename = str(target)  # write() names no file, open() the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if sync and os.name != "nt":
        with suppress(OSError):  # some network file systems cannot sync a folder
            _flush_to_disk(target.parent, os.O_RDONLY)


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove what killed writers have left in `folder`: temporary files whose process is gone.

    Those of other machines, whose processes are not known here, once they are more than a day old.
    """
    oldest_alive = time.time() - ABANDONED_AFTER_S
    for temporary in Path(folder).glob(".*.tmp"):
        if named := _TEMPORARY.fullmatch(temporary.name):
            with suppress(OSError):  # another process may remove it first
                gone = named["machine"] == this_machine() and not is_running(int(named["process"]))
                if gone or temporary.stat().st_mtime < oldest_alive:
                    temporary.unlink()


def is_running(process: int) -> bool:
    """Whether there is such a process on this machine; on Windows, which has no harmless way to ask, always."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        return True
    return True


@functools.cache
def this_machine() -> str:
    """The same for processes that see each other: of one host, since it started, and in one container."""
    seen = [platform.node()]
    with suppress(OSError):
        seen.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        seen.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(seen).encode()).hexdigest()[:8]


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_to_replace(paths: Iterable[Path], overwrite: bool, flag: str = "`out`") -> None:
    """Before any work: raise InputError where a file that will be written is there, unless it may be replaced.

    flag: that names the place, for the error's line.
    """
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}: is there already{more}; `overwrite` replaces, or give another {flag}")


def results_in(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files in `folder` that have one of the names, which may be patterns."""
    return [path for name in names for path in sorted(folder.glob(name))]


def remove_results(folder: Path, names: Iterable[str]) -> None:
    """Delete what an earlier call wrote and this one does not: nobody shall take it for this one's."""
    for path in results_in(folder, names):
        path.unlink()


def output_folder(out: Path, results: Iterable[str], overwrite: bool) -> Path:
    """`out`, for `results`: names, or patterns of names; whoever writes the first makes the folder.

    Raises InputError if it is a file, and if it holds one of them and these may not be replaced.
    """
    check_folder(out, f"`out` {out}")
    refuse_to_replace(results_in(out, results), overwrite)
    return out


def require_empty(out: Path, overwrite: bool) -> None:
    """For a set of pictures: raise InputError if `out` is a file, or holds anything and may not be written into."""
    check_folder(out, f"`out` {out}")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: choose another `out`, or give `overwrite` to replace the set in it")


def is_lfs_pointer(content: bytes) -> bool:
    """Whether a file that begins so stands for one that Git LFS has not fetched."""
    return content.startswith(b"version https://git-lfs")


def refuse_lfs_pointer(path: Path) -> None:
    """Raise InputError for such a file; one that cannot be read is for its reader."""
    with suppress(OSError), path.open("rb") as stream:
        if is_lfs_pointer(stream.read(64)):
            raise InputError(f"{path}: {LFS_ADVICE}")


def write_json(path: Path, metrics: Mapping[str, Any]) -> None:
    """JSON; what is not finite (the PSNR of a perfect reconstruction) becomes null, which JSON has."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds, in any of Unicode's encodings. Raises InputError for anything else."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path}: more than the limit of {MAX_JSON_BYTES:,} bytes")
        refuse_lfs_pointer(path)
        return json.loads(path.read_bytes())  # bytes: json finds their encoding and skips a byte order mark
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def check_free_space(path: Path, wanted: int) -> None:
    """Raise InputError unless `wanted` bytes of decoded pictures fit where `path` is to be, whose folder is made.

    Raises OSError where nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "statvfs") and os.statvfs(path.parent).f_flag & os.ST_RDONLY:  # which may say that it has no room
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path.parent))
    free = shutil.disk_usage(path.parent).free
    if free < wanted:
        raise InputError(
            f"{path.parent}: {wanted / 1e9:.2f} GB wanted for decoded pictures, {free / 1e9:.2f} GB free: "
            "free some space or choose another cache folder"
        )


def check_folder(folder: Path, name: str) -> None:
    """Raise InputError unless files can be put in `folder`, which need not be there yet. name: what is reported."""
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not nearest.is_dir():
        which = "" if name.endswith(str(nearest)) else f"{nearest} "
        raise InputError(f"{name}: {which}is a file; give a folder")


def require_checkpoint(path: str | Path) -> Path:
    """The file itself, the newest match of a glob, or last.ckpt of a run's folder.

    Raises InputError when there is none.
    """
    if Path(path).is_file():
        return Path(path)
    if Path(path).is_dir():
        last = last_of_run(path)
        if last is None:
            raise InputError(f"{path}: a folder without last.ckpt; give a run's folder, or a .ckpt file")
        return last
    folder, name = Path(path).parent, Path(path).name
    found = glob.glob(str(path)) or (folder.glob(name) if name else ())  # a folder called [2026] is no pattern
    matches = [Path(match) for match in found if Path(match).is_file() and not Path(match).name.startswith(".")]
    if not matches:
        raise InputError(f"{path}: no such checkpoint; give the path of a .ckpt file, or a quoted pattern of some")
    return max(matches, key=lambda match: match.stat().st_mtime_ns)


def last_of_run(folder: str | Path) -> Path | None:
    """last.ckpt of a run, by its folder or by that of its checkpoints; None where there is none."""
    places = (Path(folder) / "last.ckpt", Path(folder) / "checkpoints" / "last.ckpt")
    return next((place for place in places if place.is_file()), None)


def is_exported(path: str | Path) -> bool:
    """Whether it is a folder, and not that of a run."""
    return Path(path).is_dir() and last_of_run(path) is None


def require_trained(path: str | Path) -> None:
    """Raise InputError for what is neither a folder nor what `require_checkpoint` finds."""
    if not Path(path).is_dir():
        require_checkpoint(path)


def require_path(path: str | Path, advice: str = "") -> None:
    """Raise InputError where there is neither a file nor a folder. advice: what to do, for the error's line."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder{advice and f'; {advice}'}")


def require_file(path: str | Path, advice: str = "") -> None:
    """Raise InputError where there is no file, as reading it would. advice: what to do, for the error's line."""
    try:
        Path(path).stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{path}: {reason}{advice and f'; {advice}'}") from None


def require_other_file(path: str | Path, trained_on: Iterable[str | Path]) -> None:
    """Raise InputError where a validation file is one that is trained on, or a copy of it."""
    for other in trained_on:
        if Path(path).samefile(other) or filecmp.cmp(path, other, shallow=False):
            same = "" if Path(path) == Path(other) else f" ({other})"
            raise InputError(f"{path}: is the file that is trained on{same}: validate on other people")


def require_folder(folder: str | os.PathLike[str]) -> None:
    """Raise InputError where there is no folder."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: {'not a folder' if Path(folder).exists() else 'no such folder'}")


def check_npz_name(path: Path) -> None:
    """Raise InputError for a table of embeddings that is not named as one."""
    if path.suffix != ".npz":
        raise InputError(f"{path}: unknown extension {path.suffix!r}; use .npz")
