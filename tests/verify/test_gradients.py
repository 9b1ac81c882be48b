"""The gradient check: right gradients pass with margin, planted errors do not pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.verify import check_gradients

RNG = np.random.default_rng(0)
X = RNG.random((8, 12)).astype(np.float32)  # [B, D], the dtype data has outside
LABEL = RNG.integers(0, 4, 8)  # [B]
IMAGE = RNG.random((4, 8, 8, 1))  # [B, H, W, C]


def layer(fan_in, fan_out):
    kernel = RNG.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)
    return {"bias": np.zeros(fan_out), "kernel": kernel}


MLP = {"first": layer(12, 24), "last": layer(24, 4)}  # 288 entries: one is sampled
CONV = {"kernel": RNG.standard_normal((3, 3, 1, 4)) / 3, "last": layer(4, 4)}
VECTOR = RNG.standard_normal(6)


def cross_entropy(logits, label):  # [B, K], [B]
    return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(len(label)), label])


def mlp(params, activation=jnp.tanh):
    first, last = params["first"], params["last"]
    hidden = activation(X @ first["kernel"] + first["bias"])
    return cross_entropy(hidden @ last["kernel"] + last["bias"], LABEL)


def conv(params):
    layout = ("NHWC", "HWIO", "NHWC")
    hidden = jax.lax.conv_general_dilated(
        IMAGE, params["kernel"], (1, 1), "SAME", dimension_numbers=layout
    )
    hidden = jax.nn.relu(hidden).mean((1, 2))  # [B, C]
    last = params["last"]
    return cross_entropy(hidden @ last["kernel"] + last["bias"], LABEL[:4])


def logistic(params):
    margin = (X @ params["w"] + params["b"]) * jnp.where(LABEL > 1, 1.0, -1.0)
    return jnp.mean(jax.nn.softplus(-margin))


def planted(f, backward):
    """`f` with its gradient replaced by `backward(gradient)`."""

    @jax.custom_vjp
    def g(params):
        return f(params)

    def bwd(params, cotangent):
        grads = jax.grad(f)(params)
        return (jax.tree.map(lambda x: cotangent * x, backward(grads)),)

    g.defvjp(lambda params: (f(params), params), bwd)
    return g


def scaled(factor, at=...):
    """Multiply the gradient of the first kernel, or one entry of it, by `factor`."""

    def backward(grads):
        kernel = grads["first"]["kernel"]
        kernel = kernel.at[at].multiply(factor)
        return {**grads, "first": {**grads["first"], "kernel": kernel}}

    return backward


RIGHT = {
    "quadratic": (lambda p: jnp.sum(p**2) / 2, VECTOR),
    "logistic": (logistic, {"w": RNG.standard_normal(12), "b": np.zeros(())}),
    "tanh": (mlp, MLP),
    "relu": (lambda p: mlp(p, jax.nn.relu), MLP),
    "conv": (conv, CONV),
    "softmax": (lambda z: cross_entropy(z, LABEL), RNG.standard_normal((8, 4))),
    "custom_vjp": (planted(mlp, lambda grads: grads), MLP),
    "float32": (mlp, jax.tree.map(np.float32, MLP)),
    "tiny": (lambda p: jnp.sum(jnp.log(p)), np.array([1e-6, 2e-6])),
    "vast": (lambda p: jnp.sum(p**2), np.array([1e9, 2e8])),
    "offset": (lambda p: 100 + jnp.sum(jnp.sin(p)), VECTOR),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass_with_margin(name):
    """Measured: at most 2e-10; asked: a twentieth of the tolerance."""
    report = check_gradients(*RIGHT[name])
    assert report.ok, report
    assert report.worst.error < report.tolerance / 20, report
    assert all(row.kinks == 0 for row in report.rows), report
    assert all(row.resolution < 1e-6 for row in report.rows), report  # not by rounding


WRONG = {
    "scale": scaled(1 + 1e-5),
    "entry": scaled(1 + 1e-5, at=(3, 5)),
    "sign": scaled(-1.0),
    "zero": scaled(0.0),
}


@pytest.mark.parametrize(
    ("name", "max_entries"),
    [(name, n) for name in WRONG for n in (8, 288) if (name, n) != ("entry", 8)],
)
def test_a_planted_error_is_found_and_named(name, max_entries):
    f = planted(mlp, WRONG[name])
    report = check_gradients(f, MLP, max_entries=max_entries)
    wrong = [row.path for row in report.rows if not row.ok]
    assert not report.ok and wrong == ["params['first']['kernel']"], report
    assert report.worst.path == wrong[0] and "WRONG" in str(report)
    if name == "entry":
        assert report.worst.worst == "[3, 5]", report


def test_a_wrong_entry_that_is_not_sampled_shows_in_the_directions():
    def f(p):
        return jnp.sum(jnp.sin(p)) + jax.lax.stop_gradient(1e-3 * p[777])

    report = check_gradients(f, np.linspace(0, 1, 1000), max_entries=1)
    assert report.rows[0].checked == 1 and report.worst.worst.startswith("direction")
    assert not report.ok, report


def test_a_missing_term_is_found():
    def f(p):
        return jnp.sum(p["w"] ** 2) + jax.lax.stop_gradient(jnp.sum(p["b"]) * 1e-4)

    report = check_gradients(f, {"w": VECTOR, "b": VECTOR[:2]})
    assert [row.ok for row in report.rows] == [False, True], report
    assert report.rows[0].autodiff == 0
    np.testing.assert_allclose(report.rows[0].difference, 1e-4, rtol=1e-6)


def test_a_gradient_of_zero_is_right_where_it_is_zero():
    def f(p):  # softmax does not feel a shift; `unused` is not used
        return 50 * cross_entropy(p["z"] + p["shift"], LABEL) + 1000

    tree = {"shift": 0.3, "unused": np.ones(3), "z": RNG.standard_normal((8, 4))}
    report = check_gradients(f, tree)
    assert report.ok, report


def test_one_kink_is_told_and_all_kinks_fail():
    one = check_gradients(
        lambda p: jnp.sum(jax.nn.relu(p)), np.array([0.0, 1.0, -2.0, 3.0])
    )
    assert one.ok and one.rows[0].kinks == 1, one
    both = check_gradients(lambda p: jnp.sum(jnp.abs(p)), np.array([0.0, 0.0, 1.0]))
    assert not both.ok and both.rows[0].kinks == 2 and "NOT CHECKED" in str(both)


def test_a_kink_is_no_excuse():
    f = planted(lambda p: jnp.sum(jax.nn.relu(p)), lambda g: g + 2.0)
    report = check_gradients(f, np.array([0.0]))
    assert report.rows[0].kinks == 0 and report.rows[0].error > report.tolerance


def test_a_kink_beside_the_point_is_stepped_under():
    report = check_gradients(lambda p: jnp.sum(jax.nn.relu(p - 2e-4)), VECTOR * 0)
    assert report.ok and report.rows[0].kinks == 0, report


@pytest.mark.parametrize(
    ("f", "params", "sentence"),
    [
        (jnp.sum, np.arange(3), "params is int"),
        (lambda p: p["a"].real, {"a": 1j}, r"params\['a'\] is complex"),
        (lambda p: 2 * p, VECTOR, "wanted one real scalar"),
        (lambda p: (jnp.sum(p), 1), VECTOR, "wanted one real scalar"),
        (lambda p: jnp.sum(p) * 1j, VECTOR, "wanted one real scalar"),
        (jnp.sum, np.array([1.0, np.nan]), r"params is nan at \[1\]"),
        (lambda p: jnp.log(-jnp.sum(p)), np.ones(2), r"f\(params\) is nan"),
        (lambda p: jnp.sum(jnp.sqrt(p)), np.zeros(2), "gradient of params is inf"),
        (jnp.sum, {}, "no numbers"),
        (jnp.sum, {"a": np.zeros(0)}, "no numbers"),
    ],
)
def test_what_cannot_be_checked_is_said(f, params, sentence):
    with pytest.raises(UserError, match=sentence):
        check_gradients(f, params)


def narrow_return(p):
    return jnp.sum(p).astype(jnp.float32)


def narrow_inside(p):
    return jnp.sum(jax.jit(lambda q: q.astype(jnp.bfloat16))(p)).astype(p.dtype)


def narrow_loop(p):
    step = lambda c, x: (c + x.astype(jnp.float16).astype(c.dtype), None)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros((), p.dtype), p)[0]


def narrow_carry(p):
    def step(carry, _):
        past, now = carry
        return (now, now + past.astype(jnp.float16).astype(p.dtype)), None

    start = jnp.zeros((), p.dtype), jnp.sum(p)
    return jax.lax.scan(step, start, None, length=3)[0][1]


def narrow_data(p):
    kernel = jnp.reshape(p, (6, 1, 1))
    return jnp.sum(jax.lax.conv(jnp.ones((1, 1, 9), jnp.float32), kernel, (1,), "SAME"))


@pytest.mark.parametrize(
    "f",
    [narrow_return, narrow_inside, narrow_loop, narrow_carry, narrow_data],
    ids=lambda f: f.__name__,
)
def test_less_than_float64_is_said(f):
    with pytest.raises(UserError, match=r"float64 all the way: .*float(32|16)"):
        check_gradients(f, VECTOR)


def test_float32_that_does_not_move_with_params_is_fine():
    def f(p):
        data = jnp.linspace(0.0, 1.0, 6)  # float64: x64 is on
        return jnp.sum(jax.jit(lambda q, x: q * x.astype(jnp.float16))(p, data + 0.5))

    assert check_gradients(f, VECTOR).ok


@pytest.mark.parametrize("before", [False, True])
def test_x64_is_left_as_it_was(before):
    def broken(p):
        assert jax.config.jax_enable_x64
        raise ZeroDivisionError

    with jax.enable_x64(before):
        with pytest.raises(ZeroDivisionError):
            check_gradients(broken, VECTOR)
        assert jax.config.jax_enable_x64 == before
        assert check_gradients(jnp.sum, VECTOR).ok
        assert jax.config.jax_enable_x64 == before
        assert jnp.ones(()).dtype == (jnp.float64 if before else jnp.float32)


def test_a_jitted_function_serves_inside_and_outside():
    f = jax.jit(lambda p: jnp.sum(jnp.sin(p)))
    p = VECTOR.astype(np.float32)
    before = f(p)
    assert check_gradients(f, p).ok
    assert f(p) == before and f(p).dtype == before.dtype
    assert f._cache_size() <= 3
