"""What `import ear_teacher` offers."""

from __future__ import annotations

import re
from pathlib import Path

import ear_teacher

PARTS = ("", "Config", "TrainingConfig", "Lightning", "DataModule", "Loss")


def test_the_package_offers_six_classes_of_each_model_and_declares_them_to_type_checkers() -> None:
    models = {f"{model}{part}" for model in ("EarVAE", "EarDetector", "EarRecognizer") for part in PARTS}
    assert {*models, "EarContract"} == {*ear_teacher.__all__}
    assert all(getattr(ear_teacher, name).__name__ == name for name in ear_teacher.__all__)
    declared = Path(ear_teacher.__file__).with_suffix(".pyi").read_text()
    assert {*re.findall(r" as (\w+)", declared)} == {*ear_teacher.__all__}
