"""How each claim of the lesson is made false."""

from types import SimpleNamespace

FAST = {"seeds": 1, "image_size": 32}


def without_bias(convolve):
    return lambda x, kernel, bias: convolve(x, kernel, 0 * bias)


def as_large(count):
    """A bias is forgotten, and all layers have the size of the first."""

    def wrong(side):
        weights = {name: held - 1 for name, (held, _) in count(side).items()}
        return {name: (held, side * side * held) for name, held in weights.items()}

    return wrong


def one_class_less(models):
    def vgg16(include_top=False):
        more = {"num_classes": 999} if include_top else {}
        return models.vgg16(include_top, **more)

    return SimpleNamespace(vgg16=vgg16, num_params=models.num_params)


PLANTED = [
    (
        {
            "convolve": without_bias,
            "count": as_large,
            "models": one_class_less,
        },
        [
            "The network written out",
            "A layer has",
            "XLA counts",
            "Blocks 1 to 3",
            "With its top",
        ],
    ),
]
