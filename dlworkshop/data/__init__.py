"""Name or path -> Dataset -> batches."""

from dlworkshop.data.catalogue import NAMES
from dlworkshop.data.load import load

__all__ = ["NAMES", "load"]
