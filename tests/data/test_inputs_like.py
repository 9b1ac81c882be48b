"""Inputs that a model would answer wrongly without a word are refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.data import check_inputs_like, describe_inputs
from dlworkshop.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
UNIT = PIXELS.astype(np.float32) / 255
REAL = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
TOKENS = np.arange(6 * 16, dtype=np.int32).reshape(6, 4, 4, 1)


@pytest.mark.parametrize(
    ("learnt", "given"),
    [
        (PIXELS, PIXELS[:2]),
        (PIXELS, UNIT),
        (PIXELS, jnp.asarray(UNIT)),
        (UNIT, PIXELS),  # the step makes the same of them
        (UNIT, UNIT * 1.5),
        (REAL, REAL * 300),
        (REAL, REAL.tolist()),
        (REAL, TOKENS),
        (TOKENS, TOKENS.astype(np.int64)),
        ({"a": PIXELS, "b": REAL}, {"b": REAL, "a": PIXELS}),
        ((REAL, REAL), (REAL, REAL)),
    ],
)
def test_what_was_learnt_from_is_taken(learnt, given):
    check_inputs_like(json.loads(json.dumps(describe_inputs(learnt))), given)


@pytest.mark.parametrize(
    ("learnt", "given", "said"),
    [
        (PIXELS, PIXELS.astype(np.float32), "float32 from 0 to 2.*divided by 255"),
        (PIXELS, 2 * UNIT - 1, "float32 from -1 to 0.9.* divided by 255"),
        (PIXELS, UNIT * np.nan, "float32 from nan to nan"),
        (PIXELS, PIXELS.astype(np.int64), "int64 from .* give uint8 in 0 to 255"),
        (REAL, PIXELS, "are uint8, which becomes floats .* give float32"),
        (TOKENS, PIXELS, "are uint8, which becomes floats .* give int32"),
        (TOKENS, REAL, "are float32, and the model learnt from int32"),
        (PIXELS, PIXELS[0], r"wanted \[B, 4, 4, 1\]: for one example give x\[None\]"),
        (PIXELS, PIXELS[:, :2], r"have shape \[6, 2, 4, 1\], wanted"),
        ({"a": PIXELS}, PIXELS, "are one array, and the model learnt from 'a'"),
        ({"a": PIXELS}, {"a": PIXELS * 1.0}, "the inputs 'a' are float64"),
    ],
)
def test_what_would_be_wrong_is_refused(learnt, given, said):
    with pytest.raises(UserError, match=said):
        check_inputs_like(describe_inputs(learnt), given)
