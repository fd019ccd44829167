"""The metrics of eigenears as JSON, as CSVs with a row per component and per ear, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ear_teacher.eigenears.appearance import PARTS
from ear_teacher.eigenears.components import Components
from ear_teacher.eigenears.movements import Movement
from earface.data.tables import write_csv

COLUMNS = {"pose_by_landmarks": "pose", "pose_by_index": "index's pose"}
EXPLAINS = {
    "laterality": "left or right",
    "pose_by_landmarks": "pose by landmarks",
    "pose_by_index": "pose by the index",
}
FIRST = 5  # components that are also summed up, as the literature reports eigenears

CONVENTION = (
    "variance: eigenvalue over their sum, of PCA of mu in the metric named. picture: z'Gz with G the mean of J'J over "
    "4 ears, J the derivative of the decoded picture (pixels in [0, 1]) by the latents, central differences of one "
    "standard deviation. latent: plain PCA of mu. pictures: share of the variance of all pixels of the input pictures "
    "that the component's score predicts linearly. pixel_pca: the same of pixel PCA fitted to these pictures, the "
    "most that any linear scores can reach. latents: share of the plain variance of mu. Shares of uncorrelated scores "
    "add up. brightness, colour, gradient, structure: R^2 of the score, by least squares on these ears, on mean luma "
    "(BT.601); what mean red, green and blue add; what the two slopes of the least-squares plane through luma add; "
    "the rest; kind: light where that is less than half. name: what landmarks move most between the ends of the "
    "pictures' range, as a share of the ear's height, averaged over the mean ear and 8 typical ones, unless it is "
    "less than in 95 % of changes of light alone, than two standard errors of these ears, or 1 %. landmarks: root mean "
    "square of the displacement; landmark_noise: of that by light alone. "
    "The following overlap with structure, and with each other. "
    "pose_by_landmarks: R^2 on rotation, ln(a / b) and k / b of the affine map R [[a, k], [0, b]] from the mean shape "
    "to the landmarks of the input ears. pose_by_index: R^2 on pitch, yaw, roll of index.csv, and their squares. "
    "laterality: R^2 on left or right, alone. subject: intraclass correlation ICC(1), the share of a score's "
    "variance that lies between subjects. "
    "Factors: R^2 of predictions for subjects left out (5 folds), ridge regression on the group's factors, their "
    "squares and products, and the side, less what the side alone explains; side: the side alone. A component's "
    "positive end is the brighter one; scores have standard deviation 1."
)


@dataclass(frozen=True)
class EigenearResults:
    """The metrics of K components; each array is (K,)."""

    components: Components
    pictures: NDArray[np.float64]
    pixel_pca: NDArray[np.float64]  # may be shorter
    plain: NDArray[np.float64]  # variance shares of plain PCA of mu
    parts: Mapping[str, NDArray[np.float64]]
    movements: Sequence[Movement]
    landmark_noise: float  # root mean square displacement by light alone, of the ear's height
    pose: NDArray[np.float64] | None  # R^2 on landmarks; None: too few, or pictures without their proportions
    pose_by_index: NDArray[np.float64] | None  # None: no index of the pictures has poses
    laterality: NDArray[np.float64] | None  # None: sides are not known, or all are one
    subject: NDArray[np.float64] | None  # None: subjects are not known, or too few
    factors: Mapping[str, NDArray[np.float64]] | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per component."""
        columns = {
            "variance": self.components.variance,
            "pictures": self.pictures,
            "latents": self.components.latent_variance,
            **self.parts,
            **{name: values for name, values in self.known.items() if values is not None},
            **(self.factors or {}),
        }
        return [
            {
                "component": row + 1,
                "kind": "light" if self.of_light(row) else "shape",
                "name": self.movements[row].name,
                "landmarks": self.movements[row].landmarks,
                **{name: float(values[row]) for name, values in columns.items()},
            }
            for row in range(len(self.pictures))
        ]

    @property
    def known(self) -> dict[str, NDArray[np.float64] | None]:
        """What may overlap with structure, where it is known."""
        return {
            "pose_by_landmarks": self.pose,
            "pose_by_index": self.pose_by_index,
            "laterality": self.laterality,
            "subject": self.subject,
        }

    def of_light(self, row: int) -> bool:
        """Whether brightness, colour and gradient are more of a component than structure."""
        return float(self.parts["structure"][row]) < 0.5

    @property
    def first(self) -> dict[str, Any]:
        """The first components together; their composition is weighted by their variance."""
        count = min(FIRST, len(self.pictures))
        weights = self.components.variance[:count]
        return {
            "components": count,
            "variance": float(weights.sum()),
            "pictures": float(self.pictures[:count].sum()),
            "pixel_pca": float(self.pixel_pca[:count].sum()),
            "latents": float(self.components.latent_variance[:count].sum()),
            "plain_pca_of_latents": float(self.plain[:count].sum()),
            **{part: float(np.average(self.parts[part][:count], weights=weights)) for part in PARTS},
            **{
                name: float(np.average(values[:count], weights=weights))
                for name, values in self.known.items()
                if values is not None and name != "subject"
            },
        }

    def best_factors(self, row: int, count: int = 2) -> str:
        """The groups that explain most of a component, as text; '-' if none explains a twentieth."""
        shares = {name: float(values[row]) for name, values in (self.factors or {}).items()}
        leading = sorted((name for name in shares if shares[name] >= 0.05), key=lambda name: -shares[name])[:count]
        return ", ".join(f"{name} {shares[name]:.2f}" for name in leading) or "-"


