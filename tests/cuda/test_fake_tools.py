"""What tools do with trained models on CUDA, on fake tensors: no two devices meet, and calls of a model stay on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dsr.config import DSRConfig
from dsr.inference import super_resolve
from dsr.metrics import measure as measure_faces
from dsr.model import DSR
from dsr.upsampler import build_upsampler
from dsr.upscaling import SmallFaces, write_comparison, write_faces
from ear_teacher.detector.model import EarDetector
from ear_teacher.ear_reader import EarReader, image_sources
from ear_teacher.encoding import encode_sources
from ear_teacher.metrics.baselines import PixelPCA
from ear_teacher.metrics.reconstruction import decode_unit, encode_all, encode_posteriors, latent_use, measure
from ear_teacher.model import EarVAE
from ear_teacher.posterior import AggregatePosterior, LatentMoments
from ear_teacher.recognition.loading import TrainedEarRecognizer
from ear_teacher.recognition.model import EarRecognizer
from earface.data.face_rows import read_faces
from earface.data.folders import list_images, scan_images
from earface.data.image_grid import save_image_grid
from earface.data.images import read_image
from earface.metrics.identification import rank_one_hits
from earface.nn.edgeface import EMBEDDING_DIM
from earface.nn.embedding import PictureFile
from earface.nn.frozen import FrozenRecognizer
from earface.nn.upsampler import Upsampler
from earface.training.loggers import MetricsCSV
from facial_rec.contract import FaceContract
from facial_rec.embedding import embed_faces, embed_pictures
from facial_rec.model import EdgeFace
from facial_rec.recognizer import FaceRecognizer as PipelineRecognizer
from pipeline.search import NOBODY, score_chunks, search, top_candidates
from tests.cuda.cases import CASES, Files, Standing
from tests.cuda.fake import CUDA, PRECISIONS, fake, fake_cuda, on_cuda

pytestmark = pytest.mark.runs

SIDE, LATENTS = 64, 16
HALF = {"16": "float16", "bf16": "bfloat16"}


@pytest.fixture(scope="module")
def vae() -> EarVAE:
    model = EarVAE(encoder="conv", image_size=SIDE, latent_dim=LATENTS, base_channels=8, linear_path_size=16).eval()
    moments = LatentMoments(LATENTS)
    moments.add(torch.randn(64, LATENTS), torch.zeros(64, LATENTS))
    model.posterior = AggregatePosterior.fit(moments)
    return model


@pytest.fixture(scope="module")
def detector() -> EarDetector:
    return EarDetector(
        encoder="conv", image_size=SIDE, crop_size=32, pyramid_width=16, base_channels=4, num_landmarks=5
    ).eval()


@pytest.fixture(scope="module")
def dsr() -> DSR:
    return DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size="16")).eval()


@pytest.fixture(scope="module")
def face_model() -> EdgeFace:
    return EdgeFace("edgeface_xxs").eval()


@pytest.fixture(scope="module")
def ear_recognizer() -> EarRecognizer:
    return EarRecognizer(backbone="conv", image_size=SIDE, embedding_dim=LATENTS, base_channels=8).eval()


def assert_there(value: Any) -> None:
    """A tensor, or some in a list or tuple, on the GPU."""
    for tensor in [value] if isinstance(value, Tensor) else value:
        assert tensor.device == CUDA


# The models' own calls

VAE_CALLS: dict[str, Callable[[EarVAE, Tensor], Any]] = {
    "forward": lambda model, ears: model(ears),
    "encode": lambda model, ears: model.encode(ears),
    "encode_posterior": lambda model, ears: model.encode_posterior(ears),
    "decode": lambda model, ears: model.decode(ears.new_empty(len(ears), LATENTS)),
    "reconstruct": lambda model, ears: model.reconstruct(ears),
    "features": lambda model, ears: model.features(ears),
    "pooled_features": lambda model, ears: model.pooled_features(ears),
    "interpolate": lambda model, ears: model.interpolate(ears, ears.flip(3), 3),
}


@pytest.mark.parametrize("call", VAE_CALLS.values(), ids=VAE_CALLS)
@pytest.mark.parametrize("count", [1, 11])  # 11: more than one inference batch
def test_a_vae_answers_on_the_gpu_without_traffic(
    vae: EarVAE, call: Callable[[EarVAE, Tensor], Any], count: int
) -> None:
    with fake_cuda() as traffic, torch.no_grad():
        on_cuda(vae)
        ears = fake(count, 3, SIDE, SIDE)
        traffic.clear()
        assert_there(call(vae, ears))
    assert not traffic.events, traffic.report()


@pytest.mark.parametrize("source", ["prior", "posterior"])
def test_samples_are_drawn_on_the_cpu_and_copied_once(vae: EarVAE, source: str) -> None:
    with fake_cuda() as traffic:
        on_cuda(vae)
        traffic.clear()
        assert_there(vae.sample(3, source))
    assert [event.kind for event in traffic.events] == ["to device"], traffic.report()


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_super_resolver_reads_once_whether_pixels_are_finite(dsr: DSR, name: str) -> None:
    option = {each: flag for flag, each in HALF.items()}.get(name, "32")
    with fake_cuda() as traffic, torch.no_grad():
        on_cuda(dsr)
        vlr = fake(11, 3, 16, 16)
        traffic.clear()
        faces = super_resolve(dsr, vlr, option)
    assert (faces.device, faces.dtype, tuple(faces.shape)) == (CUDA, torch.float32, (11, 3, 128, 128))
    assert [event.kind for event in traffic.events] == ["synchronisation"], traffic.report()
    assert traffic.products == {PRECISIONS[name]}


@pytest.mark.parametrize("flip", [False, True])
def test_faces_are_embedded_without_traffic(face_model: EdgeFace, flip: bool) -> None:
    with fake_cuda() as traffic:
        on_cuda(face_model)
        crops = fake(19, 3, 128, 128)
        embed_faces(face_model, crops, FaceContract(), flip=flip)  # a first call may move what is constant
        traffic.clear()
        embeddings = embed_faces(face_model, crops, FaceContract("center"), flip=flip)
    assert (embeddings.device, embeddings.dtype, tuple(embeddings.shape)) == (CUDA, torch.float32, (19, EMBEDDING_DIM))
    assert not traffic.events, traffic.report()


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_pipelines_recognizer_and_routes(face_model: EdgeFace, dsr: DSR, name: str) -> None:
    option: Any = {each: flag for flag, each in HALF.items()}.get(name, "32")
    upsamplers = [build_upsampler("bicubic", ""), Upsampler("dsr", lambda vlr: super_resolve(dsr, vlr, option))]
    with fake_cuda() as traffic, torch.no_grad():
        recognizer = PipelineRecognizer("xxs", on_cuda(face_model), FaceContract(), "cuda", option)
        on_cuda(dsr)
        traffic.clear()
        for upsampler in upsamplers:
            assert_there(recognizer(upsampler.enlarge(fake(3, 3, 16, 16))))
    assert traffic.products <= {PRECISIONS[name], torch.float32}
    assert PRECISIONS[name] in traffic.products


@pytest.mark.parametrize("name", PRECISIONS)
def test_ears_are_recognised_without_traffic(ear_recognizer: EarRecognizer, name: str) -> None:
    option: Any = {each: flag for flag, each in HALF.items()}.get(name, "32")
    with fake_cuda() as traffic:
        trained = TrainedEarRecognizer(on_cuda(ear_recognizer), Path("a.ckpt"), None, "cuda", option)
        ears = fake(19, 3, SIDE, SIDE)  # more than one inference batch
        trained(ears)  # a first call may move what is constant
        traffic.clear()
        embeddings = trained(ears)
    assert (embeddings.device, embeddings.dtype, tuple(embeddings.shape)) == (CUDA, torch.float32, (19, LATENTS))
    assert not traffic.events, traffic.report()
    assert traffic.products == {PRECISIONS[name]}


# Detection


def test_what_a_detector_selects_is_copied_to_the_cpu_at_once(detector: EarDetector) -> None:
    with fake_cuda() as traffic, torch.no_grad():
        answers = on_cuda(detector).boxes(fake(2, 3, SIDE, SIDE))
        traffic.clear()
        for boxes, scores in detector.select(*answers):
            assert {boxes.device.type, scores.device.type} == {"cpu"}
    assert [event.kind for event in traffic.events] == ["to host"], traffic.report()


def test_a_detector_predicts_in_photographs(detector: EarDetector) -> None:
    photographs = [np.zeros((48, 80, 3), np.uint8), np.zeros((70, 50, 1), np.uint8)]
    with fake_cuda():
        on_cuda(detector)
        for found in (*detector.predict(photographs), *detector([fake(3, 40, 60)])):
            assert_there(list(found.values()))
            assert found["keypoints"].shape[1:] == (5, 3)


# Search


@pytest.mark.parametrize("scores", [1, 2**25], ids=["chunks", "whole"])
def test_a_gallery_is_searched_on_the_gpu(scores: int) -> None:
    with fake_cuda():
        probes, templates = fake(37, 8), fake(21, 8)
        for _, chunk in score_chunks(probes, templates, scores):
            assert_there(chunk)
        assert_there(top_candidates(probes, templates, 5, scores=scores))
        mates = np.array([NOBODY, *range(18), *range(18)])
        for most in (10, 10**6):
            found = search(probes, mates, templates, max_comparisons=most, scores=scores)
            assert len(found.rank) == len(found.best) == 37


def test_rank_one_is_measured_on_the_cpu() -> None:
    """As callers hand it over: embeddings that were copied there."""
    with fake_cuda():
        embeddings = fake(6, 8).cpu()
        assert rank_one_hits(embeddings[:2], ["a", "b"], embeddings[2:], ["a", "b", "c", "d"]).device.type == "cpu"


# Measuring and writing


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, SIDE, SIDE, 3), dtype=np.uint8)


def test_ears_are_measured(vae: EarVAE, pixels: np.ndarray) -> None:
    with fake_cuda():
        on_cuda(vae)
        mu, logvar = encode_posteriors(vae, pixels, 4, "cuda")
        linear = vae.linear_path
        assert linear is not None
        codes = encode_all(linear.encode, pixels, 4, "cuda")
        assert {each.device.type for each in (mu, logvar, codes)} == {"cpu"}
        for method, own in ((vae, mu), (linear, codes)):
            assert len(measure(method, own, pixels, 4, "cuda").psnr) == len(pixels)
            assert decode_unit(method, own, "cuda").device.type == "cpu"
        assert latent_use(mu, logvar).kl_nats.shape == (len(pixels),)


@pytest.mark.parametrize("rows", [4096, 5], ids=["exact", "subspace"])
def test_pixel_pca_is_fitted_and_used_on_the_gpu(pixels: np.ndarray, rows: int) -> None:
    with fake_cuda():
        pca = PixelPCA.fit(pixels, 3, mirror=True, device="cuda", exact_rows=rows)
        codes = encode_all(pca.encode, pixels, 4, "cuda")
        assert decode_unit(pca, codes, "cuda").shape == (11, 3, SIDE, SIDE)


def test_faces_are_measured(dsr: DSR, face_model: EdgeFace) -> None:
    recognizer = FrozenRecognizer(face_model, FaceContract(), "xxs")
    with fake_cuda():
        on_cuda(dsr)
        batches = [{"vlr": fake(3, 3, 16, 16), "hr": fake(3, 3, 128, 128)}]
        found = measure_faces({"DSR": dsr}, batches, {"xxs": recognizer}, 8)
    assert found["DSR"].embeddings["xxs"].device.type == "cpu"
    assert found["DSR"].quality["psnr"].shape == (3,)


def test_faces_are_upscaled_into_files(dsr: DSR, tmp_path: Path) -> None:
    paths = [Path("a.png"), Path("b.png"), Path("c.png")]
    faces = SmallFaces(paths, np.zeros((3, 16, 16, 3), np.uint8), [])
    targets = {path: tmp_path / path for path in paths}
    with fake_cuda(), torch.no_grad():
        on_cuda(dsr)
        write_faces(dsr, faces, targets, "cuda", "32", 2)
        write_comparison(dsr, faces, tmp_path / "sheet.png", "cuda", "32")
    assert all(read_image(path).shape == (128, 128, 3) for path in targets.values())


def test_pictures_of_faces_are_embedded(face_model: EdgeFace, files: Files) -> None:
    faces = [PictureFile(row.path, "") for row in read_faces(files.faces, ("val",))]
    with fake_cuda():
        found = embed_pictures(on_cuda(face_model), faces, FaceContract(), batch_size=2, device="cuda", workers=1)
    assert found.embeddings.shape == (len(faces), EMBEDDING_DIM)


def test_pictures_of_ears_are_encoded(ear_recognizer: EarRecognizer, vae: EarVAE, ear_set: Path) -> None:
    ears = image_sources(list_images(ear_set / "images")[:5], ear_set)
    with fake_cuda():
        for model, encode, count in (
            (ear_recognizer, lambda images: (ear_recognizer.embed_exactly(images),), 1),
            (vae, vae.encode_posterior, 2),
        ):
            reader = EarReader(on_cuda(model).config)
            found = encode_sources(encode, ears, reader, batch_size=2, device="cuda")
            assert [each.shape for each in found.values] == [(5, LATENTS)] * count


# An epoch of validation: its pictures, and its end


@pytest.mark.parametrize(
    "name", ["ear teacher, conv", "detector, conv, landmarks", "dsr, all terms", "edgeface, stage 2, arcface"]
)
def test_an_epoch_of_validation_begins_and_ends(
    name: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name](files)
    module, shown = case.module, list[str]()
    monkeypatch.setattr(module, "log_validation", lambda means, shown: None)
    monkeypatch.setattr(module, "print", shown.append)
    with fake_cuda(), torch.no_grad():
        module._trainer = Standing(case.datamodule, loggers=[MetricsCSV(tmp_path)])
        on_cuda(module).eval()
        for _ in range(2):
            module.on_validation_epoch_start()
            batch = case.datamodule.on_after_batch_transfer(on_cuda(case.validation), 0)
            module.on_validation_batch_end(module.validation_step(batch, 0), batch, 0)
            module.on_validation_epoch_end()
    assert bool(scan_images(tmp_path).paths) != name.startswith("edgeface")  # whose trainer draws none


def test_a_sheet_is_made_of_pictures_on_the_gpu(tmp_path: Path) -> None:
    with fake_cuda():
        save_image_grid(tmp_path / "sheet.png", {"ears": fake(3, 1, 16, 16), "others": fake(3, 3, 16, 16)})
    assert read_image(tmp_path / "sheet.png").shape[2] == 3
