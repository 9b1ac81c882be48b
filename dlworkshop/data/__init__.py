"""Data sets: by name, from a path or from arrays."""

from dlworkshop.data.catalogue import NAMES
from dlworkshop.data.content import fingerprint
from dlworkshop.data.from_arrays import from_arrays
from dlworkshop.data.inputs_like import check_inputs_like, describe_inputs
from dlworkshop.data.load import load
from dlworkshop.data.units import in_own_units

__all__ = [
    "NAMES",
    "check_inputs_like",
    "describe_inputs",
    "fingerprint",
    "from_arrays",
    "in_own_units",
    "load",
]
