"""Embeddings of ears as a table; search, clusters, projector."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ear_teacher.embeddings.neighbors import MEASURE, center_of, cluster, most_similar
from ear_teacher.embeddings.plots import CLUSTER_COLUMNS, PROJECTOR, Shown, save_clusters, save_neighbors
from ear_teacher.embeddings.sources import (
    EarReader,
    EarSource,
    encode_sources,
    image_sources,
    read_ears,
    sources_of_table,
)
from ear_teacher.embeddings.table import Embeddings, check_extension, read_embeddings
from ear_teacher.loading import TrainedEarVAE
from ear_teacher.options import DEFAULT_OUT, EarEmbeddingOptions
from earface.core.errors import InputError
from earface.core.files import refuse_to_replace
from earface.core.progress import progress
from earface.data.images import read_image
from earface.metrics.identification import unit_rows


def say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def read_tables(paths: Sequence[str], trained: TrainedEarVAE, logvar: bool) -> list[Embeddings]:
    """Raises InputError for a table made by other weights, and for one without logvar if `logvar`."""
    tables = []
    for path in paths:
        table = read_embeddings(Path(path))
        if table.metadata["digest"] != trained.digest:
            made_by = table.metadata.get("checkpoint", "another checkpoint")
            raise InputError(
                f"{path}: made by other weights ({made_by}, {table.metadata.get('weights')}) than those of "
                f"{trained.source} ({trained.weights}): encode its pictures again with `input`"
            )
        if logvar and table.logvar is None:
            raise InputError(f"{path}: holds no logvar; encode its pictures again with `input` and `logvar`")
        tables.append(table)
    return tables


def encode(
    trained: TrainedEarVAE,
    sources: Sequence[EarSource],
    reader: EarReader,
    device: str,
    batch_size: int,
    logvar: bool,
    console: Console,
) -> Embeddings:
    """The table of the readable pictures; prints the speed and the unreadable ones."""
    start = time.perf_counter()
    with progress("encoding ears", len(sources)) as state:
        found = encode_sources(
            trained.model, sources, batch_size=batch_size, device=device, reader=reader, progress=state.update
        )
    seconds = time.perf_counter() - start
    rate = f"{len(found.kept)} ears in {seconds:.1f} s, {len(found.kept) / seconds:.0f} images/s on {device}"
    say(console, rate)
    if found.skipped:
        say(console, f"{len(found.skipped)} of {len(sources)} pictures cannot be used and are left out:")
        for name, reason in found.skipped:
            say(console, f"  {name}: {reason}")
    kept = [sources[index] for index in found.kept]
    subjects, boxes = [source.subject for source in kept], np.stack([source.box for source in kept])
    return Embeddings(
        paths=[source.name for source in kept],
        embeddings=found.mu,
        metadata={"skipped": [list(entry) for entry in found.skipped]},
        logvar=found.logvar if logvar else None,
        subjects=subjects if any(subjects) else None,
        boxes=boxes if np.isfinite(boxes).any() else None,
    )


def describe(trained: TrainedEarVAE, parts: Sequence[Embeddings]) -> dict[str, Any]:
    """The table's metadata."""
    config = trained.model.config
    return {
        "checkpoint": str(trained.source),
        "digest": trained.digest,
        "weights": trained.weights,
        "image_size": config.image_size,
        "in_channels": config.in_channels,
        "latent_dim": config.latent_dim,
        "contract": config.contract,
        "skipped": [entry for part in parts for entry in part.metadata.get("skipped", [])],
    }


def shown(table: Embeddings, rows: NDArray[np.int64], channels: int) -> list[Shown]:
    sources = sources_of_table(table.paths, table.boxes)
    pictures = read_ears([sources[row] for row in rows], channels)
    subjects = table.subjects or [""] * len(table)
    return [Shown(picture, table.paths[row], subjects[row]) for row, picture in zip(rows, pictures, strict=True)]


