"""Files that are downloaded once, checked, and found again without a network."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.core.needed import MissingWeightsError
from earface.core.progress import progress

OFFLINE_TIMEOUT_S = 5.0  # huggingface_hub alone retries for nearly a minute before it says that there is no network


def check_sha256(path: Path, expected: str) -> None:
    """Raises InputError if the file's digest is another."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(f"{path}: its SHA-256 is {found[:16]}..., {expected[:16]}... wanted: delete it and try again")


def download(url: str, path: Path, sha256: str | None, *, what: str, advice: str) -> None:
    """A file from an address to `path`, whole and with this digest or not at all.

    what: whose weights it holds, advice: what to do instead; for the error's line. Raises InputError within seconds
    where it cannot be had.
    """
    try:
        with atomic_write(path) as temporary:
            with (
                progress(f"downloading {url}"),
                urllib.request.urlopen(url, timeout=OFFLINE_TIMEOUT_S) as source,
                temporary.open("wb") as stream,
            ):
                shutil.copyfileobj(source, stream)
            if hashlib.sha256(temporary.read_bytes()).hexdigest() != sha256:
                raise InputError(f"{url}: not the file that was published; {advice}")
    except (OSError, http.client.HTTPException) as error:
        raise MissingWeightsError(what, url, _shortly(error), advice) from error


def hub_file(repository: str, files: Sequence[str], *, revision: str | None = None, what: str, advice: str) -> str:
    """The path of the first of `files` that a repository on the Hugging Face hub has: cached, or downloaded now.

    what: whose weights they are, advice: what to do instead; for the error's line. Raises InputError within seconds
    where none can be had.
    """
    for file in files:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return cached
    url = hub.hf_hub_url(repository, files[0], revision=revision)
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", OFFLINE_TIMEOUT_S))
    for file in files:
        try:
            # One request that is not repeated shows whether there is a network; the download's own would retry.
            with progress(f"asking for {file} of {repository}"):
                hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision), timeout=timeout)
            with progress(f"downloading {file} of {repository}"):
                return hub.hf_hub_download(repository, file, revision=revision)
        except EntryNotFoundError:
            continue
        except Exception as error:  # the client's own kinds of failure differ between its versions
            raise MissingWeightsError(what, url, _shortly(error), advice) from error
    raise MissingWeightsError(what, url, "no such file there", advice)


def _shortly(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
