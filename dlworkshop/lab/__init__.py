"""The live lab: local pages that train, predict and check gradients interactively.

This room has plain functions from settings to numbers and pictures; `apps` has the
marimo pages that call them, and `server` serves the pages.
"""
