# What `__init__.py` imports on first use, for type checkers and editors.
from facial_rec.config import EdgeFaceConfig as EdgeFaceConfig
from facial_rec.config import EdgeFaceTrainingConfig as EdgeFaceTrainingConfig
from facial_rec.contract import FaceContract as FaceContract
from facial_rec.datamodule import EdgeFaceDataModule as EdgeFaceDataModule
from facial_rec.losses import EdgeFaceLoss as EdgeFaceLoss
from facial_rec.model import EdgeFace as EdgeFace
from facial_rec.module import EdgeFaceLightning as EdgeFaceLightning
from facial_rec.recognizer import FaceRecognizer as FaceRecognizer
from facial_rec.recognizer import load_recognizer as load_recognizer
