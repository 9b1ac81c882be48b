"""What a run knows of its own answers: how often they hold, and what they rest on."""

from dlworkshop.answers.study import FILE, study

__all__ = ["FILE", "study"]
