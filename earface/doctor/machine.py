"""Processor, GPU, memory and disk, and what a training makes of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from earface.doctor.finding import Finding
from earface.nn.precision import automatic_precision
from earface.nn.threads import automatic_threads

LITTLE_MEMORY, LITTLE_DISK = 4e9, 10e9  # bytes; a ResNet-50 VAE's checkpoint is 1 GB, and a run keeps up to five
LITTLE_SHARED = 256e6  # of /dev/shm, with which four workers of a usual training stop waiting for each other


def machine() -> list[Finding]:
    return [*_processor(), *_accelerator(), *_memory()]


def _processor() -> list[Finding]:
    group = "processor"
    threads, why = automatic_threads()
    precision, reason = automatic_precision("cpu")
    busy = threads < torch.get_num_threads()
    advice = "stop what else computes here, or wait" if busy else ""
    return [
        Finding(group, "processor", f"{_processor_name()}, {torch.backends.cpu.get_cpu_capability()}"),
        Finding(group, "threads", f"{threads} ({why})", "note" if busy else "ok", advice),
        Finding(group, "precision on the CPU", f"{precision} ({reason})"),
    ]


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _accelerator() -> list[Finding]:
    group = "GPU"
    driver = _driver()
    if torch.cuda.is_available():
        return [each for index in range(torch.cuda.device_count()) for each in _cuda(group, index, driver)]
    if torch.backends.mps.is_available():
        return [Finding(group, "GPU", "Apple's, by MPS"), Finding(group, "precision", automatic_precision("mps")[0])]
    if driver:
        build = f"PyTorch {torch.__version__} is built for {torch.version.cuda or 'processors alone'}"
        advice = "install PyTorch's build for CUDA (pytorch.org), or a newer driver"
        return [Finding(group, "GPU", f"{driver}, but {build} and cannot use it", "problem", advice)]
    advice = "start small: `encoder` resnet18, `image_size` 64; of dsr train `variant` small"
    return [Finding(group, "GPU", "none: trainings run on the processor", "note", advice)]


def _cuda(group: str, index: int, driver: str) -> list[Finding]:
    known = torch.cuda.get_device_properties(index)
    value = f"{known.name}, {known.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}, {driver}"
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:80]
        return [Finding(group, f"GPU {index}", f"{value}: {reason}", "problem", "install a PyTorch build for this GPU")]
    precision, why = automatic_precision("cuda")
    return [Finding(group, f"GPU {index}", value), Finding(group, "precision on the GPU", f"{precision} ({why})")]


def _driver() -> str:
    """NVIDIA's driver, where there is one."""
    command = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name, _, version = shown.stdout.partition("\n")[0].partition(",")
    return f"{name.strip()}, driver {version.strip()}" if shown.returncode == 0 and version else ""


def _memory() -> list[Finding]:
    group = "memory and disk"
    found = []
    if (free := _free_memory()) is not None:
        little = free < LITTLE_MEMORY
        advice = "lower the batch size, or stop other programs" if little else ""
        found.append(Finding(group, "memory free", f"{free / 1e9:.1f} GB", "note" if little else "ok", advice))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        little = size < LITTLE_SHARED
        advice = "`num_workers` 0, or give the container more (docker run, shm-size 8g)" if little else ""
        found.append(Finding(group, "/dev/shm", f"{size / 1e6:,.0f} MB", "problem" if little else "ok", advice))
    space = shutil.disk_usage(Path.cwd()).free
    little = space < LITTLE_DISK
    advice = "checkpoints and decoded pictures go here: free some space" if little else ""
    found.append(Finding(group, "disk free here", f"{space / 1e9:.0f} GB", "note" if little else "ok", advice))
    if not os.access(Path.cwd(), os.W_OK):
        found.append(Finding(group, "this folder", "may not be written to", "problem", "run from a folder of yours"))
    return found


def _free_memory() -> float | None:
    """Bytes that a program could still take; None where the system has no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
