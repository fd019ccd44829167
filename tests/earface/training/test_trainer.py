"""What cannot be run on is one line, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ear_teacher.config import EarVAETrainingConfig
from earface.core.errors import InputError, is_out_of_memory
from earface.nn.inference import check_gpu_age, choose_device, why_no_gpu
from earface.training.module import seed_generators
from earface.training.resume import Run
from earface.training.trainer import _devices, build_trainer


@pytest.mark.parametrize(
    ("text", "accelerator", "gpus", "message"),
    [
        ("0,1", "cpu", 0, "a list names GPUs"),
        ("100000", "cpu", 0, "CPU cores"),
        ("0,1", "gpu", 1, "PyTorch sees 1 GPU here"),
        ("2", "auto", 1, "PyTorch sees 1 GPU here"),
        ("3,4", "cuda", 4, "PyTorch sees 4 GPUs here"),
        ("1,1", "cuda", 4, "different GPUs"),
        ("0", "cuda", 4, "above 0"),
        ("0", "cpu", 0, "above 0"),
        ("-1", "cpu", 0, "must be auto"),
        ("two", "cuda", 4, "must be auto"),
        (",", "cuda", 4, "must be auto"),
    ],
)
def test_devices_that_there_are_not_are_one_line(
    monkeypatch: pytest.MonkeyPatch, text: str, accelerator: str, gpus: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(InputError, match=rf"\A`devices` {text}: .*{message}") as caught:
        _devices(text, accelerator)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "wanted"), [("auto", "auto"), ("2", 2), ("-1", -1), ("0,2", [0, 2]), ("3,", [3])])
def test_devices_that_there_are_go_to_lightning(
    monkeypatch: pytest.MonkeyPatch, text: str, wanted: str | int | list[int]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert _devices(text, "cuda") == wanted


def test_an_average_of_sharded_weights_is_one_line() -> None:
    config = EarVAETrainingConfig(strategy="fsdp", ema_decay=0.99)
    with pytest.raises(InputError, match=r"\A`ema_decay`: .*`strategy` fsdp.*use ddp, or 0\Z"):
        build_trainer(config, Run("ear_vae", Path("logs")), best={})


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]) -> None:
    """A GPU of this capability beside a PyTorch built for these."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla K80")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)


def test_a_gpu_older_than_this_build_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (3, 7), ["sm_75", "sm_80", "sm_90a", "compute_120"])
    with pytest.raises(InputError, match=r"\ATesla K80: .* 3\.7.* 7\.5 and later.*`device` cpu\Z"):
        choose_device("auto")
    choose_device("cpu")


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (12, 0)])
def test_a_gpu_that_this_build_has_code_for_passes(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    gpu(monkeypatch, capability, ["sm_75", "sm_80", "sm_90"])
    check_gpu_age("--device cpu")


def test_a_build_for_cpus_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for CPUs" in why_no_gpu()


def test_memory_that_ran_out_is_found_below_other_errors() -> None:
    """torch.compile wraps what happens while it runs."""
    inner = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    outer = RuntimeError("backend='inductor' raised")
    outer.__cause__ = inner
    assert is_out_of_memory(inner)
    assert is_out_of_memory(outer)
    assert is_out_of_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_seeding_one_device_gives_the_numbers_of_torch_manual_seed() -> None:
    torch.manual_seed(1234)
    wanted = torch.rand(5)
    seed_generators(1234, torch.device("cpu"))
    assert torch.equal(torch.rand(5), wanted)
