"""Is it true? Gradients against finite differences; claims against their evidence.

Names are looked up when asked for: pytest loads the plugin of this package at its
start, in every suite, and must not pay for JAX there.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlworkshop.verify.gradients import (
        GradientReport,
        ParameterCheck,
        check_gradients,
    )

__all__ = ["GradientReport", "ParameterCheck", "check_gradients"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlworkshop.verify import gradients  # noqa: PLC0415 - see the docstring

    return getattr(gradients, name)
