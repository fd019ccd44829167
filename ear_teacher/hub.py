"""The folder of a saved ear VAE: its image contract, model card and format."""

from __future__ import annotations

from typing import Any

from ear_teacher.config import EarVAEConfig
from earface.nn.pretrained_folder import PretrainedFormat

RESIZE = "stretch to a square, each axis by itself: OpenCV INTER_AREA where it shrinks, INTER_CUBIC where it grows"

FROM_FACES = "CC BY-NC-SA 4.0, as EdgeFace's own weights: not for commercial use"

MODEL_CARD = """---
{% if from_faces %}license: cc-by-nc-sa-4.0
{% endif %}{{ card_data }}
---

A variational autoencoder over ear crops. `config.json` says which images it takes: size, resize rule, value range.
{% if from_faces %}
Licence of the weights: {{ licence }}.
{% endif %}
```python
from ear_teacher import EarVAE

model = EarVAE.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
mu = model.encode(images)  # images as config.json says; equal bit for bit in any batch
```
"""


def image_contract(config: EarVAEConfig) -> dict[str, Any]:
    """The images that the model takes; pixels in [0, 1], minus mean, divided by std, are in range."""
    channels = config.in_channels
    form = {} if config.contract == "stretch" else {"ears": config.contract}  # as folders of before have it
    return {
        **form,
        "size": config.image_size,
        "channels": "RGB" if channels == 3 else "grey",
        "resize": RESIZE,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "range": [-1.0, 1.0],
    }


LIMITS = """It takes ears in one form (`image` in config.json); others give latents that mean nothing. It was trained to
reconstruct ears; to recognise people there are its identity part, if it has one (`identity_dim`), and ear recognisers.
"""

FORMAT = PretrainedFormat(
    model="EarVAE", title="ear VAE", config=EarVAEConfig, needed="encoder", contract=image_contract, limits=LIMITS
)
