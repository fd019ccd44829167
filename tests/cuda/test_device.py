"""On a GPU: steps as on a CPU, nothing that waits, runs that go on elsewhere. `EARFACE_TEST_CUDA=1 pytest -m cuda`."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product on the GPU

import pytest
import torch
from torch import Tensor, nn

from dsr.config import DSRConfig
from dsr.inference import super_resolve
from dsr.model import DSR
from ear_teacher.model import EarVAE
from ear_teacher.train import main as train_ears
from earface.core.stopping import EXIT_PAUSED
from earface.nn.checkpoint import read_checkpoint
from earface.nn.inference import choose_device
from earface.training.optim import LearningRate, adamw_with_schedule
from facial_rec.contract import FaceContract
from facial_rec.embedding import embed_faces
from facial_rec.model import EdgeFace
from pipeline.search import score_chunks
from tests.conftest import TINY
from tests.cuda.cases import CASES, NEVER, THOROUGH, Case, Files, Standing
from tests.cuda.fake import CUDA, on_cuda, precision
from tests.cuda.operations import FREE, SYNCHRONISING, TO_DEVICE, TO_HOST, Operation

pytestmark = pytest.mark.cuda
LOSS, GRADIENT = 1e-3, 2e-2  # relative differences between devices in float32: other kernels, other sums
STEPS = sorted(THOROUGH)


@pytest.fixture(autouse=True)
def full_products() -> Iterator[None]:
    """float32 without TF32, and memory that the next test finds."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    torch.cuda.empty_cache()


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the GPU raises RuntimeError."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# What waits


def on_device() -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(4, 3, device=CUDA),
        torch.tensor([True, False, True, True], device=CUDA),
        torch.tensor([1, 2], device=CUDA),
    )


@pytest.mark.parametrize(
    "operation",
    [*SYNCHRONISING.values(), *TO_HOST.values(), *TO_DEVICE.values()],
    ids=[*SYNCHRONISING, *TO_HOST, *TO_DEVICE],
)
def test_a_gpu_too_waits_where_fake_tensors_say_so(operation: Operation) -> None:
    values = on_device()
    with no_waiting(), pytest.raises(RuntimeError, match="synchronizing"):
        operation(*values)


@pytest.mark.parametrize("operation", FREE.values(), ids=FREE)
def test_a_gpu_waits_nowhere_else(operation: Operation) -> None:
    values = on_device()
    operation(*values)
    with no_waiting():
        operation(*values)


@pytest.mark.parametrize("name", STEPS)
def test_no_training_step_waits(name: str, files: Files) -> None:
    """Data on the device to float32, losses, backward, clipping, AdamW; with float16 all but clipping and AdamW."""
    case = CASES[name](files)
    module = ready(case, CUDA)
    optimizer = module.configure_optimizers()["optimizer"]
    for each in ("float32", "bfloat16", "float16"):
        for step in range(3):
            batch = on_cuda(case.training)
            waiting = no_waiting() if step == 2 else precision("float32")
            with waiting:
                with precision(each):
                    loss = stepped(module, case, batch)
                loss.backward()
                if each != "float16":
                    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                    optimizer.step()
                optimizer.zero_grad()


def ready(case: Case, device: torch.device) -> Any:
    module = case.module
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last)
    module.to(device)
    module._trainer = Standing(case.datamodule, root_device=device)
    module.terms.check_every = NEVER
    module.on_fit_start()
    return module.train()


def stepped(module: Any, case: Case, batch: dict[str, Any]) -> Tensor:
    batch = case.datamodule.on_after_batch_transfer(batch, 0)
    module.on_train_batch_start(batch, 0)
    loss: Tensor = module.training_step(batch, 0)
    return loss


# As on a CPU


@pytest.mark.parametrize("name", STEPS)
def test_loss_and_gradients_are_those_of_a_cpu(name: str, files: Files) -> None:
    """Without noise, which each device draws from a generator of its own."""
    results = []
    with patch.object(EarVAE, "reparameterize", lambda self, mu, logvar: mu):
        for device in (torch.device("cpu"), CUDA):
            torch.manual_seed(0)
            options = {"recognizer_jitter": 0.0} if name.startswith("dsr") else {}
            case = CASES[name](files)
            case = without_jitter(case) if options else case
            module = ready(case, device)
            batch = copy.copy(case.training) if device.type == "cpu" else on_cuda(case.training)
            loss = stepped(module, case, batch)
            loss.backward()
            results.append((loss.item(), gradient_of(module)))
    (expected, wanted), (found, gradient) = results
    assert found == pytest.approx(expected, rel=LOSS)
    assert (gradient - wanted).norm() <= GRADIENT * wanted.norm()


def without_jitter(case: Case) -> Case:
    object.__setattr__(case.module.config, "recognizer_jitter", 0.0)
    return case


def gradient_of(module: nn.Module) -> Tensor:
    parts = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])


# Embeddings do not depend on the batch


@pytest.mark.parametrize("encoder", ["conv", "resnet18", "dinov2", "sam"])
def test_an_ear_has_the_same_code_alone_and_in_a_batch(encoder: str) -> None:
    choose_device("cuda")
    torch.manual_seed(0)
    model = EarVAE(encoder=encoder, image_size=64, latent_dim=16, base_channels=8, linear_path_size=16).to(CUDA).eval()
    ears = torch.rand(11, 3, 64, 64, device=CUDA) * 2 - 1
    together = model.encode(ears)
    for alone in (0, 7, 10):
        assert torch.equal(model.encode(ears[alone : alone + 1])[0], together[alone])