def search(
    trained: TrainedEarVAE,
    table: Embeddings,
    query: str,
    reader: EarReader,
    top_k: int,
    out: Path,
    device: str,
    console: Console,
) -> None:
    """Print the `top_k` ears most similar to a picture, or as many as there are, and draw them.

    Its own rows in the table are excluded.
    """
    channels = trained.model.config.in_channels
    name, real = Path(query).name, os.path.realpath(query)
    own = np.array([path.endswith(name) and os.path.realpath(path) == real for path in table.paths])
    if own.any():  # as it was encoded there, possibly cropped to its box
        row = int(np.argmax(own))
        asked, mu = shown(table, np.array([row]), channels)[0], table.embeddings[row]
    else:
        source = image_sources([Path(query)], Path(query))
        mu = encode_sources(trained.model, source, batch_size=1, device=device, reader=reader).mu[0]
        asked = Shown(source[0].read(channels), query, "")
    top_k = min(top_k, int(np.count_nonzero(~own)))
    if top_k == 0:
        raise InputError(f"`search` {query}: the table has no ears besides the picture itself")
    center = center_of(trained.model)
    rows, similarity = most_similar(unit_rows(table.embeddings, center), unit_rows(mu[None], center)[0], top_k, own)
    neighbors = list(zip(shown(table, rows, channels), similarity.tolist(), strict=True))
    save_neighbors(out, asked, neighbors)
    say(console, f"most similar to {query}, by {MEASURE}:")
    for rank, (neighbor, cosine) in enumerate(neighbors, 1):
        subject = f"  subject {neighbor.subject}" if neighbor.subject else ""
        say(console, f"{rank:4d}  {cosine:7.4f}{subject}  {neighbor.name}")
    say(console, f"picture of the search: {out}")


def group(trained: TrainedEarVAE, table: Embeddings, count: int, out: Path, console: Console) -> Embeddings:
    """The table with a cluster column; writes an image grid of the ears nearest each centre."""
    if count > len(table):
        raise InputError(f"`clusters` {count}: there are {len(table)} ears")
    found = cluster(unit_rows(table.embeddings, center_of(trained.model)), count)
    members = [np.flatnonzero(found.label == label) for label in range(count)]
    nearest = [rows[np.argsort(-found.similarity[rows], kind="stable")[:CLUSTER_COLUMNS]] for rows in members]
    pictures = iter(shown(table, np.concatenate(nearest), trained.model.config.in_channels))
    rows_of_clusters = []
    for label, (rows, chosen) in enumerate(zip(members, nearest, strict=True)):
        people = len({table.subjects[row] for row in rows} - {""}) if table.subjects else 0
        name = f"cluster {label}\n{len(rows)} ears" + (f"\n{people} subject{'s' * (people > 1)}" if people else "")
        rows_of_clusters.append((name, [next(pictures).picture for _ in chosen]))
    save_clusters(out, rows_of_clusters)
    sizes = " ".join(str(len(rows)) for rows in members)
    say(console, f"{count} clusters, sizes {sizes}; image grid: {out}")
    return dataclasses.replace(table, cluster=found.label)


def check_places(options: EarEmbeddingOptions) -> Path:
    """The path of the table, written or not: pictures are named after it.

    Raises InputError if a path cannot be used, or if a file there may not be replaced.
    """
    out = Path(options.out or (DEFAULT_OUT if options.input else options.embeddings[0]))
    check_extension(out)
    if out.is_dir():
        raise InputError(f"`out` {out}: is a folder; give a file")
    if options.projector and Path(options.projector).exists() and not Path(options.projector).is_dir():
        raise InputError(f"`projector` {options.projector}: is a file; give a folder")
    if options.search:
        if not Path(options.search).is_file():
            raise InputError(f"`search` {options.search}: no such picture")
        read_image(options.search)
    written = [out] * bool(options.out or options.input)
    written += [clusters_picture(out)] * bool(options.clusters)
    written += [search_picture(out, options.search)] if options.search else []
    refuse_to_replace(written, options.overwrite)
    if options.projector:
        refuse_to_replace([Path(options.projector) / PROJECTOR], options.overwrite, "`projector`")
    return out


def clusters_picture(out: Path) -> Path:
    return out.with_name(f"{out.stem}_clusters.png")


def search_picture(out: Path, query: str) -> Path:
    return out.with_name(f"{out.stem}_search_{Path(query).stem}.png")
