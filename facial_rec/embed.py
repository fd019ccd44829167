"""Embeddings of aligned faces: `earface faces embed`, or `python -m facial_rec.embed`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.options import check_options, option
from earface.nn.inference import choose_device, weights_digest
from facial_rec.contract import FaceContract
from facial_rec.embedding import Embedded, FaceFile, embed_pictures, faces_of
from facial_rec.embedding_table import FaceEmbeddings, check_name, write_embeddings
from facial_rec.model import EdgeFace
from facial_rec.recognizer import is_tuned, load_tuned_for


@dataclass(frozen=True)
class EmbedOptions:
    """Aligned faces into a table of unit embeddings, with what made them."""

    input: str = option("", "a picture, or a folder of them: its first folders are the identities")
    weights: str = option(
        "pretrained", "a file of the authors, a tuned folder or checkpoint, or pretrained: downloaded"
    )
    variant: str | None = option(None, "edgeface_xxs, ...: needed for pretrained; a file tells its own")
    out: str = option("embeddings.npz", "the table, .npz")
    crop: Literal["arcface", "center"] = option(
        "arcface", "arcface: the template fills the picture; center: it lies 8 px inside a canvas of 128"
    )
    flip: bool = option(False, "average with the mirrored face: twice the time")
    batch_size: int = option(64, "faces sent to the device at once; does not change the numbers", low=1)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: the GPU if there is one")
    workers: int = option(4, "threads that read pictures", low=1, high=64)

    def check(self) -> None:
        check_options(self)
        if not self.input:
            raise InputError("--input: give a picture or a folder of aligned faces")
        if self.weights == "none":
            raise InputError("--weights none: random weights recognise nobody; give a file, or pretrained")


def say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def embed(model: EdgeFace, faces: Sequence[FaceFile], options: EmbedOptions, device: str, console: Console) -> Embedded:
    """Says how fast, and what could not be read."""
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=len(faces))
        found = embed_pictures(
            model,
            faces,
            FaceContract(options.crop),
            flip=options.flip,
            batch_size=options.batch_size,
            device=device,
            workers=options.workers,
            progress=lambda done: bar.update(task, completed=done),
        )
    seconds = time.perf_counter() - start
    say(console, f"{len(found.kept)} faces in {seconds:.1f} s, {len(found.kept) / seconds:.0f} a second on {device}")
    if found.skipped:
        say(console, f"{len(found.skipped)} of {len(faces)} pictures cannot be used and are left out:")
        for name, reason in found.skipped:
            say(console, f"  {name}: {reason}")
    return found


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EmbedOptions, argv, prog="earface faces embed")
    console = Console()
    out = Path(options.out)
    check_name(out)
    faces = faces_of(options.input)
    device = choose_device(options.device)
    tuned = options.variant is None and is_tuned(options.weights)
    model = (
        load_tuned_for(options.weights, options.crop)[0]
        if tuned
        else EdgeFace.from_weights(options.weights, options.variant)
    )
    digest = weights_digest(model)
    try:
        found = embed(model.to(device), faces, options, device, console)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    identities = [faces[index].identity for index in found.kept]
    table = FaceEmbeddings(
        embeddings=found.embeddings,
        paths=[str(faces[index].path) for index in found.kept],
        identities=identities,
        contract=FaceContract(options.crop).id,
        digest=digest,
        metadata={
            "variant": model.variant,
            "weights": options.weights,
            "flip": options.flip,
            "skipped": [list(entry) for entry in found.skipped],
        },
    )
    write_embeddings(out, table)
    people = len(set(identities) - {""})
    known = f"{people} identities" if people else "no identities known (a folder for each tells them)"
    say(console, f"{len(table)} embeddings of {model.variant}, {known}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
