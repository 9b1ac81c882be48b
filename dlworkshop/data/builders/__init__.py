"""tfds builders that prepare ArrayRecord files without TensorFlow.

tfds is imported by the modules beside this one, and those only when they are used.
"""

from typing import Any


def builder_class(name: str) -> Any:
    """The builder of a data set; names with a config, as emnist/letters, share one.

    >>> str(builder_class("mnist").VERSION)
    '3.0.1'
    """
    from dlworkshop.data.builders import cifar, digits, mnist  # noqa: PLC0415

    return {
        "digits": digits.Digits,
        "mnist": mnist.MNIST,
        "fashion_mnist": mnist.FashionMNIST,
        "kmnist": mnist.KMNIST,
        "emnist": mnist.EMNIST,
        "cifar10": cifar.Cifar10,
        "cifar100": cifar.Cifar100,
    }[name.partition("/")[0]]


def make_builder(name: str, data_dir: str) -> Any:
    """The builder of `name` that writes below `data_dir`."""
    config = name.partition("/")[2]
    return builder_class(name)(
        data_dir=data_dir, **({"config": config} if config else {})
    )
