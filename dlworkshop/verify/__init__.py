"""Verification: gradients against finite differences, claims against measurements.

Names are imported on first access: pytest loads the plugin of this package at the start
of every test suite, and must not import JAX there.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlworkshop.verify.gradients import check_gradients
    from dlworkshop.verify.report import (
        Comparison,
        Culprit,
        GradientReport,
        ParameterCheck,
    )

__all__ = [
    "Comparison",
    "Culprit",
    "GradientReport",
    "ParameterCheck",
    "check_gradients",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlworkshop.verify import gradients, report  # noqa: PLC0415 - see the docstring

    return getattr(gradients if name == "check_gradients" else report, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
