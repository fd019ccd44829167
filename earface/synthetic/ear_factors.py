"""The known factors behind a synthetic ear: those of the person (`EarShape`) and of the picture (`EarView`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from earface.core.errors import InputError
from earface.synthetic.factors import PATTERN_LIMIT, Factors, check_seed, factor, pattern
from earface.synthetic.options import Variation

GROUPS = ("shape", "light", "skin", "pose", "hair", "occlusion", "background", "camera")
SIDES = ("l", "r")
# Of the pictures that have each of these in front of the ear.
OCCLUDED_SHARES: Mapping[Variation, Mapping[str, float]] = {
    "usual": {"strands": 0.3, "earring": 0.15, "temple": 0.1, "earbud": 0.05},
    "wide": {"strands": 0.5, "earring": 0.35, "temple": 0.2, "earbud": 0.1},
}


@dataclass(frozen=True)
class EarShape(Factors):
    """One person's ear and colours. A factor in [0, 1] or [-1, 1] goes from one extreme to the other."""

    # Outline.
    aspect: float = factor(0.62, 0.52, 0.72, "shape")  # width / height of the auricle before the warps below
    lean: float = factor(0.0, -0.12, 0.12, "shape")  # shear: how far the top lies behind the lobe, more than usual
    taper: float = factor(0.0, -1.0, 1.0, "shape")  # -1 wide below, 1 wide above
    bend: float = factor(0.0, -1.0, 1.0, "shape")  # how far the middle bulges backward
    corner: float = factor(0.3, 0.0, 1.0, "shape")  # 0 round, 1 pointed posterosuperior corner
    # Helix.
    helix_width: float = factor(0.5, 0.0, 1.0, "shape")
    helix_curl: float = factor(0.6, 0.0, 1.0, "shape")  # 0 flat rim, 1 rim rolled over a deep scapha
    darwin_tubercle: float = factor(0.1, 0.0, 1.0, "shape")
    crus_length: float = factor(0.5, 0.0, 1.0, "shape")  # how far the crus runs into the concha
    # Antihelix.
    antihelix_curvature: float = factor(0.0, -1.0, 1.0, "shape")  # how far its body bulges backward
    antihelix_prominence: float = factor(0.6, 0.0, 1.0, "shape")
    crura_spread: float = factor(0.0, -1.0, 1.0, "shape")  # angle between superior and inferior crus
    fossa_depth: float = factor(0.5, 0.0, 1.0, "shape")
    # Concha, tragus, antitragus.
    concha_depth: float = factor(0.6, 0.0, 1.0, "shape")
    tragus_size: float = factor(0.5, 0.0, 1.0, "shape")
    antitragus_size: float = factor(0.5, 0.0, 1.0, "shape")
    notch_width: float = factor(0.5, 0.0, 1.0, "shape")
    # Lobe and the whole.
    lobe_length: float = factor(0.0, -1.0, 1.0, "shape")
    lobe_width: float = factor(0.0, -1.0, 1.0, "shape")
    lobe_attachment: float = factor(0.3, 0.0, 1.0, "shape")  # 0 free and rounded, 1 running straight into the cheek
    protrusion: float = factor(0.4, 0.0, 1.0, "shape")  # how far the rim stands off the head
    # Colours that belong to the person.
    skin_tone: float = factor(0.7, 0.0, 1.0, "skin")  # 0 deep brown, 1 very fair
    undertone: float = factor(0.0, -1.0, 1.0, "skin")  # -1 olive, 1 rosy
    mottling: float = factor(0.4, 0.0, 1.0, "skin")  # contrast of freckles and blotches
    mottling_pattern: int = pattern("skin")
    hair_tone: float = factor(0.2, 0.0, 1.0, "hair")  # 0 black, 1 fair
    hair_redness: float = factor(0.3, 0.0, 1.0, "hair")
    hair_greyness: float = factor(0.0, 0.0, 1.0, "hair")


@dataclass(frozen=True)
class EarView(Factors):
    """One picture's nuisance factors. Angles in degrees; shifts and scale are fractions of the side.

    A shift is cut short where the ear would leave the picture.
    """

    side: str = dataclasses.field(default="l", metadata={"group": "pose"})  # "l" has the face on the image's left
    scale: float = factor(0.78, 0.64, 0.88, "pose")  # ear height
    rotation: float = factor(0.0, -35.0, 35.0, "pose")  # positive turns the top of the ear backward
    shift_x: float = factor(0.0, -0.04, 0.04, "pose")
    shift_y: float = factor(0.0, -0.04, 0.04, "pose")
    yaw: float = factor(0.0, -35.0, 35.0, "pose")  # positive turns the face toward the camera
    pitch: float = factor(0.0, -20.0, 20.0, "pose")  # positive looks from above
    light_azimuth: float = factor(-110.0, -180.0, 180.0, "light")  # in the image: 0 from the right, -90 from above
    light_elevation: float = factor(50.0, 20.0, 85.0, "light")  # 90 from the camera
    ambient: float = factor(0.35, 0.1, 0.7, "light")  # share of the light that has no direction
    warmth: float = factor(0.1, -1.0, 1.0, "light")  # -1 bluish, 1 tungsten
    exposure: float = factor(0.0, -0.9, 0.5, "light")  # stops
    flush: float = factor(0.4, 0.0, 1.0, "skin")  # blood in rim, lobe and concha
    shine: float = factor(0.3, 0.0, 1.0, "skin")  # specular reflection
    hair_cover: float = factor(0.25, 0.0, 1.0, "hair")  # 0 shaved, 1 hair falls over the upper third
    hair_length: float = factor(0.3, 0.0, 1.0, "hair")  # 0 short above the ear, 1 long behind it
    hair_flow: float = factor(0.0, -1.0, 1.0, "hair")  # -1 combed forward, 1 combed back
    strands: float = factor(0.0, 0.0, 1.0, "hair")  # loose strands across the ear
    hair_pattern: int = pattern("hair")
    earring: float = factor(0.0, 0.0, 1.0, "occlusion")  # 0 none; up to .5 a stud, above a hoop
    temple: float = factor(0.0, 0.0, 1.0, "occlusion")  # 0 none; the temple of glasses from thin to thick
    earbud: float = factor(0.0, 0.0, 1.0, "occlusion")  # 0 none; up to .5 black, above white
    head_extent: float = factor(
        0.4, 0.0, 1.0, "background"
    )  # 0 background starts at the rim, 1 the head fills the picture
    background_hue: float = factor(0.6, 0.0, 1.0, "background")
    background_saturation: float = factor(0.2, 0.0, 0.8, "background")
    background_value: float = factor(0.5, 0.0, 1.0, "background")
    background_pattern: int = pattern("background")
    blur: float = factor(0.1, 0.0, 1.0, "camera")  # 1: Gaussian, sigma a hundredth of the side
    noise: float = factor(0.2, 0.0, 1.0, "camera")  # 1: standard deviation of 8 grey levels
    noise_pattern: int = pattern("camera")

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"side must be one of {', '.join(SIDES)}, not {self.side!r}")
        super().__post_init__()


