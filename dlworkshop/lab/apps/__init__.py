"""The pages of the lab: marimo apps. They are served, and never imported."""
