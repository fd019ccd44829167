"""Ears to embeddings, a batch at a time, whichever model makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from ear_teacher.ear_reader import EarReader, EarSource, NoEarError
from earface.core.errors import InputError
from earface.core.progress import progress as progress_of
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead
from earface.data.pixels import to_model_range

Encode = Callable[[Tensor], tuple[Tensor, ...]]  # ears (B, C, S, S) in [-1, 1] to values (B, D) of each


@dataclass(frozen=True)
class Encoded:
    """The sources that could be used, in their order."""

    kept: list[int]  # (N,) which sources
    values: tuple[NDArray[np.float32], ...]  # (N, D) each: what the model makes of them
    sides: list[str]  # (N,) l, r, or empty where unknown
    skipped: list[tuple[str, str]]  # name, reason


@torch.no_grad()
def encode_sources(
    encode: Encode,
    sources: Sequence[EarSource],
    reader: EarReader,
    *,
    batch_size: int,
    device: str,
    progress: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Read, bring into form and encode one batch at a time; a row depends on its ear alone if it does in `encode`.

    progress: called with the number of sources processed. Raises InputError when more than 5 % cannot be read, or no
    ear is found at all.
    """

    def read(source: EarSource) -> tuple[Pixels, str] | InputError:
        try:
            return reader.read(source)
        except InputError as error:
            return error

    kept: list[int] = []
    sides: list[str] = []
    batch: list[Pixels] = []
    parts: list[list[Tensor]] = []
    skipped: list[tuple[str, str]] = []
    unreadable = 0
    for index, found in enumerate(read_ahead(read, sources)):
        if isinstance(found, InputError):
            name = sources[index].name
            skipped.append((name, str(found).removeprefix(f"{name}: ")))
            unreadable += not isinstance(found, NoEarError)
            if unreadable > MAX_UNREADABLE * len(sources) or len(skipped) == len(sources):
                raise InputError(_too_many(skipped, len(sources)))
        else:
            kept.append(index)
            batch.append(found[0])
            sides.append(found[1])
        if batch and (len(batch) == batch_size or index + 1 == len(sources)):
            images = to_model_range(torch.from_numpy(np.stack(batch)).to(device))
            parts.append([part.float().cpu() for part in encode(images)])
            batch = []
        progress(index + 1)
    return Encoded(kept, tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True)), sides, skipped)


def encode_aloud(
    encode: Encode, sources: Sequence[EarSource], reader: EarReader, *, batch_size: int, device: str, console: Console
) -> Encoded:
    """`encode_sources`, which shows its progress, and prints the speed and what is left out."""
    start = time.perf_counter()
    with progress_of("encoding ears", len(sources)) as state:
        found = encode_sources(encode, sources, reader, batch_size=batch_size, device=device, progress=state.update)
    seconds = time.perf_counter() - start
    say(console, f"{len(found.kept)} ears in {seconds:.1f} s, {len(found.kept) / seconds:.0f} images/s on {device}")
    if found.skipped:
        say(console, f"{len(found.skipped)} of {len(sources)} pictures cannot be used and are left out:")
        for name, reason in found.skipped:
            say(console, f"  {name}: {reason}")
    return found


def say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _too_many(skipped: list[tuple[str, str]], count: int) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
    if count == 1:
        return first
    return f"{len(skipped)} or more of {count} pictures cannot be used, over {MAX_UNREADABLE:.0%}: {first}"
