"""The live lab: pages on this machine that train, answer and check while you look.

Here are plain functions, from settings to numbers and pictures; `apps` has the marimo
pages that call them, and `server` serves those.
"""
