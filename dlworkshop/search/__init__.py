"""`autofit`: data -> a trained model, with settings chosen by validation."""

from dlworkshop.search.autofit import autofit
from dlworkshop.search.candidates import prepared
from dlworkshop.search.task import task_of

__all__ = ["autofit", "prepared", "task_of"]
