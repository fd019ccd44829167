"""Embeddings of ears as a table; search, clusters, projector."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ear_teacher.ear_reader import EarReader, EarSource, image_sources
from ear_teacher.embeddings.embedder import TITLES, EarEmbedder
from ear_teacher.embeddings.neighbors import Clusters, cluster, most_similar
from ear_teacher.embeddings.plots import CLUSTER_COLUMNS, Shown, save_clusters, save_neighbors
from ear_teacher.embeddings.sources import read_ears, sources_of_table
from ear_teacher.embeddings.table import Embeddings, read_embeddings
from ear_teacher.encoding import encode_aloud, encode_sources, say
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.metrics.identification import unit_rows


def check_logvar(embedder: EarEmbedder) -> None:
    """Raise InputError for a model whose embeddings have no log variances."""
    if not embedder.has_logvar:
        raise InputError(f"`logvar`: {embedder.source} is an {embedder.title}, whose embeddings have no log variances")


def read_tables(paths: Sequence[str], embedder: EarEmbedder, logvar: bool) -> list[Embeddings]:
    """Raises InputError for a table made by another model or other weights, and for one without logvar if `logvar`."""
    tables = []
    for path in paths:
        table = read_embeddings(Path(path))
        kind = str(table.metadata.get("kind", EarVAE.format.kind))  # older tables name none
        if kind != embedder.kind:
            raise InputError(
                f"{path}: made by an {TITLES.get(kind, kind)}, and {embedder.source} is an {embedder.title}: "
                "encode its pictures again with `input`"
            )
        if table.metadata["digest"] != embedder.digest:
            made_by = table.metadata.get("checkpoint", "another checkpoint")
            raise InputError(
                f"{path}: made by other weights ({made_by}, {table.metadata.get('weights')}) than those of "
                f"{embedder.source} ({embedder.weights}): encode its pictures again with `input`"
            )
        if logvar and table.logvar is None:
            raise InputError(f"{path}: holds no logvar; encode its pictures again with `input` and `logvar`")
        tables.append(table)
    return tables


def encode(
    embedder: EarEmbedder,
    sources: Sequence[EarSource],
    reader: EarReader,
    device: str,
    batch_size: int,
    logvar: bool,
    console: Console,
) -> Embeddings:
    """The table of the readable pictures; prints the speed and the unreadable ones."""
    found = encode_aloud(embedder.encode, sources, reader, batch_size=batch_size, device=device, console=console)
    kept = [sources[index] for index in found.kept]
    subjects, boxes = [source.subject for source in kept], np.stack([source.box for source in kept])
    return Embeddings(
        paths=[source.name for source in kept],
        embeddings=found.values[0],
        metadata={"skipped": [list(entry) for entry in found.skipped]},
        logvar=found.values[1] if logvar else None,
        subjects=subjects if any(subjects) else None,
        boxes=boxes if np.isfinite(boxes).any() else None,
    )


def describe(embedder: EarEmbedder, parts: Sequence[Embeddings]) -> dict[str, Any]:
    """The table's metadata."""
    return {
        "kind": embedder.kind,
        "checkpoint": str(embedder.source),
        "digest": embedder.digest,
        "weights": embedder.weights,
        "image_size": embedder.form.image_size,
        "in_channels": embedder.form.in_channels,
        **embedder.shape,
        "contract": embedder.form.contract,
        "skipped": [entry for part in parts for entry in part.metadata.get("skipped", [])],
    }


def shown(table: Embeddings, rows: NDArray[np.int64], channels: int) -> list[Shown]:
    sources = sources_of_table(table.paths, table.boxes)
    pictures = read_ears([sources[row] for row in rows], channels)
    subjects = table.subjects or [""] * len(table)
    return [Shown(picture, table.paths[row], subjects[row]) for row, picture in zip(rows, pictures, strict=True)]


def search(
    embedder: EarEmbedder,
    table: Embeddings,
    query: str,
    reader: EarReader,
    top_k: int,
    out: Path | None,
    device: str,
    console: Console,
) -> None:
    """Print the `top_k` ears most similar to a picture, or as many as there are, and draw them into `out`.

    Its own rows in the table are excluded.
    """
    channels = embedder.form.in_channels
    name, real = Path(query).name, os.path.realpath(query)
    own = np.array([path.endswith(name) and os.path.realpath(path) == real for path in table.paths])
    if own.any():  # as it was encoded there, possibly cropped to its box
        row = int(np.argmax(own))
        asked, embedding = shown(table, np.array([row]), channels)[0], table.embeddings[row]
    else:
        source = image_sources([Path(query)], Path(query))
        embedding = encode_sources(embedder.encode, source, reader, batch_size=1, device=device).values[0][0]
        asked = Shown(source[0].read(channels), query, "")
    top_k = min(top_k, int(np.count_nonzero(~own)))
    if top_k == 0:
        raise InputError(f"`search` {query}: the table has no ears besides the picture itself")
    units, query_unit = (unit_rows(values, embedder.center) for values in (table.embeddings, embedding[None]))
    rows, similarity = most_similar(units, query_unit[0], top_k, own)
    neighbors = list(zip(shown(table, rows, channels), similarity.tolist(), strict=True))
    say(console, f"most similar to {query}, by {embedder.measure}:")
    for rank, (neighbor, cosine) in enumerate(neighbors, 1):
        subject = f"  subject {neighbor.subject}" if neighbor.subject else ""
        say(console, f"{rank:4d}  {cosine:7.4f}{subject}  {neighbor.name}")
    if out is not None:
        save_neighbors(out, asked, neighbors, embedder.measure)
        say(console, f"picture of the search: {out}")


def group(embedder: EarEmbedder, table: Embeddings, count: int, out: Path | None, console: Console) -> Embeddings:
    """The table with a cluster column; writes an image grid of the ears nearest each centre into `out`."""
    if count > len(table):
        raise InputError(f"`clusters` {count}: there are {len(table)} ears")
    found = cluster(unit_rows(table.embeddings, embedder.center), count)
    members = [np.flatnonzero(found.label == label) for label in range(count)]
    say(console, f"{count} clusters, sizes {' '.join(str(len(rows)) for rows in members)}")
    if out is not None:
        draw_clusters(embedder, table, found, members, out)
        say(console, f"image grid: {out}")
    return dataclasses.replace(table, cluster=found.label)


def draw_clusters(
    embedder: EarEmbedder, table: Embeddings, found: Clusters, members: Sequence[NDArray[np.int64]], out: Path
) -> None:
    """members: the rows of each cluster."""
    nearest = [rows[np.argsort(-found.similarity[rows], kind="stable")[:CLUSTER_COLUMNS]] for rows in members]
    pictures = iter(shown(table, np.concatenate(nearest), embedder.form.in_channels))
    rows_of_clusters = []
    for label, (rows, chosen) in enumerate(zip(members, nearest, strict=True)):
        people = len({table.subjects[row] for row in rows} - {""}) if table.subjects else 0
        name = f"cluster {label}\n{len(rows)} ears" + (f"\n{people} subject{'s' * (people > 1)}" if people else "")
        rows_of_clusters.append((name, [next(pictures).picture for _ in chosen]))
    save_clusters(out, rows_of_clusters)
