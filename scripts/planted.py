"""Compare derivative checks: the table of docs/gradients.md.

    python scripts/planted.py > table.md

Every case of `tests/verify/planted.py` is checked by `verify.check_gradients`, by
`jax.test_util.check_grads` (float64, default tolerances, with the modes and the order
of the case) and, rewritten for PyTorch, by `torch.autograd.gradcheck`. The script needs
the extra `peers` and takes about 5 minutes on 2 cores.
"""

import importlib
import sys
import warnings
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import test_util
from torch.autograd.gradcheck import GradcheckError

from dlworkshop.verify import check_gradients

ROOT = Path(__file__).parent.parent
FOUND, PASSED, CANNOT = "wrong", "right", "cannot run it"


class _Torch:
    """`torch`, with the names of `jax.numpy`."""

    softplus = staticmethod(torch.nn.functional.softplus)
    detach = staticmethod(lambda x: x.detach())
    float32 = staticmethod(lambda x: x.float().double())
    fft = staticmethod(torch.fft.fft)

    def __getattr__(self, name):
        return getattr(torch, name)


T = _Torch()


def by_us(case):
    """The verdict of `check_gradients`."""
    report = check_gradients(case.f, *case.args, culprits=False, **case.options)
    return {"WRONG": FOUND}.get(report.verdict, report.verdict)


def by_jax(case):
    """The verdict of `jax.test_util.check_grads`."""
    chosen = case.options.get("argnums", 0)
    chosen = (chosen,) if isinstance(chosen, int) else chosen
    order = case.options.get("order", 1)

    def f(*numbers):
        args = list(case.args)
        for i, number in zip(chosen, numbers, strict=True):
            args[i] = number
        out = case.f(*args)
        return out[0] if case.options.get("has_aux") else out

    with jax.enable_x64(True):
        numbers = tuple(jax.tree.map(jnp.asarray, case.args[i]) for i in chosen)
        said = CANNOT
        for mode in ("fwd", "rev"):
            try:
                test_util.check_grads(f, numbers, order, (mode,))
                said = PASSED
            except AssertionError:
                return FOUND
            except Exception:  # it has no such mode, or not these arguments
                continue
    return said


def by_torch(case):
    """The verdict of `torch.autograd.gradcheck`."""
    if case.value is None:
        return "-"
    f = _torch_function(case)
    args = [torch.tensor(x, requires_grad=True) for x in case.args]
    try:
        # which moves every entry; random directions where that would take hours
        torch.autograd.gradcheck(f, args, fast_mode=args[0].numel() > 10_000)
    except GradcheckError:
        return FOUND
    except Exception:
        return CANNOT
    return PASSED


def _torch_function(case):
    if case.backward is None:
        return lambda *args: case.value(T, *args)

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return case.value(T, *args)

        @staticmethod
        def backward(ctx, *g):
            return case.backward(T, g if len(g) > 1 else g[0], *ctx.saved_tensors)

    return Rule.apply


def main():
    """Print the two tables."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT / "tests/verify"))
    planted = importlib.import_module("planted")
    checks = {"check_gradients": by_us, "check_grads": by_jax, "gradcheck": by_torch}
    named = (
        f"JAX {jax.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    )
    print(f"{named}.\n")
    for title, bank in (("wrong", planted.WRONG), ("right", planted.RIGHT)):
        print(f"| {title} | " + " | ".join(checks) + " |\n" + "|---" * 4 + "|")
        counts: dict[str, Counter] = {name: Counter() for name in checks}
        for name, case in bank.items():
            said = {check: run(case) for check, run in checks.items()}
            for check, word in said.items():
                counts[check][word] += 1
            print(f"| {name} | " + " | ".join(said.values()) + " |")
            sys.stdout.flush()
        total = [", ".join(f"{n} {w}" for w, n in c.items()) for c in counts.values()]
        print(f"| **{len(bank)}** | " + " | ".join(total) + " |\n")


if __name__ == "__main__":
    main()
