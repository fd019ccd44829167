from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ear_teacher.metrics import baselines
from ear_teacher.metrics.baselines import PixelPCA, hog_features
from earface.data.pixels import to_model_range


def pictures(count=20, side=16, channels=3, seed=0):
    """(count, side, side, channels) uint8 away from black and white, with a decaying spectrum and some noise."""
    patterns = np.random.default_rng(99).normal(size=(12, side * side * channels))
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(count, 12)) * 0.8 ** np.arange(12)
    pixels = 128 + 8 * (weights @ patterns) + rng.normal(size=(count, side * side * channels))
    return pixels.clip(0, 255).round().astype(np.uint8).reshape(count, side, side, channels)


def model_range(images):
    return to_model_range(torch.from_numpy(images))


def reconstruct(pca, images):
    return pca.decode(pca.encode(model_range(images)))


def rows(images):
    return model_range(images).flatten(1).double().numpy()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strip_bytes", [1, 256 * 1024**2])
def test_reconstruction_is_the_projection_by_a_singular_value_decomposition(mirror, channels, strip_bytes, monkeypatch):
    monkeypatch.setattr(baselines, "STRIP_BYTES", strip_bytes)
    train, unseen = pictures(channels=channels), pictures(6, channels=channels, seed=1)
    fitted = rows(np.concatenate([train, train[:, :, ::-1]]) if mirror else train)
    mean = fitted.mean(0)
    basis = np.linalg.svd(fitted - mean, full_matrices=False)[2][:7]
    expected = mean + (rows(unseen) - mean) @ basis.T @ basis
    found = reconstruct(PixelPCA.fit(train, 7, mirror=mirror), unseen)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-5)


def test_codes_are_those_of_scikit_learns_exact_pca_up_to_sign():
    train, unseen = pictures(40), pictures(6, seed=1)
    oracle = PCA(10, svd_solver="full").fit(rows(train))
    codes = PixelPCA.fit(train, 10).encode(model_range(unseen)).numpy()
    np.testing.assert_allclose(np.abs(codes), np.abs(oracle.transform(rows(unseen))), atol=1e-4)


@pytest.mark.parametrize("mirror", [False, True])
def test_as_many_components_as_images_allow_give_the_training_images_back(mirror):
    train = pictures(12, side=32)
    pca = PixelPCA.fit(train, 1000, mirror=mirror)
    assert len(pca.components) == (23 if mirror else 11)
    torch.testing.assert_close(reconstruct(pca, train), model_range(train), atol=1e-5, rtol=0)
    mirrored = train[:, :, ::-1].copy()
    error = (reconstruct(pca, mirrored) - model_range(mirrored)).abs().max()
    assert (error < 1e-5) == mirror


def test_directions_without_variance_are_left_out():
    train = np.concatenate([pictures(5)] * 3)  # 15 rows, of which 4 directions differ
    pca = PixelPCA.fit(train, 14)
    assert len(pca.components) == 4
    torch.testing.assert_close(reconstruct(pca, train), model_range(train), atol=1e-5, rtol=0)
    assert len(PixelPCA.fit(np.full((3, 8, 8, 3), 77, np.uint8), 2).components) == 0


def test_more_components_are_never_worse_on_training_images():
    train = pictures(30)
    errors = [(reconstruct(PixelPCA.fit(train, k), train) - model_range(train)).square().mean() for k in range(1, 30)]
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))


@pytest.mark.parametrize("mirror", [False, True])
def test_subspace_iteration_for_many_images_reconstructs_as_well_as_the_exact_components(mirror):
    train, unseen = pictures(300), pictures(20, seed=1)
    exact, iterated = (PixelPCA.fit(train, 20, mirror=mirror, exact_rows=limit) for limit in (1000, 100))
    torch.testing.assert_close(iterated.components @ iterated.components.T, torch.eye(20), atol=1e-5, rtol=0)
    for images in (train, unseen):
        target = model_range(images)
        best, found = ((reconstruct(pca, images) - target).square().mean().item() for pca in (exact, iterated))
        assert found == pytest.approx(best, rel=0.01)
    again = PixelPCA.fit(train, 20, mirror=mirror, exact_rows=100)
    assert torch.equal(again.components, iterated.components)


def test_hog_sees_neither_brightness_nor_contrast_but_shape():
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(40, 90, (2, 16, 16, 3)), np.ones((1, 4, 4, 1), int)).astype(np.uint8)
    plain, brighter, stronger = (hog_features(i) for i in (images, images + 60, images * 2))
    assert plain.shape == (2, 7 * 7 * 2 * 2 * 9)
    np.testing.assert_allclose(brighter, plain, atol=1e-6)
    np.testing.assert_allclose(stronger, plain, atol=1e-4)
    assert np.abs(hog_features(images[:, :, ::-1]) - plain).max() > 0.1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_hog_has_one_length_for_every_image_size(side, channels):
    assert hog_features(pictures(2, side, channels)).shape == (2, 1764)
