import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import f_oneway
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from ear_teacher import train
from ear_teacher.eigenears.appearance import PARTS, appearance, laterality_share, parts, r_squared
from ear_teacher.eigenears.components import picture_metric, principal_components, share_of_pictures
from ear_teacher.eigenears.create_eigenears import main
from ear_teacher.eigenears.factors import (
    ALPHAS,
    COLUMNS,
    cross_validated_r2,
    explained_by_group,
    read_factors,
    ridge_path,
    subject_share,
)
from ear_teacher.eigenears.traversals import nearest_rows, one_side, pairs
from ear_teacher.linear_path import LinearPath
from ear_teacher.loading import Ears
from ear_teacher.metrics.reconstruction import unit_images
from ear_teacher.model import EarVAE
from earface.data.npy import read_teacher_npy
from earface.synthetic.ear_factors import FACTOR_GROUPS, sample_shape, sample_view
from earface.synthetic.ear_set import EarSet, synthesize_ears, write_ear_set

pytestmark = pytest.mark.runs

PICTURES = ("eigenears_grid", "explained_variance", "traversal", "interpolation")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def ears():
    """60 synthetic ears of 12 subjects."""
    return synthesize_ears(EarSet(12, 5, 64, seed=5))[0]


# Components.


def test_in_the_latents_own_metric_they_are_scikit_learns_pca(rng):
    mu = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    found = principal_components(torch.from_numpy(mu), 4, mu[:, 0])
    pca = PCA(4).fit(mu)
    signs = np.sign((pca.components_ * found.directions).sum(axis=1))[:, None]
    np.testing.assert_allclose(found.variance, pca.explained_variance_ratio_)
    np.testing.assert_allclose(found.latent_variance, pca.explained_variance_ratio_)
    stds = np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(found.directions, signs * pca.components_ * stds[:, None])
    np.testing.assert_allclose(found.scores, signs.T * pca.transform(mu) / stds)


def linear_decoder(images, latents):
    """A LinearPath fitted to the images, and their whitened latents (N, D)."""
    path = LinearPath(latents, 3, 16, 32)
    gray = unit_images(images) * 0.2 + 0.4  # far from black and white, where decoded pictures are clipped
    inputs = gray * 2.0 - 1.0
    path.fit(path.downsample(inputs))
    return path, path.encode(inputs)


def test_in_the_pictures_metric_of_a_linear_decoder_they_are_pca_of_the_decoded_pictures(ears):
    path, mu = linear_decoder(ears, 10)
    metric = picture_metric(path, mu.double().numpy(), 4, "cpu")
    found = principal_components(mu, 5, np.arange(60.0), metric)
    decoded = path.decode(mu).flatten(1).double().numpy()
    pca = PCA(5).fit(decoded)
    codes = pca.transform(decoded) / np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(found.variance, pca.explained_variance_ratio_, rtol=1e-3)
    agreement = (codes * found.scores).mean(axis=0)
    np.testing.assert_allclose(np.abs(agreement), 59 / 60, rtol=1e-3)
    for row in range(5):
        step = path.decode(torch.from_numpy(found.mean + found.directions[row]).float()[None])
        step = (step - path.decode(torch.from_numpy(found.mean).float()[None])).flatten().numpy()
        expected = np.sign(agreement[row]) * pca.components_[row] * np.sqrt(pca.explained_variance_[row])
        np.testing.assert_allclose(step, expected, atol=2e-3 * np.abs(expected).max())


def test_in_the_pictures_metric_they_do_not_depend_on_how_the_latents_are_scaled(ears):
    path, mu = linear_decoder(ears, 8)
    scales = torch.logspace(-1, 1, 8)
    first = principal_components(mu, 4, np.arange(60.0), picture_metric(path, mu.double().numpy(), 8, "cpu"))
    path.stds /= scales
    second = principal_components(
        mu * scales, 4, np.arange(60.0), picture_metric(path, (mu * scales).double().numpy(), 8, "cpu")
    )
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-2)
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-3)


