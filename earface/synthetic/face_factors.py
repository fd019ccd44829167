"""The known factors behind a synthetic face: those of the person (`FaceShape`) and of the picture (`FaceView`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from earface.core.errors import InputError
from earface.data.multipie import CAMERA_YAW, FRONTAL, FRONTAL_FLASH, ILLUMINATIONS, NO_FLASH
from earface.synthetic.factors import PATTERN_LIMIT, Factors, check_seed, factor, pattern

GROUPS = ("shape", "skin", "hair", "pose", "expression", "light", "occlusion", "background", "camera")


@dataclass(frozen=True)
class FaceShape(Factors):
    """One person's face and colours. A factor in [0, 1] or [-1, 1] goes from one extreme to the other."""

    # Head.
    face_width: float = factor(0.0, -1.0, 1.0, "shape")
    jaw_width: float = factor(0.0, -1.0, 1.0, "shape")
    jaw_corner: float = factor(0.4, 0.0, 1.0, "shape")  # 0 round, 1 square
    chin_length: float = factor(0.0, -1.0, 1.0, "shape")
    chin_width: float = factor(0.0, -1.0, 1.0, "shape")
    chin_forward: float = factor(0.0, -1.0, 1.0, "shape")
    forehead_slope: float = factor(0.0, -1.0, 1.0, "shape")  # 1 leans back
    cheekbones: float = factor(0.4, 0.0, 1.0, "shape")
    cheek_fullness: float = factor(0.0, -1.0, 1.0, "shape")  # -1 hollow, 1 chubby
    # Eyes and brows.
    eye_distance: float = factor(0.0, -1.0, 1.0, "shape")
    eye_size: float = factor(0.0, -1.0, 1.0, "shape")
    eye_opening: float = factor(0.0, -1.0, 1.0, "shape")  # -1 narrow, 1 round
    eye_slant: float = factor(0.0, -1.0, 1.0, "shape")  # 1: outer corners high
    eye_depth: float = factor(0.4, 0.0, 1.0, "shape")
    lid_fold: float = factor(0.5, 0.0, 1.0, "shape")  # 0 single lid, 1 deep fold
    brow_height: float = factor(0.0, -1.0, 1.0, "shape")
    brow_arch: float = factor(0.4, 0.0, 1.0, "shape")
    brow_slant: float = factor(0.0, -1.0, 1.0, "shape")  # 1: outer ends high
    brow_thickness: float = factor(0.4, 0.0, 1.0, "shape")
    # Nose.
    nose_length: float = factor(0.0, -1.0, 1.0, "shape")
    nose_width: float = factor(0.0, -1.0, 1.0, "shape")
    nose_height: float = factor(0.0, -1.0, 1.0, "shape")  # how far it stands out
    nose_bridge: float = factor(0.0, -1.0, 1.0, "shape")  # -1 saddle, 1 hump
    nose_tip: float = factor(0.0, -1.0, 1.0, "shape")  # -1 hanging, 1 turned up
    # Mouth.
    mouth_height: float = factor(0.0, -1.0, 1.0, "shape")  # 1: far below the nose
    mouth_width: float = factor(0.0, -1.0, 1.0, "shape")
    upper_lip: float = factor(0.4, 0.0, 1.0, "shape")
    lower_lip: float = factor(0.4, 0.0, 1.0, "shape")
    cupids_bow: float = factor(0.5, 0.0, 1.0, "shape")
    mouth_corners: float = factor(0.0, -1.0, 1.0, "shape")  # 1 turned up
    # Ears.
    ear_size: float = factor(0.0, -1.0, 1.0, "shape")
    ear_stand: float = factor(0.4, 0.0, 1.0, "shape")  # how far they stand off
    age: float = factor(0.3, 0.0, 1.0, "shape")  # wrinkles and folds
    # Colours and marks of the skin.
    skin_tone: float = factor(0.7, 0.0, 1.0, "skin")  # 0 deep brown, 1 very fair
    undertone: float = factor(0.0, -1.0, 1.0, "skin")  # -1 olive, 1 rosy
    flush: float = factor(0.4, 0.0, 1.0, "skin")  # blood in cheeks and nose
    lip_colour: float = factor(0.4, 0.0, 1.0, "skin")  # 0 skin, 1 red
    eye_colour: float = factor(0.2, 0.0, 1.0, "skin")  # dark brown, brown, hazel, green, blue, grey
    lashes: float = factor(0.4, 0.0, 1.0, "skin")
    freckles: float = factor(0.0, 0.0, 1.0, "skin")
    moles: float = factor(0.0, 0.0, 1.0, "skin")  # none to four
    marks_pattern: int = pattern("skin")  # where freckles, blotches and moles are
    # Hair.
    hair_tone: float = factor(0.2, 0.0, 1.0, "hair")  # 0 black, 1 fair
    hair_redness: float = factor(0.3, 0.0, 1.0, "hair")
    hair_greyness: float = factor(0.0, 0.0, 1.0, "hair")
    hair_length: float = factor(0.4, 0.0, 1.0, "hair")  # 0 bald, .1 shaved, .4 over the ears' tops, 1 long
    hair_volume: float = factor(0.4, 0.0, 1.0, "hair")
    hair_curl: float = factor(0.2, 0.0, 1.0, "hair")  # 0 straight, 1 coils
    hairline: float = factor(0.4, 0.0, 1.0, "hair")  # 0 low, 1 high
    temples: float = factor(0.3, 0.0, 1.0, "hair")  # 0 straight, 1 receding at both sides
    fringe: float = factor(0.0, 0.0, 1.0, "hair")  # 0 combed back, 1 down to the brows
    parting: float = factor(0.0, -1.0, 1.0, "hair")  # where it is: -1 picture's left, 1 right
    hair_pattern: int = pattern("hair")
    beard: float = factor(0.0, 0.0, 1.0, "hair")  # 0 none, .4 stubble, 1 full
    moustache: float = factor(0.0, 0.0, 1.0, "hair")


