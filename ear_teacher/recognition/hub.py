"""The folder of a saved ear recogniser: its image contract, its provenance, its licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ear_teacher.hub import FROM_FACES, RESIZE
from ear_teacher.recognition.config import EDGEFACE, EarRecognizerConfig
from earface.core.errors import InputError
from earface.core.files import CONFIG
from earface.nn.pretrained_folder import PretrainedFormat

TAGS = ["ear-biometrics", "ear-recognition"]
FROM_EARS = "for whoever trained them to say, within the terms of the pictures"

MODEL_CARD = """---
{% if from_faces %}license: cc-by-nc-sa-4.0
{% endif %}{{ card_data }}
---

Embeddings of ears: the cosine of two is high where both are of one person. `config.json` says which ears it takes
(size, form, value range), and whom it was trained on (digests).

Licence of the weights: {{ licence }}.

```python
from ear_teacher import EarRecognizer

model = EarRecognizer.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
embeddings = model.embed(["anna.jpg", "bert.jpg"])  # (2, D) of length 1: of paths, arrays or tensors
```

As ONNX, of any batch size: `recognizer.onnx` takes `ears` (B, 3, S, S) and gives `embeddings` (B, D) of length 1, each
of an ear and its mirror image together. `ear_form.json` has the numbers that bring a photograph into the form of these
ears, and the licences; `landmarks.onnx`, if the form needs landmarks, places them. earface's own landmarker is under
the MIT licence.
"""


@dataclass(frozen=True)
class EarRecognizerProvenance:
    """What a recogniser was trained on; empty for one that was not."""

    classes: str = ""  # person or ear
    trained_on: tuple[str, ...] = ()  # digests of the people
    licence: str = FROM_EARS

    @classmethod
    def of_run(cls, checkpoint: Mapping[str, Any]) -> EarRecognizerProvenance:
        options = checkpoint["hyper_parameters"]["options"]
        faces = options["backbone"] in EDGEFACE and options["backbone_weights"] != "none"
        return cls(options["classes"], tuple(checkpoint["trained_on"]), FROM_FACES if faces else FROM_EARS)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def image_contract(config: EarRecognizerConfig) -> dict[str, Any]:
    """The ears that the model takes; pixels in [0, 1], minus mean, divided by std, are in range."""
    return {
        "ears": config.contract,
        "size": config.image_size,
        "channels": "RGB",
        "resize": RESIZE,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "range": [-1.0, 1.0],
    }


LIMITS = """It takes ears in one form (`image` in config.json). No threshold belongs to it: fit one on pictures such as
yours, of people who are not in the gallery. Hair, earrings and pose hide what it looks at. Embeddings are
biometric data.
"""

FORMAT = PretrainedFormat(
    model="EarRecognizer",
    title="ear recogniser",
    config=EarRecognizerConfig,
    needed="backbone",
    contract=image_contract,
    limits=LIMITS,
)


def read_provenance(folder: Path) -> EarRecognizerProvenance:
    """Of a folder that FORMAT reads. Raises InputError where it is damaged."""
    stored = FORMAT.read_provenance(folder)
    people = stored.get("trained_on")
    wanted = {field.name for field in fields(EarRecognizerProvenance)} | {"digest"}
    if stored.keys() != wanted or not isinstance(people, list) or not all(isinstance(one, str) for one in people):
        raise InputError(f"{folder / CONFIG}: fields of its provenance are missing, unknown or damaged")
    return EarRecognizerProvenance(str(stored["classes"]), tuple(people), str(stored["licence"]))
