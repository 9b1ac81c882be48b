"""What a run knows of its own answers: how often they hold, and what they rest on."""

from dlworkshop.answers.study import FILE, notes, study

__all__ = ["FILE", "notes", "study"]
