"""Identity by content: whether two functions, settings or data sets are the same."""

from dlworkshop.identity.description import checksum, describe, digest
from dlworkshop.identity.difference import difference, opaque

__all__ = ["checksum", "describe", "difference", "digest", "opaque"]
