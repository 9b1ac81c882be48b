"""Data -> a model worth keeping: settings found by validation, within a time."""

from dlworkshop.search.autofit import autofit
from dlworkshop.search.candidates import prepared
from dlworkshop.search.task import task_of

__all__ = ["autofit", "prepared", "task_of"]
