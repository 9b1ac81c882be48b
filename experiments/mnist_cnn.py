"""How much do local receptive fields and shared weights help on MNIST?

Several convolutional networks, which differ only in their seed, learn the 60,000 images
of LeCun et al. (1998) together in one program.

    python experiments/mnist_cnn.py --data-dir FOLDER_WITH_THE_FOUR_FILES

Expect 99.3 % test accuracy after four to eight minutes on 2 cores; compare with
`mnist_mlp.py`.
"""

from dataclasses import dataclass

import optax

from dlworkshop import data, fit, models, schedules, workshop
from dlworkshop.train.result import Run


@dataclass(frozen=True)
class Config(workshop.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 5
    """Number of models to train together, with seeds 0, 1, ..."""
    num_epochs: int = 5
    """Passes over the training split."""
    learning_rate: tuple[float, ...] = (0.003,)
    """Peak of the one-cycle schedule; several values make a sweep."""
    dropout: float = 0.5
    """Probability of dropping a fully connected unit in training."""
    features: tuple[int, ...] = (32, 64)
    """Channels of each convolution."""
    dense: tuple[int, ...] = (128,)
    """Units of each hidden fully connected layer."""
    convolution: str | None = None
    """How to compute convolutions, for instance `patches` or `lax`; by default the
    fastest on this machine, which a long run measures."""


def main(config: Config) -> Run:
    """Train with given settings, and read the test split once."""
    mnist = data.load("mnist", config.data_dir)
    model = models.cnn(
        config.features,
        config.dense,
        pooling=models.max_pool,
        dropout=config.dropout,
        num_classes=len(mnist.classes),
    )
    return fit(
        model,
        mnist,
        optax.adam,
        hparams={"learning_rate": config.learning_rate},
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        schedule=schedules.one_cycle,
        workdir=config.workdir,
        convolution=config.convolution,
        experiment="mnist_cnn",
    )


if __name__ == "__main__":
    workshop.start(main, Config)
