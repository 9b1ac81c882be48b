"""A run folder -> load, evaluate, predict, export, features."""
