"""Building blocks of experiment scripts: flags, lessons, timing, the gallery."""

from dlworkshop.workshop.script import Config, TrainingConfig, start

__all__ = ["Config", "TrainingConfig", "start"]
