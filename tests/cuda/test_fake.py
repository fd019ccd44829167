"""The count of what stalls a GPU, against operations of which it is known. test_device.py asks a real GPU the same."""

from __future__ import annotations

import inspect

import pytest
import torch

from earface.nn.inference import weights_digest
from tests.cuda.fake import CUDA, HostTraffic, Kind, fake, fake_cuda, on_cuda, precision
from tests.cuda.operations import FREE, SYNCHRONISING, TO_DEVICE, TO_HOST, Operation


def traffic_of(operation: Operation) -> HostTraffic:
    with fake_cuda() as traffic:
        values = fake(4, 3), fake(4, dtype=torch.bool), fake(2, dtype=torch.int64)
        traffic.clear()
        operation(*values)
    return traffic


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        *(pytest.param(each, "synchronisation", id=name) for name, each in SYNCHRONISING.items()),
        *(pytest.param(each, "to host", id=name) for name, each in TO_HOST.items()),
        *(pytest.param(each, "to device", id=name) for name, each in TO_DEVICE.items()),
    ],
)
def test_each_wait_and_each_copy_is_counted(operation: Operation, kind: Kind) -> None:
    traffic = traffic_of(operation)
    assert {event.kind for event in traffic.events} == {kind}, traffic.report()


@pytest.mark.parametrize("operation", FREE.values(), ids=FREE)
def test_what_a_gpu_does_alone_is_not_counted(operation: Operation) -> None:
    traffic = traffic_of(operation)
    assert not traffic.events, traffic.report()


def test_the_line_of_the_project_is_named() -> None:
    """A digest of weights reads each of them, in a line of earface/nn/inference.py."""
    layer = torch.nn.Linear(3, 4)
    with fake_cuda() as traffic:
        on_cuda(layer)
        traffic.clear()
        weights_digest(layer)
    assert [event.kind for event in traffic.events] == ["to host"] * 2
    lines = inspect.getsourcelines(weights_digest)
    numbers = range(lines[1], lines[1] + len(lines[0]))
    assert {event.line for event in traffic.events} <= {f"earface/nn/inference.py:{number}" for number in numbers}


def test_tensors_of_two_devices_raise() -> None:
    with fake_cuda():
        with pytest.raises(RuntimeError, match="two devices"):
            fake(3) + torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(3)[fake(2, dtype=torch.int64)]
        with pytest.raises(TypeError, match="numpy"):
            fake(3).numpy()


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("float16", torch.float16)])
def test_products_have_the_precision(name: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Conv2d(3, 4, 3)
    with fake_cuda() as traffic, precision(name):
        on_cuda(layer)(fake(2, 3, 8, 8))
    assert traffic.products == {dtype}
    assert not torch.is_autocast_enabled("cuda")


def test_a_network_is_moved_once() -> None:
    layer = torch.nn.Linear(3, 4)
    for _ in range(2):
        with fake_cuda() as traffic:
            traffic.clear()
            assert on_cuda(layer).weight.device == CUDA
            moved = traffic.count("to device")
    assert moved == 0