FACTOR_GROUPS: Mapping[str, tuple[str, ...]] = {
    group: tuple(
        field.name
        for owner in (EarShape, EarView)
        for field in dataclasses.fields(owner)
        if field.metadata["group"] == group
    )
    for group in GROUPS
}
RANGES: Mapping[str, tuple[float, float]] = {
    field.name: (field.metadata["low"], field.metadata["high"])
    for owner in (EarShape, EarView)
    for field in dataclasses.fields(owner)
    if "low" in field.metadata
}
_PATTERNS = tuple(name for name, (_, high) in RANGES.items() if high == PATTERN_LIMIT - 1)
_SHAPE_FLOATS = tuple(f.name for f in dataclasses.fields(EarShape) if f.name not in _PATTERNS)
_VIEW_FLOATS = tuple(f.name for f in dataclasses.fields(EarView) if f.name in RANGES and f.name not in _PATTERNS)


def _spread(rng: np.random.Generator, name: str, concentration: float = 2.0) -> float:
    """A sample over the factor's whole range; `concentration` 1 is uniform, more stays nearer the middle."""
    low, high = RANGES[name]
    return round(low + (high - low) * float(rng.beta(concentration, concentration)), 6)


def sample_shape(seed: int, subject: int) -> EarShape:
    """The ear of person number `subject` in the population `seed`, independent of all others."""
    check_seed(seed=seed, subject=subject)
    rng = np.random.default_rng([seed, subject])
    values = {name: _spread(rng, name, 1.3) for name in _SHAPE_FLOATS}
    values["skin_tone"] = round(float(rng.beta(1.3, 1.0)), 6)
    values["darwin_tubercle"] = round(float(rng.uniform(0.0, 1.0)) ** 3, 6)
    values["corner"] = round(float(rng.beta(1.3, 2.5)), 6)
    # Fair hair is rare on dark skin.
    values["hair_tone"] = round(float(rng.beta(1.0, 2.0)) * (0.15 + 0.85 * values["skin_tone"] ** 2), 6)
    values["hair_greyness"] = round(float(rng.uniform()) if rng.uniform() < 0.2 else 0.0, 6)
    return EarShape(**values, mottling_pattern=int(rng.integers(PATTERN_LIMIT)))


def sample_view(seed: int, subject: int, index: int, variation: Variation = "usual") -> EarView:
    """Picture `index` of person `subject` in the population `seed`, independent of all others."""
    check_seed(seed=seed, subject=subject, index=index)
    rng = np.random.default_rng([seed, subject, index, 1])
    usual = variation == "usual"
    values = {name: _spread(rng, name, 2.0 if usual else 1.0) for name in _VIEW_FLOATS}
    for name in ("rotation", "yaw", "pitch"):
        values[name] = _spread(rng, name, 5.0 if usual else 1.3)
    # Most lamps and the sky are above.
    azimuth = -90.0 + (60.0 if usual else 110.0) * float(rng.standard_normal())
    values["light_azimuth"] = round((azimuth + 180.0) % 360.0 - 180.0, 6)
    exposure = -0.05 + (0.25 if usual else 0.5) * float(rng.standard_normal())
    values["exposure"] = round(min(max(exposure, -0.9), 0.5), 6)
    values["hair_cover"] = round(float(rng.beta(1.2, 2.2 if usual else 1.2)), 6)
    values["background_saturation"] = round(0.8 * float(rng.beta(1.2, 3.5)), 6)
    values["blur"] = round(float(rng.beta(1.0, 4.0)), 6)
    values["noise"] = round(float(rng.beta(1.0, 3.0)), 6)
    for name, share in OCCLUDED_SHARES[variation].items():
        values[name] = round(float(rng.uniform(0.05, 1.0)) if rng.uniform() < share else 0.0, 6)
    side = SIDES[int(rng.integers(2))]
    patterns = {
        name: int(rng.integers(PATTERN_LIMIT)) for name in ("hair_pattern", "background_pattern", "noise_pattern")
    }
    return EarView(side=side, **values, **patterns)  # type: ignore[arg-type]
