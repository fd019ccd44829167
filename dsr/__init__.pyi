# What `__init__.py` imports on first use, for type checkers and editors.
from dsr.config import DSRConfig as DSRConfig
from dsr.config import DSRTrainingConfig as DSRTrainingConfig
from dsr.datamodule import DSRDataModule as DSRDataModule
from dsr.losses import DSRLoss as DSRLoss
from dsr.model import DSR as DSR
from dsr.module import DSRLightning as DSRLightning
