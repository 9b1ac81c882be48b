"""tfds builders that prepare ArrayRecord files without TensorFlow.

The other modules of this package import tfds, so they are imported only when needed.
"""

from typing import Any


def builder_class(name: str) -> Any:
    """The builder class of a data set; configs such as emnist/letters share one."""
    from dlworkshop.data.builders import digits, official  # noqa: PLC0415

    if name == "digits":
        return digits.Digits
    return official.from_arrays(name.partition("/")[0])
