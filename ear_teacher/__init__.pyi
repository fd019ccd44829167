# What `__init__.py` imports on first use, for type checkers and editors.
from ear_teacher.detector.model import EarDetector as EarDetector
from ear_teacher.detector.module import EarDetectorLightning as EarDetectorLightning
from ear_teacher.model import EarVAE as EarVAE
from ear_teacher.module import EarVAELightning as EarVAELightning
