"""Pictures that are enrolled under two names: copies of one photograph, whatever their format and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.duplicates import ALIGNED_COARSE, collect_signatures, find_duplicates, picture_signature
from earface.data.identity_embeddings import IdentityEmbeddings
from earface.data.images import Pixels
from pipeline.search import score_chunks

Signature = tuple[bytes, Pixels]  # of earface.data.duplicates.picture_signature
ALIKE = 0.5  # cosine from which on an earlier picture is read again; of copies it is far above


def warn_of_copies(
    table: IdentityEmbeddings, signatures: Mapping[Path, Signature], read: Callable[[Path], Pixels]
) -> None:
    """Warn of photographs that are in the gallery under two names.

    signatures: of the pictures that are new. read: a picture that was enrolled earlier to its face or ear; one that is
    not there any more is not compared.
    """
    paths = [Path(path) for path in table.paths]
    known = {row: signatures[path] for row, path in enumerate(paths) if path in signatures}
    earlier, new = [row for row in range(len(table)) if row not in known], list(known)
    embeddings = torch.from_numpy(table.embeddings)
    alike: set[int] = set()
    if earlier and new:
        for _, scores in score_chunks(embeddings[new], embeddings[earlier]):
            alike.update(earlier[place] for place in torch.nonzero((scores >= ALIKE).any(dim=0))[:, 0].tolist())
    for row in sorted(alike):
        try:
            known[row] = picture_signature(read(paths[row]))
        except InputError:
            continue
    rows = sorted(known)
    pairs = find_duplicates(collect_signatures(known[row] for row in rows), min_coarse=ALIGNED_COARSE)
    found = [(rows[pair.first], rows[pair.second]) for pair in pairs]
    two_names = [pair for pair in found if table.identities[pair[0]] != table.identities[pair[1]]]
    if two_names:
        one, other = two_names[0]
        warn(
            f"{len(two_names)} photographs are enrolled under two names, such as {paths[one]} of "
            f"{table.identities[one]} and {paths[other]} of {table.identities[other]}: remove one of them"
        )
