"""Whether two things are the same: by content, never by a name alone."""

from dlworkshop.identity.description import checksum, describe, digest
from dlworkshop.identity.difference import difference, opaque

__all__ = ["checksum", "describe", "difference", "digest", "opaque"]