def test_a_dead_latent_is_in_no_component(ears):
    path, mu = linear_decoder(ears, 6)
    mu[:, 2] = 0.5
    found = principal_components(mu, 20, np.arange(60.0), picture_metric(path, mu.double().numpy(), 8, "cpu"))
    assert found.scores.shape == (60, 5)
    np.testing.assert_array_equal(found.directions[:, 2], 0.0)


def test_the_positive_end_is_the_brighter_one(rng):
    mu = rng.normal(size=(40, 5))
    brightness = rng.normal(size=40)
    for sign in (1, -1):
        found = principal_components(torch.from_numpy(mu), 5, sign * brightness)
        assert (found.scores.T @ (sign * brightness) > 0).all()


def test_the_share_of_the_pictures_is_scikit_learns_r2_over_all_pixels(ears, rng):
    scores = np.linalg.qr(rng.normal(size=(60, 3)))[0]
    scores -= scores.mean(axis=0)
    pixels = ears.reshape(60, -1).astype(float)
    for row, share in enumerate(share_of_pictures(scores, ears)):
        fitted = LinearRegression().fit(scores[:, [row]], pixels).predict(scores[:, [row]])
        assert share == pytest.approx(r2_score(pixels, fitted, multioutput="variance_weighted"))


# Appearance.


def test_brightness_is_luma_and_slopes_are_those_of_the_least_squares_plane(ears):
    look = appearance(ears)
    luma = ears / 255.0 @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(look.brightness[:, 0], luma.mean(axis=(1, 2)))
    np.testing.assert_allclose(look.colour, ears.mean(axis=(1, 2)) / 255.0)
    places = (np.arange(64) + 0.5) / 32 - 1
    x, y = np.meshgrid(places, places)
    plane = np.stack([x.ravel(), y.ravel(), np.ones(64 * 64)], axis=1)
    slopes = np.linalg.lstsq(plane, luma.reshape(60, -1).T, rcond=None)[0][:2].T
    np.testing.assert_allclose(look.slopes, slopes, atol=1e-12)


def test_r_squared_is_scikit_learns(rng):
    scores, regressors = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    regressors = np.column_stack([regressors, regressors.sum(axis=1)])  # not of full rank
    for row, found in enumerate(r_squared(scores, regressors)):
        expected = LinearRegression().fit(regressors, scores[:, row]).score(regressors, scores[:, row])
        assert found == pytest.approx(expected)


def test_what_pictures_were_made_from_is_found_in_a_score_of_known_mixture(rng):
    count = 200
    codes = np.linalg.qr(rng.normal(size=(count, 8)))[0]
    codes = np.linalg.qr(codes - codes.mean(axis=0))[0]
    level, tint, slope, pattern = codes[:, :4].T * 2.0
    places = (np.arange(32) + 0.5) / 16 - 1
    checks = np.sign(np.sin(places * 9))[:, None] * np.sign(np.sin(places * 9))
    grays = (
        0.5 + 0.4 * level[:, None, None] + 0.4 * slope[:, None, None] * places + 0.3 * pattern[:, None, None] * checks
    )
    red_for_blue = np.array([0.114, 0.0, -0.299]) * 1.5  # luma stays
    images = grays[..., None] + tint[:, None, None, None] * red_for_blue
    images = np.rint(images * 255).clip(0, 255).astype(np.uint8)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    mixed = codes[:, :4] @ np.sqrt(weights)
    shares = parts(np.column_stack([mixed, *codes[:, :4].T]), appearance(images))
    np.testing.assert_allclose([shares[name][0] for name in PARTS], weights, atol=0.02)
    for row, name in enumerate(PARTS):
        assert shares[name][row + 1] > 0.97, name
    np.testing.assert_allclose(sum(shares.values()), 1.0)


def test_gray_pictures_have_no_colour(ears, rng):
    shares = parts(rng.normal(size=(60, 2)), appearance(ears[..., :1]))
    np.testing.assert_allclose(shares["colour"], 0.0, atol=1e-9)


# Factors.