def test_a_face_has_the_same_embedding_pixels_and_scores_alone_and_in_a_batch() -> None:
    choose_device("cuda")
    torch.manual_seed(0)
    face_model, dsr = EdgeFace("edgeface_xxs").to(CUDA).eval(), DSR(DSRConfig(8, 1, "16")).to(CUDA).eval()
    vlr = torch.rand(19, 3, 16, 16, device=CUDA) * 2 - 1
    with torch.no_grad():
        faces = super_resolve(dsr, vlr, "32")
        embeddings = embed_faces(face_model, faces, FaceContract())
        scores = torch.cat([chunk for _, chunk in score_chunks(embeddings, embeddings)])
        for alone in (0, 15, 18):
            only = slice(alone, alone + 1)
            assert torch.equal(super_resolve(dsr, vlr[only], "32"), faces[only])
            assert torch.equal(embed_faces(face_model, faces[only], FaceContract()), embeddings[only])
            assert torch.equal(torch.cat([c for _, c in score_chunks(embeddings[only], embeddings)]), scores[only])


# Runs


def arguments(ear_set: Path, folder: Path, accelerator: str, *extra: str) -> list[str]:
    """A run of half a second an epoch, ten steps."""
    return [
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
        *TINY,
        *("--perceptual-weight", "0", "--accelerator", accelerator, "--devices", "1"),
        *extra,
    ]


def last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def weights(folder: Path) -> Tensor:
    """All weights of the last checkpoint in one row."""
    state = last(folder)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


def test_a_deterministic_run_that_was_stopped_ends_with_the_same_weights(ear_set: Path, tmp_path: Path) -> None:
    plan = ("--epochs", "2", "--deterministic", "--ema-decay", "0.9", "--augment", "full")
    for folder, stop in (("whole", ()), ("stopped", ("--stop-after-epoch", "1")), ("stopped", ())):
        assert train_ears(arguments(ear_set, tmp_path / folder, "cuda", *plan, *stop)) == (EXIT_PAUSED if stop else 0)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_a_run_goes_on_on_the_other_device_and_back(ear_set: Path, tmp_path: Path) -> None:
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    path = str(tmp_path / "checkpoints" / "last.ckpt")
    for epochs, accelerator in enumerate(("cuda", "cpu", "cuda"), 1):
        assert train_ears(arguments(ear_set, tmp_path, accelerator, "--epochs", str(epochs))) == 0
        assert last(tmp_path)["run"]["epochs_done"] == epochs
        here, there = (EarVAE.load_from_checkpoint(path, device) for device in ("cpu", "cuda"))
        torch.testing.assert_close(there.encode(images.to(CUDA)).cpu(), here.encode(images), rtol=1e-3, atol=1e-3)


def test_a_state_that_adamw_wrote_on_a_cpu_goes_on_in_the_fused_kernel() -> None:
    def steps(network: nn.Linear, optimizer: Any, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            network(inputs.to(network.weight.device)).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    inputs, start = torch.randn(8, 5), nn.Linear(5, 3)
    old = torch.optim.AdamW(start.parameters(), lr=0.01, foreach=True)
    steps(start, old, 3)
    state, moved = copy.deepcopy(old.state_dict()), copy.deepcopy(start).to(CUDA)
    steps(start, old, 3)
    groups = [{"params": list(moved.parameters()), "lr": 0.01, "weight_decay": 0.01}]
    new = adamw_with_schedule(groups, LearningRate("constant", 0, 10, 1))["optimizer"]
    new.load_state_dict(state)
    assert new.param_groups[0]["fused"]
    steps(moved, new, 3)
    for wanted, found in zip(start.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="torch.compile needs a C compiler")
def test_gradients_are_accumulated_by_cuda_graphs_as_without(ear_set: Path, tmp_path: Path) -> None:
    """An epoch that goes on from the same checkpoint ends at the same weights, measured by how far it moves them."""
    plan = ("--epochs", "2", "--accumulate-grad-batches", "2", "--augment", "none")
    assert train_ears(arguments(ear_set, tmp_path / "eager", "cuda", *plan, "--stop-after-epoch", "1")) == EXIT_PAUSED
    start = weights(tmp_path / "eager")
    shutil.copytree(tmp_path / "eager", tmp_path / "graphs")
    compiled = ("--compile", "--compile-mode", "reduce-overhead")
    assert train_ears(arguments(ear_set, tmp_path / "eager", "cuda", *plan)) == 0
    assert train_ears(arguments(ear_set, tmp_path / "graphs", "cuda", *plan, *compiled)) == 0
    eager, graphs = weights(tmp_path / "eager"), weights(tmp_path / "graphs")
    assert (graphs - eager).norm() <= 0.1 * (eager - start).norm()


# What a user can get wrong


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of stderr; Lightning may have said something before it."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """So much beside what is in use."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 2**20) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(("--encoder", "resnet50", "--encoder-weights", "none"), id="model"),
        pytest.param(("--image-size", "256", "--batch-size", "32"), id="step"),
    ],
)
def test_memory_that_runs_out_is_one_line(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[str, ...]
) -> None:
    with little_memory(60):
        assert train_ears(arguments(ear_set, tmp_path, "cuda", *shape, "--epochs", "1")) == 2
    assert "--batch-size" in error_line(capsys)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there is a second GPU")
def test_a_gpu_that_is_not_there_is_one_line(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_ears([*arguments(ear_set, tmp_path, "cuda"), "--devices", "0,1"]) == 2
    assert "--devices 0,1" in error_line(capsys)
