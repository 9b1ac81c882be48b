"""The pages of the lab: marimo apps, which are served and never imported."""
