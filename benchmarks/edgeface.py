"""EdgeFace's size, multiply-adds and speed beside plain timm: `python -m benchmarks.edgeface [--batch 32]`.

Ours and timm's EdgeNeXt of the same name with 512 classes run in turns, evaluation mode, one thread; the time is the
process's own processor time, which other processes hardly move, and the ratio is the median over the turns. For the
low-rank variants timm's network is the full-rank one. "published": as in the authors' README.

`--embeddings A.npz B.npz` instead prints rank-1 of tables that facial_rec.embed wrote: of identities with two or more
pictures the first by name is the gallery, the next three at most are probes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings
from earface.nn.edgeface import EMBEDDING_DIM
from earface.nn.edgeface_weights import VARIANTS
from facial_rec.contract import SIZE
from facial_rec.model import EdgeFace

PUBLISHED = {  # millions of parameters, of multiply-adds (half of the authors' FLOPs)
    "edgeface_xxs": (1.24, 94.72 / 2),
    "edgeface_xs_gamma_06": (1.77, 154.00 / 2),
    "edgeface_s_gamma_05": (3.65, 306.12 / 2),
    "edgeface_base": (18.23, 1398.83 / 2),
}
SECONDS = 20.0  # of turns for one variant
MIN_TURNS = 5


def multiply_adds(model: nn.Module) -> int:
    """Of one face: convolutions and matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE))
    return counter.get_total_flops() // 2


def in_turns(first: Callable[[], object], second: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds of processor time of each, turn by turn; who begins changes."""
    for function in (first, second):
        function()
    turns: list[tuple[float, float]] = []
    while len(turns) < MIN_TURNS or sum(map(sum, turns)) < SECONDS:
        taken = {}
        for function in (first, second) if len(turns) % 2 else (second, first):
            start = time.process_time()
            function()
            taken[function] = time.process_time() - start
        turns.append((taken[first], taken[second]))
    return turns


def rank1(table: IdentityEmbeddings) -> tuple[float, int, int]:
    """Share of probes whose most similar gallery face is their own, probes, identities."""
    pictures: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for row, (path, identity) in enumerate(zip(table.paths, table.identities, strict=True)):
        pictures[identity].append((Path(path).name, row))
    chosen = [[row for _, row in sorted(rows)[:4]] for rows in pictures.values() if len(rows) >= 2]
    gallery = table.embeddings[[rows[0] for rows in chosen]]
    probes = table.embeddings[[row for rows in chosen for row in rows[1:]]]
    own = np.array([index for index, rows in enumerate(chosen) for _ in rows[1:]])
    return float(((probes @ gallery.T).argmax(axis=1) == own).mean()), len(own), len(chosen)


@torch.inference_mode()
def print_speed(batch: int) -> None:
    torch.set_num_threads(1)
    faces = torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    print(f"torch {torch.__version__}, timm {timm.__version__}, batch {batch}, {SIZE} px, one thread")
    print("| variant | parameters (M) | published | multiply-adds (M) | published | ms/face | timm's | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name in PUBLISHED:
        ours = EdgeFace(name).eval()
        theirs = timm.create_model(VARIANTS[name].network, num_classes=EMBEDDING_DIM).eval()
        turns = in_turns(lambda model=ours: model(faces), lambda model=theirs: model(faces))  # type: ignore[misc]
        times = [min(each) * 1000 / batch for each in zip(*turns, strict=True)]
        ratio = statistics.median(timm_time / own_time for own_time, timm_time in turns)
        parameters, counted = sum(p.numel() for p in ours.parameters()) / 1e6, multiply_adds(ours) / 1e6
        published = PUBLISHED[name]
        print(
            f"| {name} | {parameters:.2f} | {published[0]} | {counted:.1f} | {published[1]:.1f} "
            f"| {times[0]:.2f} | {times[1]:.2f} | {ratio:.2f} ({len(turns)} turns) |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--embeddings", type=Path, nargs="+", default=[], help="tables whose rank-1 is printed")
    arguments = parser.parse_args()
    for path in arguments.embeddings:
        table = read_embeddings(path)
        share, probes, identities = rank1(table)
        print(
            f"{path}: {table.metadata['variant']}, {table.contract}: {share:.2%} of {probes} probes, {identities} ids"
        )
    if not arguments.embeddings:
        print_speed(arguments.batch)


if __name__ == "__main__":
    main()
