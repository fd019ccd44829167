"""What an evaluation found out about scores, as a gallery keeps it: thresholds by gallery size, likelihood ratios."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from earface.core.errors import InputError
from earface.core.limits import MAX_JSON_BYTES
from earface.metrics.calibration import LogisticCalibration
from earface.metrics.operating_points import INSUFFICIENT, OperatingPoints

LACKING = "insufficient_data"  # the key of a reason
AGAIN = "evaluate again with earface evaluate"
SHORT = 16  # of a digest
WORDS = {  # what scores depend on
    "contract": "the contract",
    "digest": "the weights",
    "upsampler": "`upsampler`",
    "upsampler_digest": "the super-resolver",
    "sides": "`sides`",
    "fusion": "`fusion`",
}
Conditions = Mapping[str, str]  # by the names of WORDS


@dataclass(frozen=True)
class Calibration:
    """Of one configuration under one condition."""

    name: str  # such as `DSR + fine-tuned, 16 px, bicubic`
    conditions: Conditions
    vlr_size: str  # of the probes; empty where they were not downsampled
    points: OperatingPoints | None
    ratios: LogisticCalibration | None
    reason: str = ""  # why there are no points
    ratios_reason: str = ""
    template_pictures: int = 1  # of the templates that were compared with single pictures

    def plain(self) -> dict[str, Any]:
        """For report.json and a gallery's metadata."""
        return {
            "name": self.name,
            "conditions": dict(self.conditions),
            "vlr_size": self.vlr_size,
            "template_pictures": self.template_pictures,
            "fpir": {LACKING: self.reason} if self.points is None else asdict(self.points),
            "likelihood_ratio": {LACKING: self.ratios_reason} if self.ratios is None else asdict(self.ratios),
        }

    @classmethod
    def from_plain(cls, plain: Any, source: str | Path) -> Self:
        """Of what `plain` gave, and more. Raises InputError for anything else."""
        try:
            points, ratios = plain["fpir"], plain["likelihood_ratio"]
            return cls(
                str(plain["name"]),
                {str(name): str(value) for name, value in plain["conditions"].items()},
                str(plain["vlr_size"]),
                None if LACKING in points else OperatingPoints(**points),
                None if LACKING in ratios else LogisticCalibration(**ratios),
                str(points.get(LACKING, "")),
                str(ratios.get(LACKING, "")),
                int(plain.get("template_pictures", 1)),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise InputError(f"{source}: its calibration is damaged: {AGAIN}") from None

    def threshold(self, rate: float, size: int) -> float:
        """For this FPIR in a gallery of `size` people. Raises InputError where the sample cannot support it."""
        if self.points is None:
            raise InputError(f"{INSUFFICIENT} for FPIR {rate:g}: {self.reason}")
        return self.points.threshold(rate, size)

    def likelihood_ratio(self, score: float) -> float | None:
        """How much more often this cosine occurs between pictures of one person than of two."""
        return None if self.ratios is None else math.exp(float(self.ratios(score)))  # type: ignore[arg-type]

    def differing(self, others: Conditions) -> str:
        """The first condition under which these scores came about otherwise, in words; empty where there is none."""
        for name, value in others.items():
            if (own := self.conditions.get(name, "")) != value:
                return f"{WORDS[name]} {own[:SHORT] or 'none'}, not {value[:SHORT] or 'none'}"
        return ""


def read_calibration(report: Path, key: tuple[str, str], name: str | None) -> Calibration:
    """The one in an evaluation's report.json that is of a recogniser.

    key: contract and digest, FaceRecognizer.key. name: of a configuration, or its own; None: the only one there is.
    Raises InputError for another file, for a report of another recogniser, and where several are of this one.
    """
    found = _calibrations(report)
    own = [each for each in found if (each.conditions.get("contract"), each.conditions.get("digest")) == key]
    if not own:
        same = next((each for each in found if each.conditions.get("digest") == key[1]), None)
        if same is not None:
            raise InputError(
                f"{report}: its faces are in the form {same.conditions.get('contract')}, not {key[0]}: {AGAIN}"
            )
        raise InputError(f"{report}: is of another recogniser than the one that enrols ({key[1][:SHORT]}): {AGAIN}")
    chosen = [each for each in own if name is None or name in (each.name, each.name.partition(",")[0])]
    names = ", ".join(f'"{each.name}"' for each in chosen or own)
    if not chosen:
        raise InputError(f'`configuration` "{name}": {report} has of this recogniser {names}')
    if len(chosen) > 1:
        raise InputError(f"`configuration`: {report} has several of this recogniser: choose from {names}")
    return chosen[0]


def _calibrations(report: Path) -> Sequence[Calibration]:
    """Each once: that of HR faces is the same under every condition."""
    wanted = "a report.json of earface evaluate is wanted"
    try:
        if report.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{report}: more than the limit of {MAX_JSON_BYTES:,} bytes: {wanted}")
        content = json.loads(report.read_text(encoding="utf-8"))
        rows = [row for condition in content["conditions"] for row in condition["rows"]]
        plain = [row["calibration"] for row in rows if "calibration" in row]
    except OSError as error:
        raise InputError(f"{report}: {error.strerror}: {wanted}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{report}: {wanted}") from None
    if not plain:
        raise InputError(f"{report}: holds no calibration: {AGAIN}, of searches rather than `pairs`")
    every = [Calibration.from_plain(each, report) for each in plain]
    return list({each.name: each for each in every}.values())
