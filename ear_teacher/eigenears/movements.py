"""Which part of the ear a component moves: landmarks placed on the pictures of its two ends."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.data.ear_alignment import EAR_HEIGHT, robust_similarity
from earface.data.ear_contract import EarAligner, LocatedEar
from earface.data.images import Pixels, read_ahead

REGIONS: Mapping[int, Mapping[str, range]] = {  # of landmarks in the order of `ear_alignment`'s mean shapes
    17: {
        "outer helix": range(0, 5),
        "lobe": range(5, 8),
        "tragus and antitragus": range(8, 11),
        "antihelix": range(11, 14),
        "concha": range(14, 17),
    },
    55: {
        "outer helix": range(0, 15),
        "lobe": range(15, 20),
        "inner helix": range(20, 35),
        "tragus": range(35, 39),
        "concha": range(39, 46),
        "inferior crus": range(46, 50),
        "superior crus": range(50, 55),
    },
}
WHOLE = "whole ear"
WORDS = {  # of a negative and of a positive movement; x runs towards the face, y down
    "x": ("further back", "further forward"),
    "y": ("higher", "lower"),
    "width": ("narrower", "wider"),
    "height": ("shorter", "longer"),
    "size": ("smaller", "larger"),
    "turn": ("leaning back", "leaning forward"),
}
LIGHTS = ((0.9, 0, 0), (1.1, 0, 0), (1, -0.1, 0), (1, 0.1, 0), (1, 0, -0.1), (1, 0, 0.1))  # gain, slopes right, down
QUANTILE = 0.95  # of what light alone does to a measure: less than that is noise
LEAST = 0.01  # of the ear's height, and a degree: less is not named
ERRORS = 2  # standard errors of the starts
NOTHING = "hardly any landmark moves: shading"

Floats = NDArray[np.float64]
Noise = Mapping[tuple[str, str], float]
Ends = Sequence[tuple[Pixels, Pixels]]


@dataclass(frozen=True)
class Movement:
    """Between the two ends of a component. landmarks: root mean square displacement, of the ear's height; None: not
    known, the ends show no ears."""

    name: str
    landmarks: float | None


Way = tuple[str, str]  # a part, and one of WORDS


@dataclass(frozen=True)
class Measures:
    """How landmarks move. amounts: of the ear's height, or degrees. sizes: the root mean square displacement that each
    amount stands for, with its sign. explained: the share of all squared displacement that is the whole ear's."""

    amounts: dict[Way, float]
    sizes: dict[Way, float]
    explained: float


def movements(starts: Sequence[Pixels], ends: Sequence[Ends], aligner: EarAligner) -> tuple[list[Movement], float]:
    """Of each component, and the noise: the root mean square displacement of landmarks by light alone, of the height.

    starts: S pictures (H, W, C) uint8, the mean ear first. ends: of each component, the negative and the positive end
    from each start. Measures are means over the starts. A part is named for a movement beyond what light alone does to
    the ends of the mean ear (QUANTILE of LIGHTS), and beyond ERRORS standard errors of the starts.
    """
    origins = list(read_ahead(aligner.locate, starts))
    pictures = [picture for component in ends for pair in component for picture in pair]
    lit = [each for component in ends for picture in component[0] for each in relit(picture)]
    located = iter(list(read_ahead(aligner.locate, pictures)))
    in_lights = iter(list(read_ahead(aligner.locate, lit)))
    pairs = [[(next(located), next(located)) for _ in component] for component in ends]
    by_light = [
        (placed(end, origins[0]), placed(next(in_lights), origins[0]))
        for component in pairs
        for end in component[0]
        for _ in LIGHTS
    ]
    noise = _noise([measures(own, other) for own, other in by_light])
    found = [_movement(component, origins, noise) for component in pairs]
    return found, float(np.sqrt(np.mean([_rms(other - own) ** 2 for own, other in by_light])))


def _movement(pairs: Sequence[tuple[LocatedEar, LocatedEar]], origins: Sequence[LocatedEar], noise: Noise) -> Movement:
    """pairs: from each of the origins. Those of which an end shows no ear do not count."""
    usable = [
        (placed(first, origin), placed(last, origin))
        for (first, last), origin in zip(pairs, origins, strict=True)
        if not (origin.problem or first.problem or last.problem)
    ]
    if len(usable) < 2 or len(usable) < len(pairs) / 2:
        problem = next(ear.problem for ear in [*origins, *itertools.chain(*pairs)] if ear.problem)
        return Movement(f"not named, the ends show no ear: {problem}", None)
    found = [measures(first, last) for first, last in usable]
    return Movement(named(found, noise), float(np.mean([_rms(last - first) for first, last in usable])))


def relit(picture: Pixels) -> list[Pixels]:
    """The picture in the LIGHTS: brighter, darker, and with a gradient each way."""
    height, width = picture.shape[:2]
    x, y = np.linspace(-1, 1, width)[None, :, None], np.linspace(-1, 1, height)[:, None, None]
    lit = [picture * gain * (1 + right * x + below * y) for gain, right, below in LIGHTS]
    return [np.rint(each).clip(0, 255).astype(np.uint8) for each in lit]


