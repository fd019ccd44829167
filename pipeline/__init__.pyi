# What `__init__.py` imports on first use, for type checkers and editors.
from facial_rec.recognizer import FaceRecognizer as Recognizer
from pipeline.gallery import Gallery as Gallery

__all__ = ["Gallery", "Recognizer"]
