"""Ears to latents and back, with NumPy, OpenCV and ONNX Runtime alone.

    earface export ears --out exported                                          # once, where earface is installed
    python examples/encode_ears.py --model exported --out reconstructed ear.png another.png

An ear is a picture in the form that the model was trained on: a crop for `stretch`, else one that `earface ears
prepare` wrote. `--suffix _int8` takes the int8 files of an export with `--quantize int8`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


class EarVAE:
    """Pictures (H, W, 3) uint8 RGB -> latents, and latents -> pictures."""

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self.encoder, self.decoder = (session(folder / f"{part}{suffix}.onnx") for part in ("encoder", "decoder"))
        self.image = json.loads(self.encoder.get_modelmeta().custom_metadata_map["image"])

    def encode(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu and logvar, (D,) each."""
        size, grey = self.image["size"], self.image["channels"] == "grey"
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if grey else picture
        smaller = np.minimum(picture.shape[1::-1], size).tolist()  # each axis by itself: down first, then up
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
        values = picture.reshape(size, size, -1).transpose(2, 0, 1)[None] / np.float32(127.5) - 1
        mu, logvar = self.encoder.run(["mu", "logvar"], {"images": values.astype(np.float32)})
        return mu[0], logvar[0]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """(S, S, 3 or 1) uint8."""
        (images,) = self.decoder.run(["images"], {"latent": latent[None].astype(np.float32)})
        return ((images[0].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright by its EXIF orientation."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"error: {path}: not a picture that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def place(path: Path, paths: list[Path], out: Path) -> Path:
    """The PNG file of one of the paths, with its folder's name where its own is a number or another's, too."""
    alone = not path.stem.isdecimal() and [each.stem for each in paths].count(path.stem) == 1
    return out / f"{path.stem if alone else f'{path.absolute().parent.name}_{path.stem}'}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of earface export ears")
    parser.add_argument("--suffix", default="", help="_int8 for the int8 files")
    parser.add_argument("--out", type=Path, help="folder for what the decoder makes of each latent")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    parser.add_argument("ears", nargs="+", type=Path)
    given = parser.parse_args()
    written = [place(path, given.ears, given.out) for path in given.ears] if given.out else []
    if twice := [each for each in written if written.count(each) > 1]:
        parser.exit(2, f"error: {twice[0]}: would be written twice; give its pictures in two calls\n")
    if there := [each for each in written if each.exists() and not given.overwrite]:
        parser.exit(2, f"error: {there[0]}: is there already; --overwrite replaces\n")
    model = EarVAE(given.model, given.suffix)
    fit = model.image.get("ears", "stretch").partition(":")[0]
    if fit != "stretch":
        how = "earface ears prepare does it, and examples/identify_ear.py shows how"
        print(f"note: the model takes {fit} ears: bring pictures into this form ({how})", file=sys.stderr)
    latents = [model.encode(read(path))[0] for path in given.ears]
    units = np.stack([mu / np.linalg.norm(mu) for mu in latents])
    for path, mu, cosines in zip(given.ears, latents, units @ units.T, strict=True):
        print(f"{path}: |mu| {np.linalg.norm(mu):.3f}, cosines {' '.join(f'{each:.3f}' for each in cosines)}")
    for file, mu in zip(written, latents, strict=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), model.decode(mu)[..., ::-1])


if __name__ == "__main__":
    main()
