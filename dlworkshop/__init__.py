"""dlworkshop: one pure function of ONE example, lifted five times."""

import importlib
from typing import Any

_PUBLIC = {  # name -> where it lives; loaded when first asked for
    "data": "dlworkshop.data",
    "fit": "dlworkshop.run.fit:fit",
    "losses": "dlworkshop.learn.losses",
    "metrics": "dlworkshop.learn.metrics",
    "models": "dlworkshop.models",
    "optimizers": "dlworkshop.learn.optimizers",
    "schedules": "dlworkshop.learn.schedules",
    "verify": "dlworkshop.verify",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dlworkshop' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
