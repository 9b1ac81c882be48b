"""Reliability and explanation of a run's predictions."""

from dlworkshop.answers.study import FILE, notes, study

__all__ = ["FILE", "notes", "study"]
