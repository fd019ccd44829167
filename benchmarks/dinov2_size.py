"""What the side costs at which DINOv2 sees a 128 px ear: processor time on one thread, and what resampling loses.

`python -m benchmarks.dinov2_size --npy val_teacher.npy`; untrained weights, which cost the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import torch

from ear_teacher.backbones import DINOv2Backbone
from earface.data.image_cache import open_image_cache
from earface.data.npy import read_teacher_npy
from earface.data.pixels import to_model_range, to_unit
from earface.metrics.image_quality import psnr

SIZES = (112, 126, 140, 154, 224)
BATCH, ROUNDS = 8, 5


def resampled(images: torch.Tensor, side: int) -> torch.Tensor:
    """As the backbone does it."""
    return torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--npy", required=True, help="ears to resample")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        data = read_teacher_npy(arguments.npy)
        images = open_image_cache(data, image_size=128, channels=3, cache_dir=cache).images
        ears = to_model_range(torch.from_numpy(np.array(images)))
    backbones = {size: DINOv2Backbone("vits14", 3, size, "none") for size in SIZES}
    seconds = dict.fromkeys(SIZES, float("inf"))
    for _ in range(ROUNDS):  # in turn, so that a busy moment hits all of them
        for size, backbone in backbones.items():
            start = time.process_time()
            backbone(ears[:BATCH])[-1].square().mean().backward()
            seconds[size] = min(seconds[size], time.process_time() - start)
    print("| px | tokens | forward and backward (ms/image) | ratio to 126 | resampled there and back (dB) |")
    print("|---|---|---|---|---|")
    for size, taken in seconds.items():
        back = resampled(resampled(ears, size), 128)
        loss = psnr(to_unit(back).clamp(0, 1), to_unit(ears)).mean()
        cells = (
            f"{size // 14}x{size // 14}",
            f"{taken * 1000 / BATCH:.0f}",
            f"{taken / seconds[126]:.2f}",
            f"{loss:.1f}",
        )
        print(f"| {size} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
