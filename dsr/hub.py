"""The folder of a saved DSR: its image contract and its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.config import HR_SIZE, DSRConfig
from earface.core.errors import InputError
from earface.core.files import CONFIG
from earface.data.face_sizes import VLRSize
from earface.nn.pretrained_folder import PROVENANCE, PretrainedFormat

PADDING = "each face in the top left corner, NaN beyond it"
RESIZE = "an aligned face, each axis by itself: bicubic with antialiasing, as Pillow's BICUBIC"

MODEL_CARD = """---
{{ card_data }}
---

A face super-resolver that keeps identity. `config.json` says which faces it takes: size, resize rule, value range.

```python
from dsr import DSR

model = DSR.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
faces = model(vlr)  # vlr as config.json says -> (B, 3, 128, 128), RGB in [-1, 1]
```
"""


def image_contract(config: DSRConfig) -> dict[str, Any]:
    """How a VLR face must be prepared; values of [0, 1] minus mean, divided by std, are in range.

    Of a range, width and height are those of the grid, and `sizes` and `padding` say how a face comes to it.
    """
    sizes = config.vlr
    if isinstance(sizes, VLRSize):
        size: dict[str, Any] = {"width": sizes.width, "height": sizes.height}
    else:
        size = {"sizes": [sizes.low, sizes.high], "padding": PADDING, "width": config.grid, "height": config.grid}
    return {
        **size,
        "output_size": HR_SIZE,
        "channels": "RGB",
        "resize": RESIZE,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "range": [-1.0, 1.0],
    }


LIMITS = """It takes aligned faces of the sizes in config.json. What it adds to a face is likely, not seen: its
pictures are no evidence of how somebody looks, and nobody should be named by them alone.
"""

FORMAT = PretrainedFormat(
    model="DSR", title="DSR", config=DSRConfig, needed="vlr_size", contract=image_contract, limits=LIMITS
)


def read_provenance(folder: Path) -> Provenance:
    """Of a folder that FORMAT reads; empty if an older version wrote it. Raises InputError if it is damaged."""
    stored = FORMAT.read_provenance(folder)
    people, degradation = stored.get("trained_on", []), stored.get("degradation", "")
    if not isinstance(degradation, str) or not isinstance(people, list) or not all(isinstance(o, str) for o in people):
        raise InputError(f"{folder / CONFIG}: {PROVENANCE} is damaged")
    return Provenance(tuple(people), degradation)


@dataclass(frozen=True)
class Provenance:
    """What a trained super-resolver was trained on; empty if it was not trained."""

    trained_on: tuple[str, ...] = ()  # digests of the identities
    degradation: str = ""  # how their VLR faces were made
