"""Where `earface ears extract` writes, checked before any work. No torch: what is there already is refused at once."""

from __future__ import annotations

from pathlib import Path

from ear_teacher.embeddings.table import check_extension
from ear_teacher.options import DEFAULT_OUT, PROJECTOR, EarEmbeddingOptions
from earface.core.errors import InputError
from earface.core.files import refuse_to_replace
from earface.data.images import read_image
from earface.data.names import file_name_part


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
    """Named after the picture asked for, and after its folder, too, where the picture's own name is a number."""
    stem, folder = Path(query).stem, Path(query).absolute().parent.name
    name = f"{file_name_part(folder)}_{stem}" if stem.isdecimal() and folder else stem
    return out.with_name(f"{out.stem}_search_{name}.png")
