"""DSR's size, multiply-adds, speed and memory beside EDSR-baseline: `python -m benchmarks.dsr [--vlr-size 32]`.

Each network runs in a process of its own, one thread on a CPU: faces a second in evaluation mode at batch 32, of a
training step at batch 14 (the network alone, L1, under bfloat16 autocast on a CPU and float16 on a GPU), and how much
that step adds to the process's memory at its peak. Times are processor time on a CPU, the median of several turns.
With --recognizer the training step has identity and feature matching losses through that EdgeFace, as in training.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.edsr_model import EDSR
from dsr.config import PRESETS, DSRConfig
from dsr.losses import DSRLoss, DSRLossWeights
from dsr.model import DSR
from facial_rec.recognizer import load_frozen_recognizer

NETWORKS = ("full", "small", "EDSR-baseline")
BATCH, TRAINING_BATCH = 32, 14
TURNS = 5


def build(name: str, vlr_size: str) -> torch.nn.Module:
    if name == "EDSR-baseline":
        return EDSR(DSRConfig(vlr_size=vlr_size))
    return DSR(DSRConfig(vlr_size=vlr_size, **PRESETS.get(name, {})))


def seconds(function: Callable[[], object], device: str) -> float:
    """Of one call: processor time on a CPU, wall time on a GPU."""
    times = []
    for _ in range(TURNS + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.process_time() if device == "cpu" else time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.process_time() if device == "cpu" else time.perf_counter()) - start)
    return statistics.median(times[1:])


def measure(name: str, vlr_size: str, device: str, recognizer: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    network = build(name, vlr_size).to(device)
    size = DSRConfig(vlr_size=vlr_size).vlr
    generator = torch.Generator().manual_seed(0)

    def faces(count: int, height: int, width: int) -> torch.Tensor:
        return torch.rand(count, 3, height, width, generator=generator).mul(2).sub(1).to(device)

    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(faces(1, size.height, size.width))
    network.train()
    vlr, hr = faces(TRAINING_BATCH, size.height, size.width), faces(TRAINING_BATCH, 128, 128)
    weights = DSRLossWeights(identity=0.6, feature_match=0.18) if recognizer != "none" else DSRLossWeights()
    loss = DSRLoss(weights, load_frozen_recognizer("--recognizer", recognizer, "arcface"))
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        with torch.autocast(device, torch.bfloat16 if device == "cpu" else torch.float16):
            total = loss(network(vlr), hr).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    before = peak_memory(device)
    training = seconds(step, device)
    memory = peak_memory(device) - before
    network.eval()
    many = faces(BATCH, size.height, size.width)
    with torch.inference_mode():
        inference = seconds(lambda: network(many), device)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "inference": BATCH / inference,
        "training": TRAINING_BATCH / training,
        "memory": memory,
    }


def peak_memory(device: str) -> int:
    """Bytes, of this process so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlr-size", default="32")
    parser.add_argument("--recognizer", default="none", help="an EdgeFace variant, or a file of its weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        found = measure(arguments.only, arguments.vlr_size, arguments.device, arguments.recognizer)
        print(json.dumps(found))
        return
    flags = ["--vlr-size", arguments.vlr_size, "--recognizer", arguments.recognizer, "--device", arguments.device]
    print(f"torch {torch.__version__}, {arguments.device}, VLR {arguments.vlr_size}, recogniser {arguments.recognizer}")
    print("| network | parameters (M) | multiply-adds (G) | faces/s | of EDSR | trained/s | of EDSR | memory (MiB) |")
    print("|---|---|---|---|---|---|---|---|")
    rows = {}
    for name in reversed(NETWORKS):
        command = [sys.executable, "-m", "benchmarks.dsr", "--only", name, *flags]
        finished = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[name] = json.loads(finished.stdout.splitlines()[-1])
    reference = rows["EDSR-baseline"]
    for name in NETWORKS:
        own = rows[name]
        ratios = {kind: own[kind] / reference[kind] for kind in ("inference", "training")}
        print(
            f"| {name} | {own['parameters'] / 1e6:.2f} | {own['multiply_adds'] / 1e9:.2f} "
            f"| {own['inference']:.0f} | {ratios['inference']:.2f} "
            f"| {own['training']:.0f} | {ratios['training']:.2f} | {own['memory'] / 2**20:.0f} |"
        )


if __name__ == "__main__":
    main()