def test_the_ridge_is_scikit_learns_at_every_penalty(rng):
    features, targets, unseen = rng.normal(size=(20, 30)), rng.normal(size=(20, 2)), rng.normal(size=(7, 30))
    for alpha, found in zip(ALPHAS, ridge_path(features, targets, unseen), strict=True):
        np.testing.assert_allclose(found, Ridge(alpha).fit(features, targets).predict(unseen), rtol=1e-6)


def test_a_subjects_own_ears_do_not_help_to_predict_it(rng):
    """Ten ears of each subject share its features and its score: by ear, the score would be known to the digit."""
    owners = np.repeat(np.arange(20), 10)
    features, scores = rng.normal(size=(20, 30))[owners], rng.normal(size=(20, 3))[owners]
    assert (cross_validated_r2(features, scores, np.arange(200)) > 0.99).all()
    assert (cross_validated_r2(features, scores, owners) < 0.2).all()


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """Factors of 300 ears of 60 subjects as read from an index, whose pictures are never opened, and the subjects."""
    folder = tmp_path_factory.mktemp("population")
    rows = [
        {"file": f"{subject}_{index}.png"} | asdict(sample_view(2, subject, index)) | asdict(sample_shape(2, subject))
        for subject in range(60)
        for index in range(5)
    ]
    with (folder / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::-1])
    return read_factors(str(folder / "index.csv"), [str(folder / row["file"]) for row in rows]), np.repeat(range(60), 5)


def test_scores_made_from_a_group_of_factors_are_ascribed_to_it(population, rng):
    factors, owners = population
    azimuth = np.radians(factors["light_azimuth"])
    made = {
        "side": factors["side"],
        "light": np.sin(azimuth + 0.3) * (1 - factors["ambient"]),
        "shape": factors["side"] * (factors["lean"] / 0.12) + factors["concha_depth"],
        "pose": factors["rotation"] * factors["side"] / 20 + factors["scale"],
        "background": np.cos(2 * np.pi * factors["background_hue"]),
        "noise": rng.normal(size=300),
    }
    found = explained_by_group(np.column_stack(list(made.values())), factors, owners)
    for row, name in enumerate(made):
        for group, shares in found.items():
            if group == name:
                assert shares[row] > 0.8, group
            else:
                assert shares[row] < 0.1, (name, group)


def test_every_factor_but_seeds_is_used_once():
    used = [name for columns in COLUMNS.values() for name in columns]
    every = [name for names in FACTOR_GROUPS.values() for name in names]
    assert sorted(used) == sorted(name for name in every if not name.endswith("_pattern") and name != "side")


def test_the_subjects_share_is_that_of_the_analysis_of_variance(rng):
    owners = np.repeat(np.arange(15), 6)
    scores = rng.normal(size=(90, 3)) + rng.normal(size=(15, 3))[owners]
    for row, share in enumerate(subject_share(scores, owners)):
        f = f_oneway(*(scores[owners == subject, row] for subject in range(15))).statistic
        assert share == pytest.approx((f - 1) / (f - 1 + 6))
    assert subject_share(scores, np.zeros(90, int)) is None
    assert subject_share(scores, np.arange(90)) is None


# What is shown.


def test_the_nearest_ears_are_shown_and_none_twice(rng):
    scores = rng.normal(size=100)
    positions = np.linspace(-3, 3, 7)
    rows = nearest_rows(scores, positions)
    assert len(set(rows.tolist())) == 7
    assert rows[0] == np.abs(scores + 3).argmin()
    assert len(nearest_rows(scores[:3], positions)) == 7


