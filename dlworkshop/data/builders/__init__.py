"""tfds builders that prepare ArrayRecord files without TensorFlow.

tfds is imported by the modules beside this one, and those only when they are used.
"""

from typing import Any


def builder_class(name: str) -> Any:
    """The builder of a data set; names with a config, as emnist/letters, share one."""
    from dlworkshop.data.builders import digits, official  # noqa: PLC0415

    if name == "digits":
        return digits.Digits
    return official.from_arrays(name.partition("/")[0])


def make_builder(name: str, data_dir: str) -> Any:
    """The builder of `name` that writes below `data_dir`."""
    config = name.partition("/")[2]
    return builder_class(name)(data_dir=data_dir, config=config or None)
