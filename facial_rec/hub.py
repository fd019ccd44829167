"""The folder of a fine-tuned recogniser: its image contract, its provenance, its licence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.core.files import CONFIG
from earface.core.spellings import current_options
from earface.nn.pretrained_folder import PROVENANCE, PretrainedFormat
from facial_rec.config import EdgeFaceConfig
from facial_rec.contract import SIZE, Crop, FaceContract

LICENCE = "CC BY-NC-SA 4.0, as EdgeFace's own weights: not for commercial use"
MODEL_CARD = """---
license: cc-by-nc-sa-4.0
{{ card_data }}
---

EdgeFace, fine-tuned on low-resolution faces. The weights inherit EdgeFace's licence, CC BY-NC-SA 4.0: not for
commercial use. `config.json` says which faces it takes and how they are aligned.

```python
from facial_rec import EdgeFace

model = EdgeFace.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
embeddings = model.embed(faces)  # (B, 3, 112, 112), RGB in [-1, 1] -> (B, 512) of length 1
```
"""


@dataclass(frozen=True)
class EdgeFaceProvenance:
    """What a recogniser was fine-tuned on; empty for a pretrained one."""

    crop: Crop = "arcface"
    upsampler: str = ""  # that enlarged its VLR faces, or a mixture such as dsr=.7,none=.3
    vlr_size: str = ""
    degradation: str = ""
    trained_on: tuple[str, ...] = ()  # digests of the identities
    licence: str = LICENCE

    @property
    def contract(self) -> str:
        """FaceContract.id: embeddings of other contracts must not be compared with its own."""
        return FaceContract(self.crop).id


def image_contract(config: EdgeFaceConfig) -> dict[str, Any]:
    """How a face must be prepared; the provenance's contract says how a crop becomes one."""
    return {"size": SIZE, "channels": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "range": [-1.0, 1.0]}


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A config.json of an earlier version, which was flat, in today's form."""
    if "variant" not in content:
        return content
    config = {"variant": content["variant"]}
    about = {name: value for name, value in content.items() if name not in ("kind", "variant")}
    return {
        "kind": content.get("kind"),
        "model": config,
        "image": image_contract(EdgeFaceConfig(**config)),
        PROVENANCE: current_options(about),
    }


LIMITS = """It takes aligned faces in one form (`image` and `provenance` in config.json). No threshold belongs to it:
fit one on pictures such as yours, of people who are not in the gallery. Embeddings are biometric data.
"""

FORMAT = PretrainedFormat(
    model="EdgeFace",
    title="fine-tuned EdgeFace",
    config=EdgeFaceConfig,
    needed="variant",
    contract=image_contract,
    limits=LIMITS,
    upgrade=upgraded,
)


def read_provenance(folder: Path) -> EdgeFaceProvenance:
    """Of a folder that FORMAT reads. Raises InputError where it is damaged, or its faces are another version's."""
    stored, path = FORMAT.read_provenance(folder), folder / CONFIG
    contract, people = stored.pop("contract", None), stored.get("trained_on")
    wanted = {field.name for field in fields(EdgeFaceProvenance)}
    if stored.keys() != wanted or not isinstance(people, list) or not all(isinstance(one, str) for one in people):
        differing = ", ".join(sorted(stored.keys() ^ wanted)) or "trained_on"
        raise InputError(f"{path}: fields are missing, unknown or damaged ({differing})")
    about = EdgeFaceProvenance(**{**stored, "trained_on": tuple(people)})
    if about.contract != contract:
        raise InputError(f"{path}: its faces are not those of this version (contract {contract})")
    return about
