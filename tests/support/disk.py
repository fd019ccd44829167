"""Disks that fill up."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails, as on a full disk: Python ignores SIGXFSZ."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_with_small_disk(folder: Path, size: str, command: str) -> subprocess.CompletedProcess[str]:
    """A shell's command that sees a file system of `size` (as `64k`) at `folder`. Skips where none can be mounted."""
    mount = f"mkdir -p {folder} && mount -t tmpfs -o size={size} tmpfs {folder}"
    private = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*private, mount], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    return subprocess.run([*private, f"{mount} && {command}"], capture_output=True, text=True)
