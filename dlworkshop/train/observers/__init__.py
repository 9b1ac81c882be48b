"""Observers for `fit(observe=[...])`: TensorBoard, and schedulers that save updates."""

from dlworkshop.train.observers.event_files import tensorboard
from dlworkshop.train.observers.halving import hyperband, successive_halving
from dlworkshop.train.observers.population_based import population_based_training
from dlworkshop.train.observers.snapshot import Copies

__all__ = [
    "Copies",
    "hyperband",
    "population_based_training",
    "successive_halving",
    "tensorboard",
]
