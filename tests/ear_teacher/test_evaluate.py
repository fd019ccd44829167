import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

from ear_teacher import train
from ear_teacher.evaluate import main
from ear_teacher.model import EarVAE
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.synthetic.ear_set import EarSet, write_ear_set

pytestmark = pytest.mark.runs

PICTURES = ("reconstructions", "worst", "best", "samples", "kl_per_dimension", "psnr_histogram")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with 60 synthetic ears of 10 subjects, 18 of them for validation, and an epoch of training on them."""
    folder = tmp_path_factory.mktemp("ears")
    write_ear_set(folder, EarSet(10, 6, 64, seed=1), val_fraction=0.3)
    flags = (
        f"--train-npy {folder}/train_teacher.npy --val-npy {folder}/val_teacher.npy --encoder conv --base-channels 4 "
        "--image-size 64 --latent-dim 16 --linear-path-size 32 --perceptual-weight 0 --epochs 1 --batch-size 8 "
        "--num-workers 0 --precision 32 --progress none --ema-decay 0.9 --grid-images 2 --augment none "
        f"--checkpoint-dir {folder}/run/checkpoints --log-dir {folder}/run/logs"
    )
    code = train.main(flags.split())
    assert code == 0
    return folder


@pytest.fixture(scope="module")
def measured(run):
    """metrics.json and the rows of per_image.csv, of an evaluation with nothing but the checkpoint given."""
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt"]) == 0
    return results(run / "run" / "evaluation" / "last")


def results(folder):
    with (folder / "per_image.csv").open(newline="") as stream:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(stream))


def ears(path):
    data = read_teacher_npy(path)
    return np.stack([np.asarray(Image.open(path)) for path in data.image_paths]), data


def model_of(run, weights="averaged"):
    return EarVAE.load_from_checkpoint(f"{run}/run/checkpoints/last.ckpt", weights=weights)


def to_model(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def quality(images, reconstructed):
    """PSNR and SSIM of each image by scikit-image; images uint8 (N, S, S, 3), reconstructed the same in [0, 1]."""
    values = []
    for image, found in zip(images / 255.0, np.clip(reconstructed, 0, 1).astype(np.float64), strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
        similarity = structural_similarity(found, image, data_range=1.0, **options)
        values.append((peak_signal_noise_ratio(image, found, data_range=1.0), similarity))
    return np.array(values).T


def from_model(images):
    return ((images + 1.0) / 2.0).permute(0, 2, 3, 1).numpy()


def slow_rank1(embeddings, subjects):
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    nearest = [
        max((j for j in range(len(units)) if j != i), key=lambda j: units[i] @ units[j]) for i in range(len(units))
    ]
    return np.mean([subjects[i] == subjects[j] for i, j in enumerate(nearest)]), nearest


def column(rows, name):
    return [float(row[name]) for row in rows]


@torch.no_grad()
def test_psnr_and_ssim_of_the_vae_are_scikit_images(run, measured):
    metrics, rows = measured
    images, _ = ears(run / "val_teacher.npy")
    psnr, ssim = quality(images, from_model(model_of(run).reconstruct(to_model(images))))
    np.testing.assert_allclose(column(rows, "psnr"), psnr, atol=1e-3)
    np.testing.assert_allclose(column(rows, "ssim"), ssim, atol=1e-4)
    assert metrics["psnr"] == pytest.approx(psnr.mean(), abs=1e-4)
    assert metrics["ssim"] == pytest.approx(ssim.mean(), abs=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
def test_pca_is_fitted_on_the_training_images(run, measured, mirror):
    metrics, rows = measured
    (fitted, _), (images, data) = ears(run / "train_teacher.npy"), ears(run / "val_teacher.npy")
    fitted = np.concatenate([fitted, fitted[:, :, ::-1]]) if mirror else fitted
    pca = PCA(16, svd_solver="full").fit(fitted.reshape(len(fitted), -1) / 255.0)
    codes = pca.transform(images.reshape(len(images), -1) / 255.0)
    psnr, ssim = quality(images, pca.inverse_transform(codes).reshape(images.shape))
    prefix = "pca_mirror_" if mirror else "pca_"
    assert metrics[f"{prefix}psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    assert metrics[f"{prefix}ssim"] == pytest.approx(ssim.mean(), abs=1e-4)
    assert metrics[f"{prefix}rank1"] == pytest.approx(slow_rank1(codes, data.subjects)[0])
    assert metrics[f"{prefix}components"] == 16
    if not mirror:
        np.testing.assert_allclose(column(rows, "pca_psnr"), psnr, atol=1e-3)
        np.testing.assert_allclose(column(rows, "pca_ssim"), ssim, atol=1e-4)


@torch.no_grad()
def test_the_linear_path_is_evaluated_without_the_networks(run, measured):
    images, _ = ears(run / "val_teacher.npy")
    path = model_of(run).linear_path
    psnr, ssim = quality(images, from_model(path.decode(path.encode(to_model(images)))))
    assert measured[0]["linear_path_psnr"] == pytest.approx(psnr.mean(), abs=1e-4)
    assert measured[0]["linear_path_ssim"] == pytest.approx(ssim.mean(), abs=1e-5)


@torch.no_grad()
def test_active_units_and_nats_are_those_of_the_posteriors(run, measured):
    metrics, rows = measured
    mu, logvar = model_of(run).encode_posterior(to_model(ears(run / "val_teacher.npy")[0]))
    kl = kl_divergence(Normal(mu.double(), (0.5 * logvar.double()).exp()), Normal(0.0, 1.0))
    np.testing.assert_allclose(column(rows, "kl_nats"), kl.sum(1), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl_per_dimension"], kl.mean(0), rtol=1e-4)
    assert metrics["kl_nats"] == pytest.approx(float(kl.sum(1).mean()), rel=1e-4)
    assert metrics["active_units"] == int((mu.var(0, correction=0) > 0.01).sum())


@torch.no_grad()
def test_neighbors_are_found_by_the_cosine_of_mu_centered_on_the_training_ears(run, measured):
    metrics, rows = measured
    model, (images, data) = model_of(run), ears(run / "val_teacher.npy")
    center = model.encode(to_model(ears(run / "train_teacher.npy")[0])).mean(0)
    rate, nearest = slow_rank1((model.encode(to_model(images)) - center).numpy(), data.subjects)
    assert metrics["rank1"] == pytest.approx(rate)
    assert [row["nearest_path"] for row in rows] == [str(data.image_paths[i]) for i in nearest]
    assert [row["nearest_subject"] for row in rows] == [data.subjects[i] for i in nearest]
    assert (metrics["probes"], metrics["genuine_pairs"], metrics["impostor_pairs"]) == (18, 45, 108)
    assert 0.0 <= metrics["eer"] <= 1.0
    assert 0.0 <= metrics["hog_rank1"] <= 1.0


@torch.no_grad()
def test_the_encoders_maps_are_compared_as_the_latents_are(run, measured):
    model, (images, data) = model_of(run), ears(run / "val_teacher.npy")
    center = model.features(to_model(ears(run / "train_teacher.npy")[0]))[-1].mean((2, 3)).mean(0)
    pooled = model.features(to_model(images))[-1].mean((2, 3)) - center
    rate, _ = slow_rank1(pooled.numpy(), data.subjects)
    assert measured[0]["maps_rank1"] == pytest.approx(rate)


def test_files_record_what_was_measured_and_how(run, measured, capsys):
    metrics, rows = measured
    folder = run / "run" / "evaluation" / "last"
    for name in PICTURES:
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 100
    data = read_teacher_npy(run / "val_teacher.npy")
    assert [(row["path"], row["subject"]) for row in rows] == list(
        zip(map(str, data.image_paths), data.subjects, strict=True)
    )
    assert metrics["checkpoint"] == f"{run}/run/checkpoints/last.ckpt"
    assert (metrics["train_images"], metrics["val_images"], metrics["val_subjects"]) == (42, 18, 3)
    assert (metrics["image_size"], metrics["latent_dim"]) == (64, 16)
    assert "per image" in metrics["convention"]


def test_a_second_evaluation_gives_the_same_bytes(run, measured, tmp_path, capsys):
    glob = f"{run}/run/checkpoints/las*.ckpt"
    assert main(["--checkpoint", glob, "--out", f"{tmp_path}/again", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for word in ("VAE", "pixel PCA", "mirror", "linear path alone", "HOG", "active units", "nats", f"{tmp_path}/again"):
        assert word in printed
    for path in sorted((run / "run" / "evaluation" / "last").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_without_pictures_no_ear_is_shown_nor_left_of_an_earlier_call(run, measured, tmp_path, capsys):
    flags = ["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--out", f"{tmp_path}/out"]
    (tmp_path / "out").mkdir()
    for name in ("worst.png", "mine.png"):
        (tmp_path / "out" / name).write_text("an ear")
    assert main([*flags, "--overwrite", "--no-pictures"]) == 0
    assert f"metrics.json, per_image.csv and plots: {tmp_path}/out" in capsys.readouterr().out
    plots = {"kl_per_dimension.png", "psnr_histogram.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*plots, "mine.png", "metrics.json", "per_image.csv"}
    assert results(tmp_path / "out") == measured


@torch.no_grad()
def test_an_image_array_without_subjects_raw_weights_and_fewer_components(run, tmp_path, capsys):
    images, _ = ears(run / "val_teacher.npy")
    np.save(tmp_path / "array.npy", images[:5])
    arguments = [
        "--val-npy",
        f"{tmp_path}/array.npy",
        "--pca-components",
        "100",
        "--weights",
        "raw",
        "--batch-size",
        "2",
    ]
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--out", f"{tmp_path}/out", *arguments]) == 0
    assert "names no subjects" in capsys.readouterr().out
    metrics, rows = results(tmp_path / "out")
    for name in ("rank1", "eer", "pca_rank1", "hog_rank1", "maps_rank1", "linear_path_rank1", "probes", "val_subjects"):
        assert metrics[name] is None, name
    assert (metrics["pca_components"], metrics["pca_mirror_components"]) == (41, 83)  # of 42 and of 84 images
    assert [row["path"] for row in rows] == [f"{tmp_path}/array.npy row {row}" for row in range(5)]
    psnr, _ = quality(images[:5], from_model(model_of(run, "raw").reconstruct(to_model(images[:5]))))
    np.testing.assert_allclose(column(rows, "psnr"), psnr, atol=1e-3)


def test_people_that_were_trained_on_are_noted(run, tmp_path, capsys):
    arguments = ["--val-npy", f"{run}/train_teacher.npy", "--out", f"{tmp_path}/out"]
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", *arguments]) == 0
    assert "7 subjects are in both files" in capsys.readouterr().out


def test_a_perfect_reconstruction_of_images_without_variance_is_null_in_json(run, tmp_path):
    np.save(tmp_path / "black.npy", np.zeros((2, 64, 64, 3), np.uint8))
    arguments = [
        "--train-npy",
        f"{tmp_path}/black.npy",
        "--val-npy",
        f"{tmp_path}/black.npy",
        "--out",
        f"{tmp_path}/out",
    ]
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", *arguments]) == 0
    metrics, rows = results(tmp_path / "out")
    assert (metrics["pca_psnr"], metrics["pca_ssim"], metrics["pca_components"]) == (None, pytest.approx(1.0), 0)
    assert column(rows, "pca_psnr") == [np.inf, np.inf]


def test_several_files_are_measured_together_and_each(run, measured, tmp_path, capsys):
    data = read_teacher_npy(run / "val_teacher.npy")
    paths = []
    for name, rows in (("a", slice(12)), ("b", slice(12, None))):
        paths.append(str(tmp_path / f"{name}.npy"))
        some = data.image_paths[rows], data.subjects[rows]
        write_teacher_npy(paths[-1], image_paths=some[0], subjects=some[1], collection=name)
    flags = ["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--cache-dir", f"{tmp_path}/cache"]
    assert main([*flags, "--out", f"{tmp_path}/both", "--val-npy", *paths]) == 0
    assert "ears of" in capsys.readouterr().out
    metrics, rows = results(tmp_path / "both")
    for name in ("psnr", "ssim", "rank1", "eer", "pca_psnr", "kl_nats", "val_images", "val_subjects"):
        assert metrics[name] == measured[0][name], name
    assert [row["path"] for row in rows] == [row["path"] for row in measured[1]]
    assert [row["subject"] for row in rows][11:13] == [f"a/{data.subjects[11]}", f"b/{data.subjects[12]}"]
    assert [each["images"] for each in metrics["files"].values()] == [12, 6]
    for path, each in metrics["files"].items():
        assert main([*flags, "--out", f"{tmp_path}/{each['images']}", "--val-npy", path]) == 0
        alone, _ = results(tmp_path / str(each["images"]))
        for name in ("psnr", "ssim", "rank1", "eer"):
            assert each[name] == (pytest.approx(alone[name]) if alone[name] is not None else None), name
        assert alone["files"] == {}


def spoil(run, tmp_path, what):
    """Arguments with one thing wrong."""
    checkpoint = f"{run}/run/checkpoints/last.ckpt"
    if what == "no checkpoint":
        return ["--checkpoint", f"{tmp_path}/none.ckpt"]
    if what == "another model's checkpoint":
        torch.save({"state_dict": {}, "hyper_parameters": {"model": {"scale": 4}}}, tmp_path / "dsr.ckpt")
        return ["--checkpoint", f"{tmp_path}/dsr.ckpt"]
    if what == "half a checkpoint":
        content = (run / "run" / "checkpoints" / "last.ckpt").read_bytes()
        (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
        return ["--checkpoint", f"{tmp_path}/half.ckpt"]
    if what == "no NPY":
        return ["--checkpoint", checkpoint, "--val-npy", f"{tmp_path}/none.npy"]
    if what == "one image":
        np.save(tmp_path / "one.npy", np.zeros((1, 64, 64, 3), np.uint8))
        return ["--checkpoint", checkpoint, "--train-npy", f"{tmp_path}/one.npy"]
    if what == "out is a file":
        (tmp_path / "file").write_text("")
        return ["--checkpoint", checkpoint, "--out", f"{tmp_path}/file"]
    return ["--checkpoint", checkpoint, *what.split()]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no checkpoint", "none.ckpt: no such checkpoint"),
        ("another model's checkpoint", "dsr.ckpt: this checkpoint holds no ear VAE"),
        ("half a checkpoint", "half.ckpt: not a readable checkpoint"),
        ("no NPY", "none.npy: no such file or folder; give the ears by --val-npy"),
        ("one image", "one.npy: 1 usable pictures"),
        ("out is a file", "is a file"),
        ("--batch-size 0", "--batch-size 0: must be at least 1"),
        ("--weights mean", "choose one of averaged, raw"),
        ("--speed 3", "--speed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, capsys, what, message):
    given = spoil(run, tmp_path, what)
    where = [] if "--out" in given else ["--out", f"{tmp_path}/out"]
    assert main([*given, *where]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(run, tmp_path, capsys):
    where = ["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--out", f"{tmp_path}/out"]
    assert main([*where, "--device", "cuda"]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: PyTorch sees no GPU here")


def test_an_exported_folder_is_one_line(run, tmp_path, capsys):
    EarVAE.load_from_checkpoint(f"{run}/run/checkpoints/last.ckpt").save_pretrained(tmp_path / "exported")
    assert main(["--checkpoint", f"{tmp_path}/exported", "--out", f"{tmp_path}/out"]) == 2
    assert "does not name its training data; give the run's .ckpt file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
