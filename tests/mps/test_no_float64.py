"""Training, validation and evaluation on a device without float64: Apple's GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dsr.config import DSRConfig
from dsr.metrics import measure as measure_faces
from dsr.model import DSR
from ear_teacher.detector.model import EarDetector
from ear_teacher.metrics.baselines import PixelPCA
from ear_teacher.metrics.reconstruction import encode_all, encode_posteriors, latent_use, measure
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.data.degradation import degrade
from earface.data.face_dataset import FaceBatch
from earface.data.face_sizes import DEGRADATIONS, parse_vlr_size
from earface.nn.frozen import FrozenRecognizer
from earface.nn.inference import choose_device
from facial_rec.contract import FaceContract
from facial_rec.embedding import embed_faces
from facial_rec.model import EdgeFace
from pipeline.search import NOBODY, search, top_candidates
from tests.cuda.cases import CASES, Files, count
from tests.cuda.fake import CUDA, fake, fake_cuda, on_cuda
from tests.mps.fake import no_float64

pytestmark = pytest.mark.runs

STEPS = (
    *("ear teacher, conv", "ear teacher, conv, denoising, grey", "ear teacher, conv, DINOv2 as loss"),
    *("detector, conv, landmarks", "dsr, all terms", "dsr, realistic"),
    *("edgeface, stage 1, arcface", "edgeface, stage 2, align and keep"),
)
SIDE = 64


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with no_float64():
        yield


@pytest.mark.parametrize(
    "refused",
    [
        lambda: fake(3).double(),
        lambda: fake(3, dtype=torch.float64),
        lambda: torch.zeros(3, dtype=torch.float64).to(CUDA),
        lambda: torch.tensor(np.ones(3), device=CUDA),
        lambda: fake(3) * torch.from_numpy(np.ones(3)).to(CUDA),
    ],
)
def test_float64_on_the_device_is_refused(refused: Callable[[], Any]) -> None:
    with fake_cuda(), pytest.raises(TypeError, match="float64"):
        refused()


@pytest.mark.parametrize("allowed", [lambda: fake(3) * 2.0, lambda: fake(3).cpu().double(), lambda: fake(3).sum()])
def test_all_else_is_not(allowed: Callable[[], Any]) -> None:
    with fake_cuda():
        allowed()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_training_and_of_validation_needs_no_float64(name: str, files: Files) -> None:
    count(CASES[name](files), "float32")


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_faces_are_degraded_for_the_device(kind: str) -> None:
    with fake_cuda():
        found = degrade(kind, fake(2, 3, 128, 128), parse_vlr_size("16"), [(0, 0, 0), (0, 0, 1)])
    assert (found.device, found.dtype, tuple(found.shape)) == (CUDA, torch.float32, (2, 3, 16, 16))


def test_ears_are_measured_beside_pixel_pca() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    model = EarVAE(encoder="conv", image_size=SIDE, latent_dim=8, base_channels=4, linear_path_size=16).eval()
    with fake_cuda():
        on_cuda(model)
        mu, logvar = encode_posteriors(model, pixels, 4, "cuda")
        assert len(measure(model, mu, pixels, 4, "cuda").psnr) == latent_use(mu, logvar).kl_nats.size == 5
        for rows in (4096, 3):  # exact, and by subspace
            pca = PixelPCA.fit(pixels, 2, device="cuda", exact_rows=rows)
            assert pca.mean.device == pca.components.device == CUDA
            assert len(measure(pca, encode_all(pca.encode, pixels, 4, "cuda"), pixels, 4, "cuda").psnr) == 5


def test_faces_are_measured_and_embedded() -> None:
    dsr, face_model = DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size="16")).eval(), EdgeFace("edgeface_xxs")
    recognizer = FrozenRecognizer(face_model.eval(), FaceContract(), "xxs")
    with fake_cuda():
        on_cuda(dsr)
        index = torch.arange(3)
        faces = {"vlr": fake(3, 3, 16, 16), "hr": fake(3, 3, 128, 128)}
        batch = FaceBatch(**faces, identity=index, index=index)
        measure_faces({"DSR": dsr}, [batch], {"xxs": recognizer}, 8)
        assert embed_faces(on_cuda(face_model), fake(3, 3, 128, 128), FaceContract(), flip=True).device == CUDA


def test_a_gallery_is_searched() -> None:
    with fake_cuda():
        probes, templates = fake(5, 512), fake(7, 512)
        search(probes, np.array([0, 1, NOBODY, 3, 4]), templates)
        top_candidates(probes, templates, 3)


def test_ears_are_found() -> None:
    model = EarDetector(
        encoder="conv", image_size=SIDE, crop_size=32, pyramid_width=16, base_channels=4, num_landmarks=5
    ).eval()
    with fake_cuda():
        on_cuda(model).predict([np.zeros((SIDE, 80, 3), np.uint8)])


# The choice of the device


@pytest.mark.parametrize(
    ("name", "there", "chosen"),
    [("auto", True, "mps"), ("mps", True, "mps"), ("cpu", True, "cpu"), ("auto", False, "cpu"), ("cpu", False, "cpu")],
)
def test_apples_gpu_is_chosen_where_there_is_one(
    name: str, there: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(name) == chosen


def test_apples_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"\A`device` mps: .*`device` cpu\Z"):
        choose_device("mps")
