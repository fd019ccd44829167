"""Images per second that ear_teacher.extract encodes, beside the same model called one picture at a time.

`python -m benchmarks.extract [--checkpoint C] [--images FOLDER]`;
by default 300 synthetic ears and an untrained ResNet-18.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ear_teacher.ear_reader import EarReader, EarSource, sources_of
from ear_teacher.encoding import encode_sources
from ear_teacher.loading import load_trained
from ear_teacher.model import EarVAE
from earface.data.images import read_image, resize_image
from earface.data.pixels import to_model_range
from earface.synthetic.ear_set import EarSet, write_ear_set

BASELINE = "one at a time, in batches of one"  # model.encode pads each to its batch shape, for equal bits
ROUNDS = 3  # the fastest of each counts: what other processes do to the machine only slows a run


@torch.no_grad()
def one_at_a_time(
    model: EarVAE, sources: list[EarSource], encode: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """The plain loop: read, resize, encode, next."""
    rows = []
    for source in sources:
        image = resize_image(read_image(source.name, model.config.in_channels), model.config.image_size)
        rows.append(encode(to_model_range(torch.from_numpy(image[None].copy()))).numpy())
    return np.concatenate(rows)


def read_only(model: EarVAE, sources: list[EarSource]) -> None:
    for source in sources:
        resize_image(read_image(source.name, model.config.in_channels), model.config.image_size)


@torch.no_grad()
def encode_only(model: EarVAE, count: int) -> None:
    size, channels = model.config.image_size, model.config.in_channels
    images = torch.zeros(64, channels, size, size)
    for start in range(0, count, 64):
        model.encode(images[: min(64, count - start)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", help="a trained model; default: an untrained ResNet-18, 128 px, 256 latents")
    parser.add_argument("--images", type=Path, help="folder of ears; default: 300 synthetic ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images is None:
            write_ear_set(Path(folder), EarSet(30, 10, 128, seed=1), num_workers=1, overwrite=True)
        images = arguments.images or Path(folder) / "images"
        if arguments.checkpoint:
            model = load_trained(arguments.checkpoint, "cpu", "averaged").model
        else:
            model = EarVAE(encoder="resnet18", latent_dim=256).eval()
        sources = sources_of(str(images), data_root=None, crop_to_bbox=None, folder_subjects=False)
        reader = EarReader(model.config)
        methods: dict[str, Callable[[], object]] = {
            "ear_teacher.extract": lambda: encode_sources(
                model.encode_posterior, sources, reader, batch_size=64, device="cpu"
            ).values[0],
            BASELINE: lambda: one_at_a_time(model, sources, lambda image: model.encoder(image)[0]),
            "one at a time, model.encode": lambda: one_at_a_time(model, sources, model.encode),
            "reading and resizing alone": lambda: read_only(model, sources),
            "encoding alone": lambda: encode_only(model, len(sources)),
        }
        seconds = dict.fromkeys(methods, float("inf"))
        results: dict[str, object] = {}
        for _ in range(ROUNDS):  # in turn, so that a busy moment hits all of them
            for name, method in methods.items():
                start = time.perf_counter()
                results[name] = method()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    assert np.array_equal(results["ear_teacher.extract"], results["one at a time, model.encode"]), (
        "the embeddings differ"
    )  # type: ignore[call-overload]
    config = model.config
    print(
        f"{len(sources)} images, {config.encoder}, {config.image_size} px, {config.latent_dim} latents; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; fastest of {ROUNDS}"
    )
    for name, taken in seconds.items():
        print(f"{name}: {len(sources) / taken:.0f} images/s, {seconds[BASELINE] / taken:.2f} times {BASELINE}")


if __name__ == "__main__":
    main()
