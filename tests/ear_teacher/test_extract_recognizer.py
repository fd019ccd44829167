"""A recogniser's checkpoint where an ear VAE's may stand: tables, search and clusters, and what is not mixed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ear_teacher import EarRecognizer
from ear_teacher.embeddings.table import Embeddings, read_embeddings, write_embeddings
from ear_teacher.extract import main
from ear_teacher.recognition.embed import main as embed
from ear_teacher.train import main as train_vae
from earface.data.identity_embeddings import read_embeddings as read_identities
from tests.conftest import TINY, only_line

pytestmark = pytest.mark.runs


def extract(checkpoint: Path, *arguments: object) -> int:
    return main(["--checkpoint", str(checkpoint), "--overwrite", *map(str, arguments)])


@pytest.fixture(scope="module")
def table(ear_recognizer: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the crops, by the recogniser."""
    out = tmp_path_factory.mktemp("table") / "ears.npz"
    assert extract(ear_recognizer, "--input", crops, "--folder-subjects", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def vae(prepared_crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.ckpt of an ear VAE of the same ears."""
    out, ears = tmp_path_factory.mktemp("vae"), prepared_crops / "canonical"
    files = ["--train-npy", ears / "train_teacher.npy", "--val-npy", ears / "val_teacher.npy"]
    places = ["--checkpoint-dir", out, "--log-dir", out / "logs", "--encoder-weights", "none"]
    assert train_vae([*map(str, [*files, *places, *TINY, "--epochs", 1, "--perceptual-weight", 0])]) == 0
    return out / "last.ckpt"


def test_a_table_holds_the_recognisers_embeddings(
    ear_recognizer: Path, crops: Path, table: Path, tmp_path: Path
) -> None:
    """Those of `ears recognize embed`, bit for bit, and from which model they are."""
    found, model = read_embeddings(table), EarRecognizer.load(ear_recognizer)
    assert embed(["--recognizer", str(ear_recognizer), "--input", str(crops), "--out", str(tmp_path / "e.npz")]) == 0
    wanted = read_identities(tmp_path / "e.npz")
    assert np.array_equal(found.embeddings, wanted.embeddings)
    assert (found.paths, found.subjects) == (wanted.paths, wanted.identities)
    assert found.logvar is None
    about = {"kind": "earface.EarRecognizer", "digest": model.digest, "backbone": "conv", "embedding_dim": 16}
    assert about.items() <= found.metadata.items()
    assert found.metadata["contract"] == wanted.contract


@pytest.mark.parametrize("name", ["again.npz", "again.parquet"])
def test_an_exported_folder_and_another_batch_give_the_same(
    ear_recognizer: Path, crops: Path, table: Path, tmp_path: Path, name: str
) -> None:
    EarRecognizer.load(ear_recognizer).save_pretrained(tmp_path / "exported")
    flags = ("--input", crops, "--batch-size", 5, "--out", tmp_path / name)
    assert extract(tmp_path / "exported", *flags) == 0
    assert np.array_equal(read_embeddings(tmp_path / name).embeddings, read_embeddings(table).embeddings)
    assert extract(tmp_path / "exported", "--embeddings", table, "--out", tmp_path / "copy.npz") == 0


def test_a_search_finds_what_a_loop_over_all_ears_finds(
    ear_recognizer: Path, table: Path, tmp_path: Path, capsys: Any
) -> None:
    """By the plain cosine: nothing is subtracted first."""
    ears = read_embeddings(table)
    for row in (0, 9, 23):
        out = tmp_path / f"{row}.npz"
        assert (
            extract(ear_recognizer, "--embeddings", table, "--search", ears.paths[row], "--top-k", 23, "--out", out)
            == 0
        )
        said = capsys.readouterr().out
        cosines = []
        for other in range(len(ears)):
            if other != row:
                one, two = (ears.embeddings[each].astype(np.float64) for each in (row, other))
                cosines.append((float(one @ two) / float(np.sqrt(one @ one) * np.sqrt(two @ two)), other))
        wanted = sorted(cosines, reverse=True)
        found = re.findall(r"^ +\d+ +(-?\d\.\d{4})  subject (\S+)  (.+)$", said, re.MULTILINE)
        assert [path for *_, path in found] == [ears.paths[other] for _, other in wanted]
        assert [subject for _, subject, _ in found] == [ears.subjects[other] for _, other in wanted]
        assert [float(cosine) for cosine, *_ in found] == pytest.approx([each for each, _ in wanted], abs=1e-4)
        assert "by cosine of the embeddings:" in said
        with Image.open(tmp_path / f"{row}_search_{Path(ears.paths[row]).stem}.png") as picture:
            assert min(picture.size) > 500


def test_clusters_are_k_means_of_the_embeddings(ear_recognizer: Path, table: Path, tmp_path: Path) -> None:
    flags = ("--embeddings", table, "--clusters", 4, "--projector", tmp_path / "projector", "--out", tmp_path / "c.npz")
    assert extract(ear_recognizer, *flags) == 0
    found = read_embeddings(tmp_path / "c.npz")
    wanted = KMeans(4, n_init=10, random_state=0).fit_predict(found.embeddings.astype(np.float64))
    assert adjusted_rand_score(wanted, found.cluster) == 1.0
    assert (tmp_path / "c_clusters.png").is_file()
    assert (tmp_path / "projector" / "projector_config.pbtxt").is_file()


def test_a_recognisers_embeddings_have_no_log_variances(
    ear_recognizer: Path, crops: Path, tmp_path: Path, capsys: Any
) -> None:
    assert extract(ear_recognizer, "--input", crops, "--logvar", "--out", tmp_path / "e.npz") == 2
    assert "--logvar: " in (line := only_line(capsys))
    assert "is an ear recogniser, whose embeddings have no log variances" in line
    assert not (tmp_path / "e.npz").exists()


def test_latents_and_embeddings_are_not_mixed(
    ear_recognizer: Path, vae: Path, crops: Path, table: Path, tmp_path: Path, capsys: Any
) -> None:
    assert extract(vae, "--input", crops, "--out", tmp_path / "latents.npz") == 0
    latents = read_embeddings(tmp_path / "latents.npz")
    assert latents.metadata["kind"] == "earface.EarVAE"
    plain = {name: value for name, value in latents.metadata.items() if name != "kind"}
    write_embeddings(tmp_path / "old.npz", Embeddings(**(vars(latents) | {"metadata": plain})))  # of before
    capsys.readouterr()
    for checkpoint, given, made_by, own in (
        (ear_recognizer, tmp_path / "latents.npz", "ear VAE", "ear recogniser"),
        (ear_recognizer, tmp_path / "old.npz", "ear VAE", "ear recogniser"),
        (vae, table, "ear recogniser", "ear VAE"),
    ):
        assert extract(checkpoint, "--embeddings", given, "--out", tmp_path / "mixed.npz") == 2
        assert f"{given}: made by an {made_by}, and {checkpoint} is an {own}" in only_line(capsys)
    assert extract(vae, "--embeddings", tmp_path / "old.npz", "--out", tmp_path / "copy.npz") == 0
    assert not (tmp_path / "mixed.npz").exists()


def test_other_weights_and_other_kinds_of_tables_are_refused(
    ear_recognizer: Path, crops: Path, table: Path, tmp_path: Path, capsys: Any
) -> None:
    known = read_embeddings(table)
    other = known.metadata | {"digest": "0" * 64}
    write_embeddings(tmp_path / "other.npz", Embeddings(**(vars(known) | {"metadata": other})))
    assert embed(["--recognizer", str(ear_recognizer), "--input", str(crops), "--out", str(tmp_path / "e.npz")]) == 0
    capsys.readouterr()
    for name, message in (("other.npz", "made by other weights"), ("e.npz", "is a table of earface ears recognize")):
        assert extract(ear_recognizer, "--input", tmp_path / name, "--clusters", 2, "--out", tmp_path / "o.npz") == 2
        assert message in only_line(capsys)


def test_a_search_outside_the_table_is_aligned_and_encoded(
    ear_recognizer: Path, crops: Path, table: Path, tmp_path: Path, capsys: Any
) -> None:
    row = 7
    path = Path(read_embeddings(table).paths[row])
    copy = tmp_path / "copy.png"
    copy.write_bytes(path.read_bytes())
    out = tmp_path / "out.npz"
    assert extract(ear_recognizer, "--embeddings", table, "--search", copy, "--top-k", 1, "--out", out) == 0
    assert f"1.0000  subject {path.parent.name}  {path}" in capsys.readouterr().out
    assert json.loads(str(np.load(out)["metadata"]))["kind"] == "earface.EarRecognizer"
