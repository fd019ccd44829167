"""Embeddings of ears; search, clusters, projector: `earface ears extract`, or `python -m ear_teacher.extract`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.options import EarEmbeddingOptions
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import require_path, require_trained
from earface.core.first_imports import first_imports


def drawn(path: Path, options: EarEmbeddingOptions) -> Path | None:
    """The path, or None where no pictures are wanted: then what an earlier call drew there is deleted."""
    if options.pictures:
        return path
    path.unlink(missing_ok=True)
    return None


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarEmbeddingOptions, argv, prog="earface ears extract")
    for path in filter(None, (*options.input, *options.embeddings, options.search, *options.networks)):
        require_path(path)
    require_trained(options.checkpoint)
    from ear_teacher.embeddings.places import check_places, clusters_picture, search_picture
    from ear_teacher.embeddings.table import is_table, joined, write_embeddings

    written = [path for path in options.input if Path(path).is_file() and is_table(Path(path))]
    options = dataclasses.replace(
        options,
        input=tuple(path for path in options.input if path not in written),
        embeddings=(*options.embeddings, *written),
    )
    out = check_places(options)
    # after that: help, a mistyped flag, a missing file and one that is there already answer without PyTorch
    with first_imports():
        import numpy as np
        from rich.console import Console

        from ear_teacher.ear_reader import EarReader, sources_of
        from ear_teacher.embeddings.embedder import load_embedder
        from ear_teacher.embeddings.extraction import (
            check_logvar,
            describe,
            encode,
            group,
            read_tables,
            search,
            shown,
        )
        from ear_teacher.embeddings.plots import thumbnail_side, write_projector
        from ear_teacher.encoding import say
        from earface.nn.inference import choose_device

    device = choose_device(options.device)
    embedder = load_embedder(options.checkpoint, device, options.weights)
    if options.logvar:
        check_logvar(embedder)
    reader = EarReader(embedder.form, *options.networks)
    tables = read_tables(options.embeddings, embedder, options.logvar)
    crop = embedder.crop_to_bbox if options.crop_to_bbox is None else options.crop_to_bbox
    sources = [
        source
        for path in options.input
        for source in sources_of(
            path, data_root=options.data_root, crop_to_bbox=crop, folder_subjects=options.folder_subjects
        )
    ]
    known = {path for table in tables for path in table.paths}
    sources = [source for source in sources if source.name not in known]
    count = sum(map(len, tables)) + len(sources)
    if options.clusters > count:
        raise InputError(f"--clusters {options.clusters}: there are {count} ears")
    if options.projector:
        thumbnail_side(count)

    console = Console()
    if sources:
        known_logvar = bool(tables) and all(table.logvar is not None for table in tables)
        logvar = embedder.has_logvar and (options.logvar or known_logvar)
        tables.append(encode(embedder, sources, reader, device, options.batch_size, logvar, console))
    table = joined(tables, describe(embedder, tables))
    if options.folder_subjects and table.subjects is None:
        say(console, "note: --folder-subjects found no pictures in subfolders, so no subjects are known")
    if options.clusters:
        picture = drawn(clusters_picture(out), options)
        table = group(embedder, table, options.clusters, picture, console)
    if options.out or sources:
        write_embeddings(out, table)
        say(console, f"{len(table)} embeddings: {out}")
    if options.projector:
        thumbnails = shown(table, np.arange(len(table)), embedder.form.in_channels) if options.pictures else []
        write_projector(Path(options.projector), table, [ear.picture for ear in thumbnails])
        say(console, f"projector: tensorboard --logdir {options.projector}")
    if options.search:
        picture = drawn(search_picture(out, options.search), options)
        search(embedder, table, options.search, reader, options.top_k, picture, device, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
