"""How a photograph becomes an ear in its form, as numbers for programs that do not have earface."""

from __future__ import annotations

import hashlib
from typing import Any

from ear_teacher.recognition.config import EarRecognizerConfig
from ear_teacher.recognition.hub import image_contract
from ear_teacher.recognition.options import LANDMARKS
from earface.data import ear_alignment, ear_contract
from earface.data.affine import PAD
from earface.data.ear_contract import EarContract
from earface.data.ear_networks import EAR_LANDMARKS, REFINED_MARGIN, EarLandmarker

PIXELS = ("channels", "mean", "std")  # what a network's input needs beside its size
OWN_LICENCE = "MIT"  # of EAR_LANDMARKS


def ear_form(config: EarRecognizerConfig, landmarker: EarLandmarker | None) -> dict[str, Any]:
    """What ear_form.json says of the ears; docs/EARS.md explains the entries.

    landmarker: of canonical ears. Shapes are x y in frame heights from the frame's middle.
    """
    image = image_contract(config)
    form = {
        "contract": config.contract,
        "fit": EarContract.parse(config.contract).fit,
        "size": config.image_size,
        "input": {name: image[name] for name in PIXELS},
        "pad": PAD,
    }
    if landmarker is None:
        return form
    return form | {
        "landmarker": _about(landmarker),
        "template": ear_alignment.mean_ear(landmarker.num_landmarks).tolist(),
        "outline": ear_alignment.mean_ear(55).tolist(),  # by which `min_inside` counts, whatever the template
        "frame": {
            "width": ear_alignment.FRAME_WIDTH,
            "ear_height": ear_alignment.EAR_HEIGHT,
            "residual_height": ear_alignment.RESIDUAL_SIDE,
            "oversampling": ear_alignment.OVERSAMPLING,
        },
        "robust_fit": {
            "pairs": ear_alignment.LMEDS_PAIRS,
            "biweight": ear_alignment.BIWEIGHT,
            "steps": ear_alignment.BIWEIGHT_STEPS,
        },
        "limits": {
            "min_visibility": ear_contract.MIN_VISIBILITY,
            "max_residual": ear_contract.MAX_RESIDUAL,
            "max_disagreement": ear_contract.MAX_DISAGREEMENT,
            "min_inside": ear_contract.MIN_INSIDE,
        },
    }


def _about(landmarker: EarLandmarker) -> dict[str, Any]:
    network = landmarker.network
    own = landmarker.digest == hashlib.sha256(EAR_LANDMARKS.read_bytes()).hexdigest()
    return {
        "file": LANDMARKS,
        "sha256": landmarker.digest,
        "licence": OWN_LICENCE if own else network.properties.get("licence", ""),
        "crop_size": network.side,
        "margin": landmarker.margin,
        "refined_margin": REFINED_MARGIN,
        **{name: network.image[name] for name in PIXELS},
    }
