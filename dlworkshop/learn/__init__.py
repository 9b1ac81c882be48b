"""Objectives, losses, metrics, optimizers, and steps lifted to populations."""
