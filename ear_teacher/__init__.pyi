# What `__init__.py` imports on first use, for type checkers and editors.
from ear_teacher.config import EarVAEConfig as EarVAEConfig
from ear_teacher.config import EarVAETrainingConfig as EarVAETrainingConfig
from ear_teacher.datamodule import EarVAEDataModule as EarVAEDataModule
from ear_teacher.detector.config import EarDetectorConfig as EarDetectorConfig
from ear_teacher.detector.config import EarDetectorTrainingConfig as EarDetectorTrainingConfig
from ear_teacher.detector.datamodule import EarDetectorDataModule as EarDetectorDataModule
from ear_teacher.detector.losses import EarDetectorLoss as EarDetectorLoss
from ear_teacher.detector.model import EarDetector as EarDetector
from ear_teacher.detector.module import EarDetectorLightning as EarDetectorLightning
from ear_teacher.losses import EarVAELoss as EarVAELoss
from ear_teacher.model import EarVAE as EarVAE
from ear_teacher.module import EarVAELightning as EarVAELightning
