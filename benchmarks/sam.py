"""Time and memory of SAM's encoder at 128 to 1024 px, beside timm's padded windows: python benchmarks/sam.py [cuda].

Forward: evaluation, no gradient. Training step: forward and backward with the first 6 of 12 blocks frozen, as the
recipe has it. Every number comes from processes of its own, in turn; the fastest of their repeats counts. Without a GPU
the time is the process's own processor time on one thread, which other processes hardly move.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from ear_teacher.encoders import build_encoder
from ear_teacher.model import EarVAEConfig

SECONDS = 15.0  # of repeats in one process
ROUNDS = 3  # processes for one number, at sizes where that is quick


class TimmSAM(nn.Module):
    """timm's model as it stands: windows padded to 14x14 at every size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("samvit_base_patch16", num_classes=0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net.forward_features(images)

    def freeze(self, blocks: int) -> None:
        for module in (self.net.patch_embed, *self.net.blocks[:blocks]):
            module.requires_grad_(False)
        self.net.pos_embed.requires_grad_(False)


class OurSAM(nn.Module):
    def __init__(self, size: int, checkpointing: bool = False) -> None:
        super().__init__()
        encoder = build_encoder(EarVAEConfig(encoder="sam", image_size=max(size, 32), sam_size=size, base_channels=8))
        self.encoder = encoder
        self.freeze = encoder.freeze
        if checkpointing:
            encoder.backbone.set_grad_checkpointing()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder.features(images)[-1]


def measure(which: str, size: int, batch: int, train: bool, device: str) -> dict[str, float]:
    """Seconds and peak megabytes above the bare process, per image."""
    model = (TimmSAM() if which == "timm" else OurSAM(size, which == "checkpointed")).to(device)
    model.freeze(6)
    model.train(train)
    images = torch.randn(batch, 3, size, size, device=device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        resident = torch.cuda.memory_allocated() / 2**20
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: list[float] = []
    while len(times) < 2 or sum(times) < SECONDS:
        start = clock()
        with torch.set_grad_enabled(train):
            out = model(images)
            if train:
                out.square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
        if max(times) > SECONDS:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"ms": min(times) * 1000 / batch, "mb": (peak - resident) / batch}


def largest_difference_at_1024() -> float:
    """Of our features and timm's from the same weights, relative to the features' spread."""
    theirs, ours = TimmSAM().eval(), OurSAM(1024).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        ours.encoder.backbone.net.load_state_dict(theirs.net.state_dict())  # type: ignore[union-attr]
        images = torch.rand(1, 3, 1024, 1024, generator=generator) * 2 - 1
        found, wanted = ours(images), theirs(ours.encoder.backbone.normalise(images))  # type: ignore[operator]
    return float((found - wanted).abs().max() / wanted.std())


def in_its_own_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        which, size, batch, train, device = sys.argv[2:]
        print(json.dumps(measure(which, int(size), int(batch), train == "True", device)))
        return
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    found: dict[tuple[str, int, bool], dict[str, float]] = {}
    for turn in range(ROUNDS):
        slow = [("ours", 512), ("checkpointed", 512), ("ours", 1024)] if turn == 0 else []
        for which, size in [("timm", 128), ("ours", 128), ("ours", 256), *slow]:
            for train in (False, True):
                new = in_its_own_process(which, size, 4 if size < 512 else 1, train, device)
                old = found.setdefault((which, size, train), new)
                found[which, size, train] = {name: min(old[name], new[name]) for name in new}
    print("| encoder | px | forward (ms/image) | step (ms/image) | forward (MB/image) | step (MB/image) |")
    print("|---|---|---|---|---|---|")
    for which, size, train in found:
        if not train:
            once, trained = found[which, size, False], found[which, size, True]
            cells = (once["ms"], trained["ms"], once["mb"], trained["mb"])
            print(f"| {which} | {size} | " + " | ".join(f"{value:.0f}" for value in cells) + " |")
    for name, train in (("forward", False), ("step", True)):
        time_of = {key[:2]: value["ms"] for key, value in found.items() if key[2] == train}
        print(f"{name}: 128 is {time_of['ours', 1024] / time_of['ours', 128]:.0f} times as fast as 1024", end=", ")
        print(f"{time_of['timm', 128] / time_of['ours', 128]:.2f} times as fast as timm's padded windows")
    print(f"features at 1024, largest difference to timm's over their spread: {largest_difference_at_1024():.1e}")


if __name__ == "__main__":
    main()
