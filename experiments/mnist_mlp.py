"""How well does a network without image-specific structure do on MNIST?

Several perceptrons with two hidden layers, which differ only in their seed, learn the
60,000 images of LeCun et al. (1998) together in one program.

    python experiments/mnist_mlp.py --data-dir FOLDER_WITH_THE_FOUR_FILES

Expect 98.5 % test accuracy after 40 to 80 seconds on 2 cores. Simard, Steinkraus &
Platt (2003) report 98.4 % with one hidden layer of 800 units.
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
    num_epochs: int = 10
    """Passes over the training split."""
    learning_rate: tuple[float, ...] = (0.002,)
    """Peak of the cosine schedule; several values make a sweep."""
    dropout: float = 0.4
    """Probability of dropping a hidden unit in training."""
    widths: tuple[int, ...] = (512, 512)
    """Units of each hidden layer."""


def main(config: Config) -> Run:
    """Train with given settings, and read the test split once."""
    mnist = data.load("mnist", config.data_dir)
    model = models.mlp(
        config.widths, dropout=config.dropout, num_classes=len(mnist.classes)
    )
    return fit(
        model,
        mnist,
        optax.adam,
        hparams={"learning_rate": config.learning_rate},
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        schedule=schedules.cosine,
        workdir=config.workdir,
        experiment="mnist_mlp",
    )


if __name__ == "__main__":
    workshop.start(main, Config)