def test_pairs_are_of_different_subjects_and_none_is_shown_twice():
    found = pairs(40, [str(row // 20) for row in range(40)])
    assert all(first // 20 != second // 20 for first, second in found)
    assert len({frozenset(pair) for pair in found}) == len(found)
    assert pairs(2, None) == [(0, 1)]
    assert pairs(2, ["a", "a"]) == [(0, 1)]


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with 36 synthetic ears of 6 subjects, 12 of them for validation, and an epoch of training on them."""
    folder = tmp_path_factory.mktemp("ears")
    write_ear_set(folder, EarSet(6, 6, 64, seed=1), val_fraction=0.3)
    flags = (
        f"--train-npy {folder}/train_teacher.npy --val-npy {folder}/val_teacher.npy --encoder conv --base-channels 4 "
        "--image-size 64 --latent-dim 12 --linear-path-size 16 --perceptual-weight 0 --epochs 1 --batch-size 8 "
        "--num-workers 0 --precision 32 --progress none --grid-images 2 --augment none "
        f"--checkpoint-dir {folder}/run/checkpoints --log-dir {folder}/run/logs"
    )
    assert train.main(flags.split()) == 0
    return folder


@pytest.fixture(scope="module")
def created(run):
    """eigenears.json of a call with little but the checkpoint given."""
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--components", "3"]) == 0
    return json.loads((run / "run" / "eigenears" / "eigenears.json").read_text())


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_are_named_beside_the_checkpoints_folder(run, created):
    folder = run / "run" / "eigenears"
    numbers = ("pc_1", "pc_2", "pc_3")
    assert {path.stem for path in folder.glob("*.png")} == {*PICTURES, *numbers, "factors"}
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200, path
    assert [row["component"] for row in created["components"]] == [1, 2, 3]
    for row, metrics in zip(rows_of(folder / "components.csv"), map(dict, created["components"]), strict=True):
        words = {name: metrics.pop(name) for name in ("name", "kind")}
        assert {name: row.pop(name) for name in words} == words
        assert words["kind"] == ("light" if metrics["structure"] < 0.5 else "shape")
        measured = {name: float(value) if value else None for name, value in row.items()}
        assert measured == pytest.approx(metrics, abs=1e-5)


@torch.no_grad()
def test_metrics_are_those_of_the_training_ears(run, created):
    data = read_teacher_npy(run / "train_teacher.npy")
    images = np.stack([np.asarray(Image.open(path)) for path in data.image_paths])
    model = EarVAE.load_from_checkpoint(f"{run}/run/checkpoints/last.ckpt")
    mu = model.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0)
    plain = PCA().fit(mu.double().numpy()).explained_variance_ratio_
    np.testing.assert_allclose(created["plain_pca_of_latents"], plain[:3], rtol=1e-4)
    pixels = PCA(3, svd_solver="full").fit(images.reshape(len(images), -1) / 255.0)
    np.testing.assert_allclose(created["pixel_pca"], pixels.explained_variance_ratio_, rtol=1e-4)
    scores = rows_of(run / "run" / "eigenears" / "scores.csv")
    assert [row["path"] for row in scores] == [str(path) for path in data.image_paths]
    assert [row["subject"] for row in scores] == data.subjects
    values = np.array([[float(row[f"pc_{number}"]) for number in (1, 2, 3)] for row in scores])
    np.testing.assert_allclose(np.cov(values.T), np.eye(3), atol=1e-4)
    luma = images.mean(axis=(1, 2)) @ np.array([0.299, 0.587, 0.114])
    for column, metrics in zip(values.T, created["components"], strict=True):
        assert metrics["brightness"] == pytest.approx(np.corrcoef(column, luma)[0, 1] ** 2, abs=1e-4)
        assert sum(metrics[part] for part in PARTS) == pytest.approx(1.0)
    variances = [metrics["variance"] for metrics in created["components"]]
    assert variances == sorted(variances, reverse=True)
    assert created["first"]["variance"] == pytest.approx(sum(variances))
    assert created["first"]["pictures"] <= created["first"]["pixel_pca"]
    assert created["ears"] == 24


def test_a_second_call_gives_the_same_bytes(run, created, tmp_path, capsys):
    flags = ["--checkpoint", f"{run}/run/checkpoints/las*.ckpt", "--components", "3", "--out", f"{tmp_path}/again"]
    assert main([*flags, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for word in ("variance", *PARTS, "subject", "factors", "first 3", "pixel PCA", "only 24 ears", f"{tmp_path}/again"):
        assert word in printed
    for path in sorted((run / "run" / "eigenears").glob("*.*")):
        if path.name != "eigenears.json":  # names the checkpoint as it was found
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_ears_without_names_and_more_components_than_there_are(run, tmp_path, capsys):
    data = read_teacher_npy(run / "val_teacher.npy")
    np.save(tmp_path / "array.npy", np.stack([np.asarray(Image.open(path)) for path in data.image_paths[:4]]))
    (tmp_path / "out").mkdir()
    for stale in ("pc_3.png", "pc_4.png", "factors.png", "pc_notes.png"):
        (tmp_path / "out" / stale).write_text("from an earlier call")
    flags = f"--npy {tmp_path}/array.npy --out {tmp_path}/out --metric latent --steps 5 --sigmas 2 --weights raw"
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--overwrite", *flags.split()]) == 0
    assert "3 components, not 16" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "eigenears.json").read_text())
    assert found["metric"] == "latent"
    assert sum(metrics["variance"] for metrics in found["components"]) == pytest.approx(1.0)
    assert "subject" not in found["components"][0]
    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {*(f"{name}.png" for name in PICTURES), "pc_1.png", "pc_2.png", "pc_3.png", "pc_notes.png"}
    assert (tmp_path / "out" / "pc_3.png").stat().st_size > 1000


def test_factors_are_left_out_if_there_are_too_few_subjects(run, tmp_path, capsys):
    """The index beside the NPY was not asked for."""
    flags = f"--npy {run}/val_teacher.npy --out {tmp_path}/out --components 2 --metric latent --steps 5"
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", *flags.split()]) == 0
    assert json.loads((tmp_path / "out" / "eigenears.json").read_text())["factors"] is None


def spoil(run, tmp_path, what):
    """Arguments with one thing wrong."""
    index = (run / "index.csv").read_text().splitlines()
    if what == "one image":
        np.save(tmp_path / "one.npy", np.zeros((1, 64, 64, 3), np.uint8))
        return ["--npy", f"{tmp_path}/one.npy"]
    if what == "equal images":
        np.save(tmp_path / "equal.npy", np.zeros((3, 64, 64, 3), np.uint8))
        return ["--npy", f"{tmp_path}/equal.npy"]
    if what == "another model's checkpoint":
        torch.save({"state_dict": {}, "hyper_parameters": {"model": {"scale": 4}}}, tmp_path / "dsr.ckpt")
        return ["--checkpoint", f"{tmp_path}/dsr.ckpt"]
    if what == "no column":
        (tmp_path / "index.csv").write_text("\n".join(line.replace("yaw", "jaw") for line in index))
        return ["--factors", f"{tmp_path}/index.csv"]
    if what == "other rows":
        (tmp_path / "index.csv").write_text("\n".join(index))  # its files are relative to its own folder
        return ["--factors", f"{tmp_path}/index.csv"]
    if what == "no number":
        column = index[0].split(",").index("yaw")
        broken = index[1].split(",")
        broken[column] = "left"
        rows = [index[0], ",".join(broken), *index[2:]]
        absolute = [rows[0], *(row.replace("images/", f"{run}/images/") for row in rows[1:])]
        (tmp_path / "index.csv").write_text("\n".join(absolute))
        flags = ["--npy", f"{run}/train_teacher.npy"] if ",train," in index[1] else ["--npy", f"{run}/val_teacher.npy"]
        return ["--factors", f"{tmp_path}/index.csv", *flags]
    if what == "two subjects":
        return ["--npy", f"{run}/val_teacher.npy", "--factors", f"{run}/index.csv"]
    if what == "out is a file":
        (tmp_path / "file").write_text("")
        return ["--out", f"{tmp_path}/file"]
    return what.split()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("one image", "one.npy: 1 usable pictures"),
        ("equal images", "the latents of these ears do not differ"),
        ("another model's checkpoint", "dsr.ckpt: this checkpoint holds no ear VAE"),
        ("no column", "no column 'yaw'"),
        ("other rows", "has no row for 24 of the 24 ears"),
        ("no number", "yaw 'left' is not a number"),
        ("two subjects", "fewer than 3 subjects"),
        ("out is a file", "is a file; give a folder"),
        ("--factors none.csv", "none.csv: no such file"),
        ("--npy none.npy", "none.npy: no such file or folder; give it by --npy"),
        ("--checkpoint none.ckpt", "none.ckpt: no such checkpoint"),
        ("--components 0", "--components 0: must be at least 1"),
        ("--sigmas 0", "--sigmas 0.0: must be above 0"),
        ("--metric pixels", "choose one of picture, latent"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, capsys, what, message):
    default = ["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--components", "2"]
    wrong = spoil(run, tmp_path, what)
    where = [] if "--out" in wrong else ["--out", f"{tmp_path}/out"]
    assert main([*default, *where, *wrong]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_laterality_is_the_share_that_left_and_right_explain() -> None:
    """A score that is the side itself, one that is nothing of it, one half of each; unknown sides do not count."""
    rng = np.random.default_rng(4)
    sides = np.tile(["l", "r"], 500)
    own = np.where(sides == "l", 1.0, -1.0)
    noise = rng.standard_normal(1000)
    noise -= own * (own @ noise) / 1000
    noise /= noise.std()
    scores = np.stack([own, noise, (own + noise) / np.sqrt(2)], axis=1)
    np.testing.assert_allclose(laterality_share(scores, sides.tolist()), [1, 0, 0.5], atol=1e-9)
    unknown = np.vstack([scores, np.full((50, 3), 9.0)])
    np.testing.assert_allclose(laterality_share(unknown, [*sides, *[""] * 50]), [1, 0, 0.5], atol=1e-9)
    assert laterality_share(scores, ["l"] * 1000) is None


@pytest.mark.parametrize(
    ("sides", "mirrored", "rows", "words"),
    [
        (["l", "r", "r", "", "r"], False, [1, 2, 4], ", shown on right ears"),
        (["l", "l", "r", "", "r", "l"], False, [0, 1, 5], ", shown on left ears"),
        (["l", "r", "r", "", "r"], True, [0, 1, 2, 3, 4], ""),
        (["", "", "r"], False, [0, 1, 2], ""),
        (None, False, [0, 1, 2], ""),
    ],
)
def test_the_ears_that_are_shown_are_of_the_commoner_side(sides, mirrored, rows, words):
    count = len(sides or rows)
    ears = Ears("e.npy", np.zeros((count, 8, 8, 3), np.uint8), ["e"] * count, None, 0, sides, mirrored)
    found, text = one_side(ears)
    assert (found.tolist(), text) == (rows, words)


def test_every_drawn_ear_is_of_one_side(run, tmp_path, monkeypatch):
    """Of synthetic ears, whose sides stand in index.csv: all input ears that are drawn."""
    drawn = []
    monkeypatch.setattr(
        "ear_teacher.eigenears.traversals.unit_images", lambda images: drawn.extend(images) or unit_images(images)
    )
    flags = f"--components 2 --metric latent --out {tmp_path}/out --npy {run}/train_teacher.npy"
    assert main(["--checkpoint", f"{run}/run/checkpoints/last.ckpt", *flags.split()]) == 0
    side = {row["file"]: row["side"] for row in rows_of(run / "index.csv")}
    data = read_teacher_npy(run / "train_teacher.npy")
    known = {np.asarray(Image.open(path)).tobytes(): side[f"images/{path.name}"] for path in data.image_paths}
    counts = {each: list(known.values()).count(each) for each in ("l", "r")}
    assert min(counts.values()) > 3
    (shown,) = {known[np.asarray(image).tobytes()] for image in drawn}
    assert counts[shown] == max(counts.values())


def test_without_pictures_no_ear_is_shown_nor_left_of_an_earlier_call(run, tmp_path):
    flags = f"--components 2 --metric latent --out {tmp_path}/out"
    (tmp_path / "out").mkdir()
    for name in ("pc_9.png", "traversal.png"):
        (tmp_path / "out" / name).write_text("an ear")
    argv = ["--checkpoint", f"{run}/run/checkpoints/last.ckpt", "--overwrite", *flags.split()]
    assert main([*argv, "--no-pictures"]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"explained_variance.png", "factors.png"}
    assert (tmp_path / "out" / "eigenears.json").exists()
