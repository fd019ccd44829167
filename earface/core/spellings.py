"""Options that were once called otherwise: one table for flags, configuration files and stored options.

An old name counts where the new one is an option and the old one is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

OLD_NAMES = {
    "face_crop": "crop",
    "inputs": "upsampler",
    "route": "upsampler",
    "sheet": "image_grid",
    "sheet_images": "grid_images",
    "threshold": "score_threshold",
    "top": "top_k",
    "tune_fraction": "calibration_fraction",
    "tuned": "finetuned",
    "weights": "recognizer",
    "workers": "num_workers",
}
OLD_WORDS = {"upsampler": {"interpolation": "bicubic", "hr": "none"}}  # also inside a mixture such as dsr=.7,hr=.3
OLD_SWITCHES = {"augment": {"true": "light", "false": "none"}}  # options that were once true or false
ONCE_SINGLE = ("npy", "train_npy", "val_npy")  # options that take several values now


def current_name(name: str, options: Collection[str]) -> str:
    """The option of `options` that `name` is, or once was; `name` itself where there is none."""
    new = OLD_NAMES.get(name, name)
    return new if name not in options and new in options else name


def current_value(name: str, value: Any) -> Any:
    """The value of the option `name` (as it is called today), text or not, as it is written today."""
    if name in OLD_SWITCHES and str(value).lower() in OLD_SWITCHES[name]:
        return OLD_SWITCHES[name][str(value).lower()]
    words = OLD_WORDS.get(name)
    if words is None or not isinstance(value, str):
        return value
    return re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[1]], value)


def current_options(stored: Mapping[str, Any], options: Collection[str] | None = None) -> dict[str, Any]:
    """Stored options under today's names and values; what nothing is known of stays as it is.

    options: today's names, where they are known; otherwise every old name counts whose new one is not there too.
    """
    renamed: dict[str, Any] = {}
    for old, value in stored.items():
        name = current_name(old, options) if options is not None else OLD_NAMES.get(old, old)
        if name != old and name in stored:
            name = old
        renamed[name] = [value] if name in ONCE_SINGLE and isinstance(value, str) else current_value(name, value)
    return renamed
