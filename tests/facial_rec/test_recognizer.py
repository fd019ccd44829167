"""A recogniser by one word: the name of a published variant, or a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from earface.core.errors import InputError
from facial_rec.model import EdgeFace
from facial_rec.recognizer import load_edgeface
from tests.support.edgeface import INT8_SOURCES, int8_edgeface


@pytest.mark.parametrize("source", INT8_SOURCES)
def test_a_name_is_the_published_file_where_torch_hub_keeps_it(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = int8_edgeface(source, "edgeface_xs_q", tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / path.name).symlink_to(path)
    named, given = load_edgeface("edgeface_xs_q"), load_edgeface(str(path))
    assert named.variant == given.variant == "edgeface_xs_q"
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in named.state_dict().items())
    assert not named.training


def test_a_file_tells_its_variant_whatever_it_is_called(tmp_path: Path) -> None:
    model = EdgeFace("edgeface_xs_gamma_06")
    torch.save(model.state_dict(), tmp_path / "edgeface_xxs.pt")
    found = load_edgeface(str(tmp_path / "edgeface_xxs.pt"))
    assert found.variant == "edgeface_xs_gamma_06"
    assert not found.training
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_is_neither_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^edgeface_m: neither a file nor one of edgeface_xxs, edgeface_xs_gamma_06"):
        load_edgeface("edgeface_m")
