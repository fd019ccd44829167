"""Embeddings of folders and NPY files, kept in tables; what is found, grouped and shown with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from ear_teacher import EarVAE, train
from ear_teacher.embeddings.embedder import LATENTS
from ear_teacher.embeddings.neighbors import cluster, most_similar
from ear_teacher.embeddings.plots import Shown, save_neighbors, thumbnail_side, tile
from ear_teacher.embeddings.table import Embeddings, read_embeddings, write_embeddings
from ear_teacher.extract import main
from earface.core.errors import InputError
from earface.data.npy import read_teacher_npy, write_teacher_npy
from tests.conftest import TINY

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def checkpoint(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.ckpt of an epoch of training, with an average of the weights."""
    folder = tmp_path_factory.mktemp("run")
    data = ("--train-npy", f"{ear_set}/train_teacher.npy", "--val-npy", f"{ear_set}/val_teacher.npy")
    places = ("--checkpoint-dir", f"{folder}/checkpoints", "--log-dir", f"{folder}/logs")
    assert train.main([*data, *places, *TINY, "--perceptual-weight", "0", "--epochs", "1", "--ema-decay", "0.9"]) == 0
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def people(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 40 training ears in a folder per person."""
    folder = tmp_path_factory.mktemp("people")
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    for path, subject in zip(data.image_paths, data.subjects, strict=True):
        (folder / subject).mkdir(exist_ok=True)
        shutil.copy(path, folder / subject)
    return folder


@pytest.fixture(scope="module")
def table(checkpoint: Path, people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The people's embeddings as .npz, with subjects and log variances."""
    out = tmp_path_factory.mktemp("table") / "ears.npz"
    assert extract(checkpoint, "--input", people, "--folder-subjects", "--logvar", "--out", out) == 0
    return out


def extract(checkpoint: Path, *arguments: object) -> int:
    return main(["--checkpoint", str(checkpoint), "--overwrite", *map(str, arguments)])


def pixels(paths: list[str]) -> torch.Tensor:
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


def found_by(printed: str) -> list[tuple[float, str]]:
    """Cosine and path of each line of a printed search."""
    lines = re.findall(r"^ +\d+ +(-?\d\.\d{4})(?:  subject \S+)?  (.+)$", printed, re.MULTILINE)
    return [(float(cosine), path) for cosine, path in lines]


# What is written


def test_a_table_holds_what_the_model_makes_of_each_picture(checkpoint: Path, people: Path, table: Path) -> None:
    found = read_embeddings(table)
    assert found.paths == sorted(str(path) for path in people.rglob("*.png"))
    assert found.subjects == [Path(path).parent.name for path in found.paths]
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    with torch.no_grad():
        mu, logvar = model.encode_posterior(pixels(found.paths))
    assert torch.equal(torch.from_numpy(found.embeddings), mu)
    assert torch.equal(torch.from_numpy(found.logvar), logvar)
    assert (found.metadata["image_size"], found.metadata["latent_dim"], found.metadata["weights"]) == (
        64,
        8,
        "averaged",
    )


def test_numpy_reads_a_table_without_pickle(table: Path) -> None:
    with np.load(table, allow_pickle=False) as archive:
        assert archive["embeddings"].shape == (40, 8)
        assert archive["embeddings"].dtype == np.float32
        assert archive["paths"].shape == archive["subjects"].shape == (40,)
        assert len(json.loads(str(archive["metadata"]))["digest"]) == 64


@pytest.mark.parametrize("name", ["again.npz", "again.parquet"])
def test_a_second_run_with_another_batch_size_gives_the_same_bytes(
    checkpoint: Path, people: Path, tmp_path: Path, name: str
) -> None:
    for folder, batch in (("a", 1), ("b", 37)):
        assert extract(checkpoint, "--input", people, "--batch-size", batch, "--out", tmp_path / folder / name) == 0
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_folder_files_paths_and_pixels_give_the_same_embeddings(
    checkpoint: Path, ear_set: Path, table: Path, tmp_path: Path
) -> None:
    by_file = read_embeddings(table)
    wanted = {Path(path).name: row for path, row in zip(by_file.paths, by_file.embeddings, strict=True)}
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    np.save(tmp_path / "pixels.npy", np.stack([np.asarray(Image.open(path)) for path in data.image_paths]))
    files = [str(path) for path in data.image_paths]
    for inputs in ([ear_set / "train_teacher.npy"], [tmp_path / "pixels.npy"], files):
        assert extract(checkpoint, "--input", *inputs, "--out", tmp_path / "out.npz") == 0
        found = read_embeddings(tmp_path / "out.npz")
        assert np.array_equal(found.embeddings, np.stack([wanted[path.name] for path in data.image_paths]))
        if inputs is not files:
            assert found.subjects == (data.subjects if inputs[0].parent == ear_set else None)
    assert found.paths == files


def test_parquet_holds_the_same_as_npz(checkpoint: Path, people: Path, table: Path, tmp_path: Path) -> None:
    arguments = ("--input", people, "--folder-subjects", "--logvar", "--clusters", 3)
    for name in ("a.npz", "a.parquet"):
        assert extract(checkpoint, *arguments, "--out", tmp_path / name) == 0
    npz, parquet = read_embeddings(tmp_path / "a.npz"), read_embeddings(tmp_path / "a.parquet")
    assert (parquet.paths, parquet.subjects, parquet.metadata) == (npz.paths, npz.subjects, npz.metadata)
    for name in ("embeddings", "logvar", "cluster"):
        ours, theirs = getattr(npz, name), getattr(parquet, name)
        assert np.array_equal(ours, theirs), name
        assert ours.dtype == theirs.dtype, name
    arrow = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert np.array_equal(np.stack(arrow["embeddings"].to_numpy()), read_embeddings(table).embeddings)


def test_several_inputs_follow_each_other(checkpoint: Path, people: Path, ear_set: Path, tmp_path: Path) -> None:
    image = min(people.rglob("*.png"))
    inputs = (image, ear_set / "val_teacher.npy", people)
    assert extract(checkpoint, "--input", *inputs, "--out", tmp_path / "out.npz") == 0
    found = read_embeddings(tmp_path / "out.npz")
    assert len(found) == 1 + 10 + 40
    assert found.paths[0] == found.paths[11] == str(image)
    assert np.array_equal(found.embeddings[0], found.embeddings[11])
    assert [subject == "" for subject in found.subjects] == [True] + [False] * 10 + [True] * 40


# Boxes


@pytest.fixture
def photographs(people: Path, tmp_path: Path) -> Path:
    """photos.npy: 12 ears in larger pictures, with boxes; and crops/: the same ears by themselves."""
    generator = np.random.default_rng(0)
    paths, boxes = [], []
    (tmp_path / "crops").mkdir()
    (tmp_path / "photos").mkdir()
    for path in sorted(people.rglob("*.png"))[:12]:
        left, top = generator.integers(1, 30, 2)
        photo = Image.fromarray(generator.integers(0, 255, (100, 110, 3), np.uint8))
        photo.paste(Image.open(path), (left, top))
        photo.save(tmp_path / "photos" / path.name)
        shutil.copy(path, tmp_path / "crops")
        paths.append(f"photos/{path.name}")
        boxes.append((left, top, 64, 64))
    write_teacher_npy(tmp_path / "photos.npy", image_paths=paths, bboxes=np.array(boxes))
    return tmp_path


def test_photographs_are_cropped_to_their_boxes(checkpoint: Path, photographs: Path) -> None:
    photos = ("--input", photographs / "photos.npy")
    assert extract(checkpoint, *photos, "--crop-to-bbox", "true", "--out", photographs / "cut.npz") == 0
    assert extract(checkpoint, *photos, "--out", photographs / "whole.npz") == 0  # trained without --crop-to-bbox
    assert extract(checkpoint, "--input", photographs / "crops", "--out", photographs / "crops.npz") == 0
    cut, whole, crops = (read_embeddings(photographs / f"{name}.npz") for name in ("cut", "whole", "crops"))
    assert np.array_equal(cut.embeddings, crops.embeddings)
    assert not np.allclose(whole.embeddings, crops.embeddings, atol=1e-3)
    assert np.array_equal(cut.boxes, read_teacher_npy(photographs / "photos.npy").bboxes)
    assert whole.boxes is None


def test_a_photograph_of_the_table_is_asked_for_by_its_box(
    checkpoint: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = ("--input", photographs / "photos.npy", "--crop-to-bbox", "true", "--out", photographs / "cut.parquet")
    assert extract(checkpoint, *photos) == 0
    found = []
    for given, folder in (("cut.parquet", "photos"), ("crops", "crops")):
        query = min((photographs / folder).iterdir())
        assert (
            extract(checkpoint, "--input", photographs / given, "--search", query, "--out", photographs / "o.npz") == 0
        )
        found.append([(cosine, Path(path).name) for cosine, path in found_by(capsys.readouterr().out)])
    assert len(found[0]) == 5
    assert found[0] == found[1]


def test_an_exported_model_needs_crop_to_bbox_for_files_with_boxes(
    checkpoint: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EarVAE.load_from_checkpoint(str(checkpoint)).save_pretrained(photographs / "exported")
    photos = ("--input", photographs / "photos.npy", "--out", photographs / "out.npz")
    assert extract(photographs / "exported", *photos) == 2
    assert "add --crop-to-bbox true or false" in capsys.readouterr().err
    assert extract(photographs / "exported", *photos, "--crop-to-bbox", "true") == 0
    assert read_embeddings(photographs / "out.npz").boxes is not None


# Pictures that cannot be read


@pytest.mark.parametrize(("broken", "code"), [(2, 0), (3, 2)])
def test_unreadable_pictures_are_left_out_and_listed_up_to_one_in_twenty(
    checkpoint: Path,
    people: Path,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    broken: int,
    code: int,
) -> None:
    shutil.copytree(people, tmp_path / "people")
    paths = sorted((tmp_path / "people").rglob("*.png"))
    for path in paths[4 : 4 + broken]:
        path.write_bytes(path.read_bytes()[:99])
    assert extract(checkpoint, "--input", tmp_path / "people", "--out", tmp_path / "out.npz") == code
    printed = capsys.readouterr()
    if code:
        assert "3 or more of 40 pictures cannot be used, over 5%" in printed.err
        assert str(paths[4]) in printed.err
        assert not (tmp_path / "out.npz").exists()
        return
    found = read_embeddings(tmp_path / "out.npz")
    assert found.paths == [str(path) for path in paths[:4] + paths[6:]]
    assert np.array_equal(found.embeddings, np.delete(read_embeddings(table).embeddings, [4, 5], axis=0))
    assert [name for name, _ in found.metadata["skipped"]] == [str(path) for path in paths[4:6]]
    assert "2 of 40 pictures cannot be used" in printed.out
    assert f"{paths[5]}: " in printed.out


# Search


def test_a_search_prints_the_neighbors_that_scikit_learn_finds(
    checkpoint: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ears = read_embeddings(table)
    query = ears.paths[7]
    out = tmp_path / "out.parquet"
    assert extract(checkpoint, "--embeddings", table, "--search", query, "--top-k", 39, "--out", out) == 0
    found = found_by(capsys.readouterr().out)
    centered = ears.embeddings - EarVAE.load_from_checkpoint(str(checkpoint)).posterior.mean.numpy()
    distance, order = NearestNeighbors(metric="cosine").fit(centered).kneighbors(centered[7:8], 40)
    assert order[0, 0] == 7  # itself, which is no answer
    assert [path for _, path in found] == [ears.paths[row] for row in order[0, 1:]]
    assert [cosine for cosine, _ in found] == pytest.approx(1 - distance[0, 1:], abs=1e-4)
    with Image.open(tmp_path / f"out_search_{Path(query).stem}.png") as picture:
        assert min(picture.size) > 500  # several rows


def test_a_picture_outside_the_set_is_encoded(
    checkpoint: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(read_embeddings(table).paths[7], tmp_path / "copy.png")
    out = tmp_path / "out.npz"
    assert (
        extract(checkpoint, "--embeddings", table, "--search", tmp_path / "copy.png", "--top-k", 1, "--out", out) == 0
    )
    assert found_by(capsys.readouterr().out) == [(1.0, read_embeddings(table).paths[7])]


@pytest.mark.parametrize("seed", range(3))
def test_neighbors_of_random_vectors_are_scikit_learns(seed: int) -> None:
    generator = np.random.default_rng(seed)
    units = generator.standard_normal((50, 6))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    units[30] = units[20]  # a tie: the earlier row first
    left_out = np.arange(50) % 7 == 0
    rows, similarity = most_similar(units, units[20], 9, left_out)
    kept = np.flatnonzero(~left_out)
    distance, order = NearestNeighbors(metric="cosine").fit(units[kept]).kneighbors(units[20:21], 9)
    assert list(rows[:2]) == [20, 30]
    assert list(rows[2:]) == list(kept[order[0, 2:]])
    assert similarity == pytest.approx(1 - distance[0])


@pytest.mark.parametrize(("subject", "frames"), [("S1", (True, False)), ("S2", (False, True)), ("", (False, False))])
def test_frames_show_whether_subjects_are_the_same(tmp_path: Path, subject: str, frames: tuple[bool, bool]) -> None:
    ear = np.full((40, 20, 3), 128, np.uint8)
    save_neighbors(tmp_path / "s.png", Shown(ear, "a/q.png", "S1"), [(Shown(ear, "a/n.png", subject), 0.5)], "cosine")
    picture = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).reshape(-1, 3).astype(int)
    blue, orange = (int((np.abs(picture - color).sum(1) < 12).sum()) > 500 for color in ((0, 114, 178), (230, 159, 0)))
    assert (blue, orange) == frames


@pytest.mark.parametrize("count", [1, 3, 7])
def test_no_text_of_a_search_is_cut_or_runs_into_its_neighbour(tmp_path: Path, count: int) -> None:
    """Of narrow ears, whose columns are: the outermost pixels stay white, and those between captions."""
    ear = Shown(np.full((40, 20, 3), 128, np.uint8), "Wilhelmina Mountbatten/01.png", "Wilhelmina Mountbatten-Windsor")
    save_neighbors(tmp_path / "s.png", ear, [(ear, 0.5)] * count, LATENTS)
    picture = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()
    columns = min(count, 6) + 1
    below = int(np.flatnonzero((picture < 230).mean(axis=1) > 0.5 / columns).max()) if count < 7 else 0
    if below:  # a single row: the captions follow the frames
        captions = picture[below + 8 : below + 45]
        for column in range(1, columns):
            middle = round(column * picture.shape[1] / columns)
            assert (captions[:, middle - 2 : middle + 2] == 255).all()


def test_a_tile_holds_the_whole_picture_in_its_proportions() -> None:
    picture = np.zeros((100, 40, 3), np.uint8)
    dark = (tile(picture, 60, 50) < 128).all(axis=2)
    assert dark.any(axis=1).all()  # full height
    assert list(np.flatnonzero(dark.any(axis=0))) == list(range(13, 37))  # 24 of 50 columns, centered
    assert tile(None, 60, 50).shape == tile(picture[..., :1], 60, 50).shape == (60, 50, 3)


def test_searches_of_numbered_pictures_are_named_by_their_folders_and_the_table_alone_stays(
    checkpoint: Path, people: Path, table: Path, tmp_path: Path
) -> None:
    """Every person has an 01.png; a second search of one of them is refused."""
    asked = [tmp_path / person / "01.png" for person in ("Jürgen Müller", "Person 007", "a:b")]
    own = shutil.copy(table, tmp_path / "ears.npz")
    for path, picture in zip(asked, sorted(people.rglob("*.png")), strict=False):
        path.parent.mkdir()
        shutil.copy(picture, path)
        given = ["--checkpoint", str(checkpoint), "--embeddings", str(own), "--search", str(path)]
        assert [main(given), main(given)] == [0, 2]
    found = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert found == {"ears.npz"} | {f"ears_search_{name}_01.png" for name in ("Jürgen Müller", "Person 007", "a%3Ab")}
    assert own.read_bytes() == table.read_bytes()


def test_a_search_that_is_there_is_refused_without_pytorch(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "7.png")
    (tmp_path / f"ears_search_{tmp_path.name}_7.png").touch()
    words = ["--checkpoint", str(checkpoint), "--embeddings", str(shutil.copy(table, tmp_path)), "--search", "7.png"]
    code = (
        "import sys; from ear_teacher.extract import main\n"
        f"print(main({words}), 'torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.stdout == "2 False\n"
    assert "_7.png: is there already" in done.stderr


# Clusters


def test_planted_groups_are_found_and_numbered_by_size() -> None:
    generator = np.random.default_rng(0)
    planted = np.repeat([2, 0, 1], [9, 30, 17])
    rows = np.eye(5)[planted] + 0.1 * generator.standard_normal((56, 5))
    found = cluster(rows / np.linalg.norm(rows, axis=1, keepdims=True), 3)
    assert np.array_equal(found.label, planted)
    assert found.similarity.min() > 0.8


def test_equal_ears_make_no_more_clusters_than_there_are() -> None:
    units = np.eye(4)[[0, 0, 1, 1, 2]]
    assert len(set(cluster(units, 3).label)) == 3
    with pytest.raises(InputError, match="`clusters` 4: only 3 different ears"):
        cluster(units, 4)


def test_clusters_are_a_column_and_an_image_grid(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    assert extract(checkpoint, "--embeddings", table, "--clusters", 4, "--out", tmp_path / "out.npz") == 0
    ears = read_embeddings(tmp_path / "out.npz")
    centered = ears.embeddings - EarVAE.load_from_checkpoint(str(checkpoint)).posterior.mean.numpy()
    units = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    wanted = KMeans(4, n_init=10, random_state=0).fit_predict(units.astype(np.float64))
    assert adjusted_rand_score(wanted, ears.cluster) == 1.0
    sizes = np.bincount(ears.cluster)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert np.array_equal(ears.logvar, read_embeddings(table).logvar)  # the other columns stay
    with Image.open(tmp_path / "out_clusters.png") as picture:
        assert picture.height >= 4 * 96


def test_without_pictures_no_ear_is_shown_nor_left_of_an_earlier_call(
    checkpoint: Path, table: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = min(people.rglob("*.png"))
    given = ("--embeddings", table, "--clusters", 3, "--search", query, "--projector", tmp_path / "projector")
    assert extract(checkpoint, *given, "--out", tmp_path / "o.npz") == 0
    assert len(list(tmp_path.rglob("*.png"))) == 3
    before = found_by(capsys.readouterr().out)
    assert extract(checkpoint, *given, "--out", tmp_path / "o.npz", "--overwrite", "--no-pictures") == 0
    assert found_by(capsys.readouterr().out) == before
    assert list(tmp_path.rglob("*.png")) == []
    assert "sprite" not in (tmp_path / "projector" / "projector_config.pbtxt").read_text()
    assert read_embeddings(tmp_path / "o.npz").cluster is not None


# Tables that are used again


def test_ears_of_a_table_are_not_read_again(
    checkpoint: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their pictures may even be gone; then the drawings say so."""
    shutil.copytree(people, tmp_path / "people")
    assert extract(checkpoint, "--input", tmp_path / "people", "--out", tmp_path / "a.npz") == 0
    before = (tmp_path / "a.npz").read_bytes()
    query = shutil.copy(min(people.rglob("*.png")), tmp_path / "query.png")
    shutil.rmtree(tmp_path / "people")
    assert extract(checkpoint, "--embeddings", tmp_path / "a.npz", "--search", query, "--clusters", 2) == 0
    assert len(found_by(capsys.readouterr().out)) == 5
    assert (tmp_path / "a.npz").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a_search_query.png", "a_clusters.png", "query.png"}


def test_new_ears_are_added_to_those_of_a_table(checkpoint: Path, table: Path, ear_set: Path, tmp_path: Path) -> None:
    both = ("--input", ear_set / "val_teacher.npy", table)
    assert extract(checkpoint, *both, "--out", tmp_path / "both.npz") == 0
    found, old = read_embeddings(tmp_path / "both.npz"), read_embeddings(table)
    assert np.array_equal(found.embeddings[:40], old.embeddings)
    assert found.paths[:40] == old.paths
    assert (len(found), found.logvar.shape) == (50, (50, 8))
    assert found.subjects[:40] == old.subjects
    assert found.subjects[40:] == read_teacher_npy(ear_set / "val_teacher.npy").subjects


def test_an_exported_model_gives_the_checkpoints_table(
    checkpoint: Path, people: Path, table: Path, tmp_path: Path
) -> None:
    EarVAE.load_from_checkpoint(str(checkpoint)).save_pretrained(tmp_path / "exported")
    assert extract(tmp_path / "exported", "--input", people, "--out", tmp_path / "out.npz") == 0
    assert np.array_equal(read_embeddings(tmp_path / "out.npz").embeddings, read_embeddings(table).embeddings)
    assert extract(tmp_path / "exported", "--embeddings", table, "--out", tmp_path / "copy.npz") == 0


# TensorBoard


def test_the_projector_gets_every_embedding_name_and_picture(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "projector"
    for _ in range(2):  # again into the same folder
        arguments = ("--embeddings", table, "--clusters", 3, "--projector", folder, "--out", tmp_path / "o.npz")
        assert extract(checkpoint, *arguments) == 0
    ears = read_embeddings(tmp_path / "o.npz")
    config = (folder / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    paths = re.findall(r'"(\S+\.(?:tsv|png))"', config)
    metadata, sprite, tensors = (folder / path for path in paths)
    assert np.array_equal(np.loadtxt(tensors, np.float32, delimiter="\t"), ears.embeddings)
    rows = [line.split("\t") for line in metadata.read_text().splitlines()]
    assert rows[0] == ["path", "subject", "cluster"]
    assert rows[1:] == [
        [p, s, str(c)] for p, s, c in zip(ears.paths, ears.subjects, ears.cluster.tolist(), strict=True)
    ]
    thumbnails = np.asarray(Image.open(sprite))
    assert thumbnails.shape == (7 * 64, 7 * 64, 3)
    assert np.array_equal(thumbnails[64:128, :64], np.asarray(Image.open(ears.paths[7])))  # eighth: second row


@pytest.mark.parametrize(("count", "side"), [(1, 64), (16384, 64), (16385, 63), (262144, 16)])
def test_thumbnails_fit_into_what_tensorboard_shows(count: int, side: int) -> None:
    assert thumbnail_side(count) == side


def test_more_ears_than_tensorboard_shows_are_refused() -> None:
    with pytest.raises(InputError, match="`projector`: 262,145 ears are more than the 262,144"):
        thumbnail_side(262145)


# What cannot be used


def small_table(**columns: object) -> Embeddings:
    values = {"paths": ["a.png"], "embeddings": np.zeros((1, 8), np.float32), "metadata": {"digest": "0"}}
    return Embeddings(**(values | columns))


def spoil(checkpoint: Path, people: Path, table: Path, folder: Path, what: str) -> list[object]:
    """Arguments with one thing wrong."""
    out = ("--out", folder / "out.npz")
    if what == "empty folder":
        (folder / "empty").mkdir()
        return ["--input", folder / "empty", *out]
    if what == "nothing there":
        return ["--input", folder / "none.png", *out]
    if what == "text":
        (folder / "notes.txt").write_text("ears")
        return ["--input", folder / "notes.txt", *out]
    if what == "one broken picture":
        (folder / "broken.png").write_bytes(b"\x89PNG")
        return ["--input", folder / "broken.png", *out]
    if what == "out is a folder":
        (folder / "out.npz").mkdir()
        return ["--input", people, *out]
    if what == "raw weights":
        return ["--embeddings", table, "--weights", "raw", *out]
    if what == "no logvar":
        write_embeddings(folder / "plain.npz", Embeddings(**(vars(read_embeddings(table)) | {"logvar": None})))
        return ["--embeddings", folder / "plain.npz", "--logvar", *out]
    if what == "half a table":
        (folder / "half.npz").write_bytes(table.read_bytes()[: table.stat().st_size // 2])
        return ["--embeddings", folder / "half.npz", *out]
    if what == "half a parquet":
        write_embeddings(folder / "a.parquet", small_table())
        (folder / "half.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])
        return ["--embeddings", folder / "half.parquet", *out]
    if what == "pickled":
        np.savez(folder / "pickled.npz", embeddings=np.array([{}], object), paths=["a"], metadata="{}")
        return ["--embeddings", folder / "pickled.npz", *out]
    if what == "rows do not agree":
        write_embeddings(folder / "short.npz", small_table(paths=["a", "b"]))
        return ["--embeddings", folder / "short.npz", *out]
    if what == "of something else":
        write_embeddings(folder / "other.npz", small_table(metadata={}))
        return ["--embeddings", folder / "other.npz", *out]
    return [folder if word == "DIR" else people if word == "PEOPLE" else word for word in what.split()]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("--out out.npz", "--input: give images, folders or NPY files"),
        ("empty folder", "empty: holds no pictures"),
        ("nothing there", "none.png: no such file or folder"),
        ("text", "notes.txt: neither a picture"),
        ("one broken picture", "broken.png: "),
        ("--input PEOPLE --out out.csv", "out.csv: unknown extension '.csv'; use .npz or .parquet"),
        ("out is a folder", "out.npz: is a folder"),
        ("--input PEOPLE --search DIR/none.png", "none.png: no such"),
        ("--input PEOPLE --search DIR --out out.npz", "no such picture"),
        ("--input PEOPLE --clusters 41", "--clusters 41: there are 40 ears"),
        ("--input PEOPLE --clusters -1", "--clusters -1: must be at least 0"),
        ("--input PEOPLE --top-k 0", "--top-k 0: must be at least 1"),
        ("--embeddings DIR/none.npz --clusters 2", "none.npz: no such file"),
        ("raw weights", "made by other weights"),
        ("no logvar", "plain.npz: holds no logvar"),
        ("half a table", "half.npz: damaged, or not written by earface ears extract"),
        ("half a parquet", "half.parquet: damaged, or not written by earface ears extract"),
        ("pickled", "pickled.npz: damaged, or not written by earface ears extract"),
        ("rows do not agree", "short.npz: paths is not 1 texts"),
        ("of something else", "other.npz: no rows, or no record of the checkpoint that made them"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    checkpoint: Path,
    people: Path,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = spoil(checkpoint, people, table, tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    assert extract(checkpoint, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_of_more_neighbors_than_there_are_all_are_shown(
    checkpoint: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = read_embeddings(table).paths[0]
    arguments = ("--embeddings", table, "--search", query, "--out", tmp_path / "out.npz")
    assert extract(checkpoint, *arguments, "--top-k", 39) == 0
    all_there_are = capsys.readouterr().out
    assert extract(checkpoint, *arguments, "--top-k", 40) == 0
    assert capsys.readouterr().out == all_there_are


def test_a_checkpoint_of_something_else_is_one_line(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"model": {"scale": 4}}}, tmp_path / "dsr.ckpt")
    assert extract(tmp_path / "dsr.ckpt", "--input", people, "--out", tmp_path / "out.npz") == 2
    assert "this checkpoint holds no ear VAE" in capsys.readouterr().err


def test_parquet_without_pyarrow_names_what_to_install(
    people: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert extract(checkpoint, "--input", people, "--out", tmp_path / "out.parquet") == 2
    assert "pip install pyarrow" in capsys.readouterr().err


def test_pictures_that_a_table_holds_are_not_encoded_again(
    checkpoint: Path, table: Path, people: Path, tmp_path: Path
) -> None:
    arguments = ("--embeddings", table, "--input", people, "--out", tmp_path / "out.npz")
    assert extract(checkpoint, *arguments) == 0
    assert read_embeddings(tmp_path / "out.npz").paths == read_embeddings(table).paths


def test_a_table_alone_leaves_nothing_to_do(checkpoint: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(checkpoint, "--embeddings", table) == 2
    assert "nothing to do; add --search" in capsys.readouterr().err


def test_a_folder_without_subfolders_gives_no_subjects_and_a_note(
    checkpoint: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sorted(people.iterdir())[0]
    assert extract(checkpoint, "--input", one, "--folder-subjects", "--out", tmp_path / "out.npz") == 0
    assert "--folder-subjects found no pictures in subfolders" in capsys.readouterr().out
    assert read_embeddings(tmp_path / "out.npz").subjects is None
