"""Building blocks of experiment scripts: flags, lessons, timing, the gallery."""

from dlworkshop.workshop.script import Config, Rising, TrainingConfig, Whole, start

__all__ = ["Config", "Rising", "TrainingConfig", "Whole", "start"]