def placed(ear: LocatedEar, origin: LocatedEar) -> Floats:
    """(K, 2): the landmarks of an ear in the frame of another one: a right ear's, in ear heights."""
    assert ear.landmarks is not None, "located with a landmarker"
    if origin.fit is None:
        return ear.landmarks.points.astype(np.float64)
    frame = origin.fit.similarity / EAR_HEIGHT
    return ear.landmarks.points @ frame[:, :2].T + frame[:, 2]


def _noise(found: Sequence[Measures]) -> dict[Way, float]:
    return {way: float(np.quantile([abs(each.amounts[way]) for each in found], QUANTILE)) for way in found[0].amounts}


def named(found: Sequence[Measures], noise: Noise) -> str:
    """What moves most, on the mean of the starts: the whole ear if that explains half of the movement, then a part."""
    amounts = {way: np.array([each.amounts[way] for each in found]) for way in found[0].amounts}
    sizes = {way: abs(float(np.mean([each.sizes[way] for each in found]))) for way in amounts}
    clear = [way for way, values in amounts.items() if abs(values.mean()) > _least(way, values, noise)]
    wholes, parts = ([way for way in clear if (way[0] == WHOLE) == whole] for whole in (True, False))
    if np.mean([each.explained for each in found]) < 0.5 and parts:
        wholes = []
    leading = [max(ways, key=lambda way: sizes[way]) for ways in (wholes, parts) if ways]
    return "; ".join(_words(way, float(amounts[way].mean())) for way in leading) or NOTHING


def _least(way: Way, values: Floats, noise: Noise) -> float:
    """Smaller amounts are not named."""
    smallest = LEAST * 100 if way[1] == "turn" else LEAST
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return max(smallest, noise.get(way, 0.0), ERRORS * error)


def _words(way: Way, amount: float) -> str:
    part, kind = way
    word = WORDS["height" if way == ("lobe", "y") else kind][int(amount > 0)]
    return f"{part} {word}, " + (f"{abs(amount):.1f} degrees" if kind == "turn" else f"{abs(amount):.1%}")


def measures(first: Floats, last: Floats) -> Measures:
    """Of landmarks (K, 2) that move to others, in ear heights.

    The whole ear: the robust similarity of the two, and what is left of its width against its height, by repeated
    medians (Siegel 1982), so a part that moves alone is not the whole ear. A part: the mean of what is left, and its
    slopes along x and y times the part's extent.
    """
    similarity, _ = robust_similarity(first, last)
    centre = first.mean(axis=0)
    spread = _rms(first - centre)
    x, y = similarity[:, :2] @ centre + similarity[:, 2] - centre
    size = float(np.hypot(*similarity[:, 0])) - 1
    turn = float(np.arctan2(similarity[1, 0], similarity[0, 0]))
    moved = first @ similarity[:, :2].T + similarity[:, 2]
    slopes = [repeated_medians(first[:, axis], (last - moved)[:, axis]) for axis in (0, 1)]
    stretched = (first - np.median(first, axis=0)) * slopes
    rest = last - moved - stretched
    width = slopes[0] - slopes[1]
    pairs = {  # amounts and sizes
        (WHOLE, "x"): (x, x),
        (WHOLE, "y"): (y, y),
        (WHOLE, "size"): (size, size * spread),
        (WHOLE, "turn"): (np.degrees(turn), turn * spread),
        (WHOLE, "width"): (width * np.ptp(first[:, 0]), np.sign(width) * _rms(stretched)),
    }
    for part, members in REGIONS[len(first)].items():
        places, left = first[members], rest[members]
        for axis, (way, stretch) in enumerate((("x", "width"), ("y", "height"))):
            shift, away = left[:, axis].mean(), places[:, axis] - places[:, axis].mean()
            slope = away @ left[:, axis] / max(away @ away, 1e-9)
            pairs[part, way] = (shift, shift)
            pairs[part, stretch] = (slope * np.ptp(away), slope * away.std())
    total = max(float(np.square(last - first).sum()), 1e-12)
    return Measures(
        {way: float(amount) for way, (amount, _) in pairs.items()},
        {way: float(size) for way, (_, size) in pairs.items()},
        1 - float(np.square(rest).sum()) / total,
    )


def repeated_medians(x: Floats, y: Floats) -> float:
    """The slope of y (K,) on x: the median over points of the median slope to the others (Siegel 1982)."""
    run, rise = x[:, None] - x, y[:, None] - y
    slopes = np.divide(rise, run, out=np.full(run.shape, np.nan), where=run != 0)
    return float(np.median(np.nanmedian(slopes, axis=1)))


def _rms(vectors: Floats) -> float:
    """Of (K, 2), its rows."""
    return float(np.sqrt(np.square(vectors).sum(axis=1).mean()))
