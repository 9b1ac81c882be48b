"""Formatting of quantities with units, errors, durations and JSON values as text."""

import math
from typing import Any

MISSING = "—"
SHOWN = 12  # of a longer list only so many entries are written
ROUNDING = 1e-12  # share of a number, of sums in float64
ACRONYMS = {
    "auc": "AUC",
    "f1": "F1",
    "mae": "MAE",
    "mse": "MSE",
    "r2": "R²",
    "rmse": "RMSE",
    "roc": "ROC",
}
# The unit of a regression loss, as the model minimises it.
ERRORS = {
    "squared_error": "squared error",
    "absolute_error": "absolute error",
    "huber": "Huber's error",
}


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number; None, NaN and True are not."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def is_fraction(name: str) -> bool:
    """Whether a quantity is a fraction, which is printed in percent."""
    return "accuracy" in name or name == "calibration error"


def humanize(name: str) -> str:
    """`learning_rate` -> `learning rate`, `rmse` -> `RMSE`.

    >>> humanize("learning_rate"), humanize("roc_auc"), humanize("r2")
    ('learning rate', 'ROC AUC', 'R²')
    """
    return " ".join(ACRONYMS.get(word, word) for word in name.split("_"))


def titled(name: str) -> str:
    """`humanize`, starting with a capital letter.

    >>> titled("learning_rate"), titled("test_rmse")
    ('Learning rate', 'Test RMSE')
    """
    text = humanize(name)
    return text[:1].upper() + text[1:]


def unit(name: str, loss: str) -> str:
    """The unit of a quantity, given the name of the run's loss ("" for the default).

    >>> unit("loss", ""), unit("loss", "focal_loss"), unit("accuracy", "")
    ('nats', '', '%')
    >>> unit("loss", "squared_error")
    'squared error'
    """
    if name == "loss":
        nats = not loss or "entropy" in loss
        return "nats" if nats else ERRORS.get(loss, "")
    return "%" if is_fraction(name) else ""


def quantity(value: Any, name: str, decimals: int = 1) -> str:
    """A measured value with its unit.

    >>> quantity(0.9912, "accuracy"), quantity(0.03214159, "loss"), quantity(None, "")
    ('99.1 %', '0.0321', '—')
    >>> quantity(999.4, ""), quantity(999.5, ""), quantity(12345.6, "")
    ('999', '1,000', '12,346')
    """
    if not is_number(value):
        return MISSING
    if is_fraction(name):
        return f"{100 * value:.{decimals}f} %"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:,.0f}"


def with_error(mean: Any, sem: Any, name: str) -> str:
    """A mean and its standard error, rounded to the error's digits.

    >>> with_error(0.99124, 0.00113, "accuracy")
    '99.1 % ± 0.1 %'
    >>> with_error(0.03214, 0.00113, "loss"), with_error(0.5, None, "loss")
    ('0.0321 ± 0.0011', '0.500')
    >>> with_error(0.03214, 0.0, "loss"), with_error(0.94444, 1e-17, "accuracy")
    ('0.0321 ± 0', '94.44 % ± 0.00 %')
    """
    if not is_number(mean) or not is_number(sem):
        return quantity(mean, name)
    if sem <= ROUNDING * abs(mean):  # equal members, up to the rounding of their mean
        sem = 0.0
    if is_fraction(name):
        digits = _decimals(100 * sem, 1, 1, 3)
        return f"{quantity(mean, name, digits)} ± {quantity(sem, name, digits)}"
    if sem == 0:
        return f"{quantity(mean, name)} ± 0"
    if 0 < abs(mean) < 1e-4 or abs(mean) >= 1e6:
        return f"{mean:.3g} ± {sem:.1g}"
    digits = _decimals(sem, 2, 0, 6)
    return f"{mean:,.{digits}f} ± {sem:,.{digits}f}"


