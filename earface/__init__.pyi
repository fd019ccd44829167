# What `__init__.py` imports on first use, for type checkers and editors.
from earface.runs import TrainedRun as TrainedRun
from earface.runs import train as train

__version__: str