@dataclass(frozen=True)
class FaceView(Factors):
    """One picture's nuisance factors. Angles in degrees."""

    yaw: float = factor(0.0, -95.0, 95.0, "pose")  # positive looks to the picture's right
    pitch: float = factor(0.0, -20.0, 20.0, "pose")  # positive looks down
    roll: float = factor(0.0, -25.0, 25.0, "pose")  # positive tilts clockwise; the alignment turns it back
    smile: float = factor(0.0, 0.0, 1.0, "expression")
    surprise: float = factor(0.0, 0.0, 1.0, "expression")
    gaze_x: float = factor(0.0, -1.0, 1.0, "expression")
    gaze_y: float = factor(0.0, -1.0, 1.0, "expression")
    flash: float = factor(0.5, 0.0, 1.0, "light")  # strength of the lamp that has a direction
    flash_azimuth: float = factor(0.0, -100.0, 100.0, "light")  # negative from the picture's left
    flash_elevation: float = factor(10.0, -20.0, 70.0, "light")
    ambient: float = factor(0.5, 0.1, 1.0, "light")  # the room's light, from above
    warmth: float = factor(0.0, -1.0, 1.0, "light")  # -1 bluish, 1 tungsten
    shine: float = factor(0.3, 0.0, 1.0, "light")  # of the skin
    glasses: float = factor(0.0, 0.0, 1.0, "occlusion")  # 0 none; round to square, thin to thick
    glasses_tone: float = factor(0.1, 0.0, 1.0, "occlusion")  # black, brown, gold, silver
    background_hue: float = factor(0.6, 0.0, 1.0, "background")
    background_saturation: float = factor(0.2, 0.0, 0.8, "background")
    background_value: float = factor(0.5, 0.0, 1.0, "background")
    background_pattern: int = pattern("background")
    exposure: float = factor(0.0, -0.8, 0.5, "camera")  # stops
    blur: float = factor(0.1, 0.0, 1.0, "camera")  # 1: Gaussian, sigma a hundredth of the side
    noise: float = factor(0.2, 0.0, 1.0, "camera")  # 1: standard deviation of 8 grey levels
    noise_pattern: int = pattern("camera")


FACTOR_GROUPS: Mapping[str, tuple[str, ...]] = {
    group: tuple(
        field.name
        for owner in (FaceShape, FaceView)
        for field in dataclasses.fields(owner)
        if field.metadata["group"] == group
    )
    for group in GROUPS
}
RANGES: Mapping[str, tuple[float, float]] = {
    field.name: (field.metadata["low"], field.metadata["high"])
    for owner in (FaceShape, FaceView)
    for field in dataclasses.fields(owner)
}


@dataclass(frozen=True, order=True)
class ViewCode:
    """What Multi-PIE calls a picture of one person: session, recording, camera and illumination."""

    session: str = "01"
    recording: str = "01"
    camera: str = FRONTAL
    illumination: str = FRONTAL_FLASH

    def __post_init__(self) -> None:
        for name, known in CODES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")


CODES: Mapping[str, tuple[str, ...]] = {
    "session": ("01", "02", "03", "04"),  # nothing but another day: another background, camera and so on
    "recording": ("01", "02", "03"),  # neutral, smile, surprise
    "camera": tuple(CAMERA_YAW),
    "illumination": ILLUMINATIONS,
}
GALLERY = ViewCode()  # frontal, neutral, lit from the front


def _spread(rng: np.random.Generator, owner: type, concentration: float) -> dict[str, float]:
    """A sample of every factor over its range; `concentration` 1 is uniform, more stays nearer the middle."""
    names = [field.name for field in dataclasses.fields(owner) if not field.name.endswith("_pattern")]
    return {name: low + (high - low) * rng.beta(concentration, concentration) for name, (low, high) in _of(names)}


def _of(names: list[str]) -> list[tuple[str, tuple[float, float]]]:
    return [(name, RANGES[name]) for name in names]


def _patterns(rng: np.random.Generator, owner: type) -> dict[str, int]:
    names = [field.name for field in dataclasses.fields(owner) if field.name.endswith("_pattern")]
    return {name: int(rng.integers(PATTERN_LIMIT)) for name in names}