def _decimals(error: float, significant: int, low: int, high: int) -> int:
    """Decimal places that show `significant` digits of an error, within bounds."""
    if error <= 0:
        return max(low, 3 - significant)
    return min(max(significant - 1 - math.floor(math.log10(error)), low), high)


def compact(value: Any) -> str:
    """A number of any size in a few characters.

    >>> compact(31), compact(2.2e-16), compact(0.98765), compact(12288), compact(None)
    ('31', '2.2e-16', '0.988', '12,288', '—')
    """
    if not is_number(value):
        return MISSING
    if value == int(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.3g}"


def p_value(p: Any) -> str:
    """The p of a test, which is never 0, also where float64 has no smaller number.

    >>> p_value(0.0123), p_value(0.0)
    ('p = 0.012', 'p < 1e-300')
    """
    return f"p = {p:.2g}" if p >= 1e-300 else "p < 1e-300"


def format_claim(claim: dict[str, Any]) -> str:
    """A claim on one line that starts with the verdict.

    >>> format_claim({"statement": "it is small", "value": 1e-16, "relation": "<=",
    ...           "bound": 1e-14, "n": 31, "verdict": "holds"})
    'holds: it is small (1e-16 <= 1e-14, n = 31)'
    >>> format_claim({"statement": "it is large", "value": 1, "relation": ">",
    ...           "bound": 2, "n": 9, "p": 0.5, "verdict": "fails"})
    'FAILS: it is large (1, wanted > 2, n = 9, p = 0.5)'
    """
    holds = claim["verdict"] == "holds"
    verdict, wanted = ("holds", "") if holds else ("FAILS", ", wanted")
    measured = f"{compact(claim['value'])}{wanted} {claim['relation']}"
    p = claim.get("p")
    n = f"n = {claim['n']:,}" + (f", {p_value(p)}" if is_number(p) else "")
    bound = compact(claim["bound"])
    return f"{verdict}: {claim['statement']} ({measured} {bound}, {n})"


def duration(seconds: Any) -> str:
    """Seconds as text, such as "3 min 5 s".

    >>> duration(0.0123), duration(12.34), duration(204), duration(7300)
    ('0.012 s', '12.3 s', '3 min 24 s', '2 h 1 min')
    """
    if not is_number(seconds):
        return MISSING
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: Any, noun: str = "", nouns: str | None = None) -> str:
    """A whole number with thousands separators and a noun.

    >>> count(1, "model"), count(412778, "parameter"), count(2, "class")
    ('1 model', '412,778 parameters', '2 classes')
    >>> count(2, "entry", "entries")
    '2 entries'
    """
    if not is_number(number):
        return MISSING
    plural = "es" if noun.endswith("s") else "s"
    many = noun + plural if noun and nouns is None else nouns or ""
    return f"{number:,.0f} {noun if number == 1 else many}".strip()


def plain(value: Any) -> str:
    """Any JSON value on one line.

    >>> plain(0.1), plain(None), plain(True), plain([0.1] * 8), plain([3, 4])
    ('0.1', '—', 'yes', '0.1 (all 8)', '3, 4')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else MISSING
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return _plain_list([plain(item) for item in value])
    return str(value)


def _plain_list(items: list[str]) -> str:
    if len(items) > 1 and len(set(items)) == 1:
        return f"{items[0]} (all {len(items)})"
    if len(items) <= SHOWN:
        return ", ".join(items) or "none"
    return f"{', '.join(items[:SHOWN])}, … {items[-1]} ({len(items)} values)"


def flatten(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON as rows of (dotted key, value).

    >>> flatten({"model": {"name": "cnn", "widths": [32, 64]}, "batch_size": 128})
    [('model.name', 'cnn'), ('model.widths', '32, 64'), ('batch_size', '128')]
    """
    if tree == {} and not prefix:
        return []
    if not isinstance(tree, dict) or not tree:
        return [(prefix, MISSING if tree == {} else plain(tree))]
    rows = []
    for key, value in tree.items():
        rows += flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return rows
