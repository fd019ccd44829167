# What `__init__.py` imports on first use, for type checkers and editors.
from dsr.config import DSRConfig as DSRConfig
from dsr.model import DSR as DSR
from dsr.module import DSRLightning as DSRLightning
