"""How each claim of the lesson is made false."""

SLOW = True
FAST = {
    "num_examples": 400,
    "seeds": 5,
    "num_epochs": 8,
    "learning_rate": (0.01, 0.1),
    "weight_decay": (0.1,),
}
COMPUTING = True


def blind(features):
    """Nothing comes out of the network."""

    def zeros(model, params, dataset):
        seen = features(model, params, dataset)
        return seen.each_split(lambda split: split._replace(inputs=0 * split.inputs))

    return zeros


PLANTED = [
    ({"features": blind}, ["The features are", "Heads on features"]),
]