def _clipped(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(min(max(float(values[name]), low), high), 6) for name, (low, high) in _of(list(values))}


def sample_shape(seed: int, subject: int) -> FaceShape:
    """The face of person number `subject` in the population `seed`, independent of all others."""
    check_seed(seed=seed, subject=subject)
    rng = np.random.default_rng([seed, subject])
    values = _spread(rng, FaceShape, 1.6)
    tone, age = rng.beta(1.3, 1.0), rng.beta(1.1, 2.0)
    values |= {"skin_tone": tone, "age": age, "moles": rng.beta(0.7, 1.5)}
    # Fair hair, light eyes and freckles are rare on dark skin.
    values["hair_tone"] = rng.beta(1.0, 1.8) * (0.1 + 0.9 * tone**2)
    values["eye_colour"] = rng.beta(0.9, 0.9) * min(0.25 + 1.1 * tone**2, 1.0)
    values["freckles"] = rng.uniform(0.3, 1.0) if rng.random() < 0.3 * tone else 0.0
    values["hair_greyness"] = rng.uniform(0.3, 1.0) if rng.random() < 0.8 * age**1.5 else 0.0
    values["hair_curl"] = rng.beta(0.8, 1.2) if rng.random() < 0.5 else 0.15 * rng.random()
    values["fringe"] = rng.uniform(0.4, 1.0) if rng.random() < 0.35 else 0.0
    if rng.random() < 0.5:  # who may have a beard mostly has short hair and stronger brows
        values["beard"] = rng.choice([0.0, rng.uniform(0.15, 0.45), rng.uniform(0.6, 1.0)], p=[0.45, 0.3, 0.25])
        values["moustache"] = values["beard"] if rng.random() < 0.85 else rng.uniform(0.6, 1.0)
        cut = rng.choice([rng.uniform(0, 0.18), rng.uniform(0.22, 0.5), rng.uniform(0.5, 0.95)], p=[0.15, 0.7, 0.15])
        values |= {"hair_length": cut, "temples": rng.random() * (0.3 + 0.7 * age)}
        values |= {"lip_colour": 0.3 * rng.random(), "lashes": 0.35 * rng.random()}
        values["brow_thickness"] = 0.3 + 0.7 * values["brow_thickness"]
    else:
        values |= {"beard": 0.0, "moustache": 0.0, "temples": 0.35 * rng.random()}
        values["hair_length"] = rng.uniform(0.35, 1.0)
        for name in ("hairline", "brow_thickness", "jaw_corner"):
            values[name] *= 0.7
    return FaceShape(**_clipped(values), **_patterns(rng, FaceShape))  # type: ignore[arg-type]


def flash_direction(illumination: str) -> tuple[float, float] | None:
    """(azimuth, elevation) in degrees of the flash of a code; None where none fires.

    01 to 13 stand at head height from the picture's left to its right, 15 degrees apart, 14 to 18 above them.
    """
    if illumination in NO_FLASH:
        return None
    number = int(illumination)
    return (15.0 * (number - 7), 5.0) if number <= 13 else (30.0 * (number - 16), 40.0)


def sample_view(seed: int, subject: int, code: ViewCode = GALLERY) -> FaceView:
    """The picture `code` of person `subject` in the population `seed`, independent of all others."""
    check_seed(seed=seed, subject=subject)
    rng = np.random.default_rng([seed, subject, *(int(part) for part in dataclasses.astuple(code)), 1])
    values = _spread(rng, FaceView, 2.0)
    values["yaw"] = CAMERA_YAW[code.camera] + 2.5 * rng.standard_normal()  # nobody holds quite still
    values["pitch"], values["roll"] = 4.5 * rng.standard_normal(), 4.0 * rng.standard_normal()
    values["smile"] = rng.uniform(0.55, 1.0) if code.recording == "02" else 0.15 * rng.random()
    values["surprise"] = rng.uniform(0.55, 1.0) if code.recording == "03" else 0.05 * rng.random()
    values["gaze_x"], values["gaze_y"] = 0.3 * rng.standard_normal(2)
    flash = flash_direction(code.illumination)
    if flash is None:
        values |= {"flash": 0.0, "ambient": rng.uniform(0.55, 0.85)}
    else:
        values |= {"flash": rng.uniform(0.5, 0.8), "ambient": rng.uniform(0.25, 0.45)}
        values["flash_azimuth"], values["flash_elevation"] = flash + 3.0 * rng.standard_normal(2)
    values |= {"warmth": 0.4 * rng.standard_normal(), "exposure": 0.2 * rng.standard_normal()}
    values["glasses"] = rng.uniform(0.05, 1.0) if rng.random() < 0.12 else 0.0
    values["background_saturation"] = 0.45 * rng.beta(1.2, 3.0)
    values |= {"blur": rng.beta(1.0, 5.0), "noise": rng.beta(1.0, 3.0)}
    return FaceView(**_clipped(values), **_patterns(rng, FaceView))  # type: ignore[arg-type]
