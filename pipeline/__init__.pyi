# What `__init__.py` imports on first use, for type checkers and editors.
from facial_rec.recognizer import FaceRecognizer as Recognizer
from pipeline.gallery import Gallery as Gallery
from pipeline.recognizers import load_any as load_recognizer

__all__ = ["Gallery", "Recognizer", "load_recognizer"]
