"""Slides of vgg16_transfer.py: what each setting came to, and the test images."""

import numpy as np

from dlworkshop.report.lesson_figures import dots, table
from dlworkshop.workshop.lesson import Exercise, Figure


def every_setting(config, trials):
    """The settings of a sweep, best first, as a table of rates and decays."""
    best = trials[0]["hparams"]
    rates, decays = config.learning_rate, config.weight_decay
    accuracy = {
        tuple(row["hparams"].values()): row["validation"]["accuracy"]["mean"]
        for row in trials
    }
    grid = [[accuracy[rate, decay] for rate in rates] for decay in decays]

    def draw(axes):
        percent = 100 * np.array(grid, float)
        texts = np.vectorize("{:.1f}".format)(percent)
        dark = 2 * np.nanmax(percent) - np.nanmin(percent)  # too dark for black letters
        table(axes, percent, texts, "Blues", vmax=dark, origin="lower", aspect="auto")
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
        axes.set(xlabel="learning rate", ylabel="weight decay")

    return Figure(
        "every_setting",
        draw,
        f"Of {len(trials)} settings, rate {best['learning_rate']:g} and decay "
        f"{best['weight_decay']:g} are best on validation",
        f"Validation accuracy (%), mean of {config.seeds} heads on features.",
    )


def test_accuracy(results):
    """Input of the heads -> test accuracies [P] in percent, three or more."""
    features, pixels, drawn = (each.mean() for each in list(results.values())[:3])
    return Figure(
        "test_accuracy",
        lambda axes: dots(axes, results, "test accuracy (%)"),
        f"Heads read {features:.1f} % of test images from features, {pixels:.1f} % "
        f"from pixels, {drawn:.1f} % from random features",
        "A dot is a seed, the number their mean. The settings were chosen on "
        "validation, for each input separately. Random features: one layer of ReLUs "
        "with random weights on the pixels, as many as VGG16 has.",
    )


def exercises():
    """Three questions; their answers are about the digits, with random weights."""
    return [
        Exercise(
            "Take `--num-examples 64`. Do the features of VGG16 still pay?",
            "No: heads on them read 73 % of test digits, heads on pixels 78 %, and the "
            "claim fails. 64 examples do not determine the weights of 512 features.",
        ),
        Exercise(
            "Take `--weight-decay 0`. What is lost? And why is it the validation split "
            "that chooses among the settings?",
            "1.2 points: 96.9 % of test digits are read in place of 98.1 %. The best "
            "of 48 by the test split would partly be the luckiest there, and no images "
            "would be left that tell how good it is.",
        ),
        Exercise(
            "Take `--fine-tune-epochs 3`, which takes some minutes. Does it help to "
            "train the last block as well?",
            "Not by a difference that six seeds can show: 98.06 % ± 0.24 % after "
            "98.15 % ± 0.17 %. The rate of 1e-5 suits weights that need little change.",
        ),
    ]
