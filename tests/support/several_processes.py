"""Trainings in one process or several, without noise, each step written down."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.forks import FORKS

Step = tuple[Tensor, Tensor, dict[str, Tensor]]  # the samples and the loss of one process, and all gradients by name
Trainer = tuple[str, list[str]]  # a module with a main(argv), and its arguments
PATIENCE_S = 600.0


def train(trainer: Trainer, folder: Path, processes: int, *extra: str) -> tuple[list[int], str]:
    """Exit codes and output of processes that are started as torchrun does.

    Networks are in evaluation mode, in which batch normalisation does not depend on the batch, and latents have no
    noise. `steps` gives what each process did.
    """
    module, argv = trainer
    places = ["--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")]
    devices = ["--devices", str(processes), "--strategy", "ddp" if processes > 1 else "auto"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    given = (module, [*argv, *places, *devices, *extra], folder)
    started = [FORKS.Process(target=_train, args=(*given, rank, processes, port)) for rank in range(processes)]
    for each in started:
        each.start()
    for each in started:
        each.join(PATIENCE_S)
        each.kill()
        each.join()
    output = "".join((folder / f"rank{rank}.txt").read_text() for rank in range(processes))
    return [each.exitcode or 0 for each in started], output


def steps(folder: Path, rank: int) -> list[Step]:
    found: list[Step] = torch.load(folder / f"rank{rank}.pt", weights_only=True)
    return found


def _train(module: str, argv: list[str], folder: Path, rank: int, processes: int, port: int) -> None:
    output = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if processes > 1:
        places = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": processes}
        os.environ |= {name: str(value) for name, value in places.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    taken = _without_noise()
    try:
        sys.exit(importlib.import_module(module).main(argv))
    finally:
        torch.save(taken, folder / f"rank{rank}.pt")


def _without_noise() -> list[Step]:
    """The steps that will have been taken."""
    from ear_teacher.model import EarVAE
    from earface.training.module import TrainingModule
    from earface.training.term_log import TermLog

    taken: list[Step] = []
    batches: list[tuple[Tensor, Tensor]] = []
    start, clip, add = TrainingModule.on_train_batch_start, TrainingModule.configure_gradient_clipping, TermLog.add

    def on_train_batch_start(network: Any, *given: Any) -> None:
        start(network, *given)
        network.eval()

    def add_terms(log: Any, step: int, terms: dict[str, Tensor], samples: Tensor) -> None:
        batches.append((samples, terms["loss"].detach().clone()))
        add(log, step, terms, samples)

    def configure_gradient_clipping(network: Any, *given: Any, **options: Any) -> None:
        gradients = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
        taken.append((*batches[-1], gradients))
        clip(network, *given, **options)

    TrainingModule.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]
    TrainingModule.configure_gradient_clipping = configure_gradient_clipping  # type: ignore[method-assign]
    TermLog.add = add_terms  # type: ignore[method-assign]
    EarVAE.reparameterize = lambda network, mu, logvar: mu  # type: ignore[method-assign]
    return taken