def write_components(path: Path, found: EigenearResults) -> None:
    write_csv(path, list(found.rows[0]), [[_short(value) for value in row.values()] for row in found.rows])


def write_scores(path: Path, names: Sequence[str], subjects: Sequence[str] | None, scores: NDArray[np.float64]) -> None:
    """One row per ear; scores (N, K) in standard deviations. Unknown subjects are empty."""
    header = ["path", "subject", *(f"pc_{number + 1}" for number in range(scores.shape[1]))]
    who = subjects or [""] * len(names)
    write_csv(path, header, [[n, s, *map(_short, row)] for n, s, row in zip(names, who, scores, strict=True)])


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str("" if value is None else value)


def print_report(console: Console, found: EigenearResults, metric: str) -> None:
    table = Table("PC", box=None, header_style="bold")
    known = [name for name, values in found.known.items() if values is not None]
    for column in ("variance", *PARTS, *(COLUMNS.get(name, name) for name in known)):
        table.add_column(column, justify="right")
    if found.factors:
        table.add_column("factors")
    for row, metrics in enumerate(found.rows):
        shares = [f"{metrics[name]:.2f}" for name in (*PARTS, *known)]
        words = [found.best_factors(row, count=1)] if found.factors else []
        table.add_row(str(row + 1), f"{metrics['variance']:.1%}", *shares, *words)
    console.print(table)
    first = found.first
    made_of = ", ".join(f"{part} {first[part]:.0%}" for part in PARTS)
    made_of += "".join(f"; {words} explains {first[name]:.0%}" for name, words in EXPLAINS.items() if name in first)
    of_what = "decoded pictures" if metric == "picture" else "latents"
    lines = [
        f"first {first['components']}: {first['variance']:.1%} of the variance of the {of_what}; of that {made_of}",
        f"they predict {first['pictures']:.1%} of the variance of the input pictures; pixel PCA's "
        f"{first['pixel_pca']:.1%}, which is the maximum",
        f"plain PCA of the latents: {first['plain_pca_of_latents']:.1%} of the variance of the latents",
    ]
    named = (f"PC {row['component']}, {row['kind']}: {row['name']}" for row in found.rows)
    lines += ["what moves between the ends, in shares of the ear's height:", *named]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
