"""How each claim of the lesson is made false."""

import numpy as np

FAST = {
    "num_examples": 64,
    "seeds": 5,
    "num_epochs": 8,
    "learning_rate": (0.01, 0.1),
    "weight_decay": (0.1,),
}


def blind(features):
    """Nothing comes out of the network."""

    def zeros(model, params, dataset):
        seen = features(model, params, dataset)
        splits = [s._replace(image=0 * s.image) for s in seen[:3]]
        return seen._replace(train=splits[0], validation=splits[1], test=splits[2])

    return zeros


def larger(on_rgb):
    """The network has a number that it does not use."""

    def on_rgb_and_more(model):
        whole = on_rgb(model)
        return whole._replace(
            init=lambda key, image: whole.init(key, image) | {"more": np.zeros(1)}
        )

    return on_rgb_and_more


PLANTED = [
    (
        {
            "features": blind,
            "ENTRANCE": lambda doors: doors | {"caffe": lambda x: 255 * x},
            "by_hand": lambda by_hand: lambda params, x: by_hand(params, x)[::-1],
        },
        ["The features are", "Heads on features"],
    ),
    (
        {"on_rgb": larger},
        ["VGG16 has"],
    ),
]
