"""The experiments are in their folder, and in a wheel within the package."""

from setuptools import find_packages, setup

EXPERIMENTS = "dlworkshop.experiments"

setup(
    packages=[
        *find_packages(include=["dlworkshop*"]),
        EXPERIMENTS,
        f"{EXPERIMENTS}.slides",
    ],
    package_dir={EXPERIMENTS: "experiments"},
    package_data={
        EXPERIMENTS: ["pages/*.md"],
        "dlworkshop.lab.apps": ["*.css", "*.js"],
    },
)
