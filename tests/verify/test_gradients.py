"""The gradient check: right gradients pass with margin, planted errors do not pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.verify import check_gradients
from dlworkshop.verify.functions import lift
from tests.verify.planted import split_rule, with_rule

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


def sloped(f, slope):
    """`f` with the same slope in every direction."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda p, t: (g(*p), slope * jnp.sum(t[0])))
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
    """Measured: at most a tenth of what would be called wrong; asked: a third."""
    report = check_gradients(*RIGHT[name])
    assert report.ok, report
    assert report.worst.error < report.tolerance / 3, report
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


def test_a_kink_is_right_between_the_slopes_of_both_sides():
    one = check_gradients(
        lambda p: jnp.sum(jax.nn.relu(p)), np.array([0.0, 1.0, -2.0, 3.0])
    )
    assert one.ok and one.rows[0].kinks >= 1, one
    tie = check_gradients(jnp.max, np.array([1.0, 1.0, 0.5]))
    assert tie.ok and tie.rows[0].kinks >= 2, tie
    slow = sloped(lambda p: jnp.sum(jnp.abs(p) + jnp.abs(p) ** 1.5), 0.5)
    assert check_gradients(slow, np.zeros(1)).verdict == "right"


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_a_kink_is_no_excuse(slope):
    f = planted(lambda p: jnp.sum(jax.nn.relu(p)), lambda g: g + slope)
    report = check_gradients(f, np.array([0.0]))
    assert report.verdict == "WRONG" and report.rows[0].kinks == 1, report


def test_kinks_that_meet_are_no_accusation():
    f = lambda p: jax.nn.relu(p[0]) - jax.nn.relu(p[1])  # noqa: E731
    for seed in range(3):  # along (1, -1) it has slope 1 on both sides, by autodiff 0
        assert check_gradients(f, np.zeros(2), seed=seed).verdict == "right"


def test_waves_that_fit_into_all_steps_are_seen_when_it_matters():
    waves = lambda p: jnp.sum(p + 1e-3 * jnp.sin(2 * jnp.pi * 4096 * p))  # noqa: E731
    assert check_gradients(waves, np.ones(2)).ok


def test_rounding_of_what_cancels_is_no_accusation():
    assert check_gradients(
        planted(lambda p: 0 * jnp.sum(p), lambda g: g + 1e-16), VECTOR
    ).ok
    wrong = planted(lambda p: 0 * jnp.sum(p), lambda g: g + 1e-9)
    assert check_gradients(wrong, VECTOR).verdict == "WRONG"


@pytest.mark.parametrize(("size", "verdict"), [(5, "right"), (300, "not checked")])
def test_directions_are_needed_where_not_every_entry_is_moved(size, verdict):
    place = np.linspace(0.5, 1.0, size)

    def f(p):  # it jumps as soon as two entries move
        return jnp.sum(p**2) + jnp.where(jnp.sum(p != place) > 1, 1.0, 0.0)

    assert check_gradients(f, place).verdict == verdict


def test_both_modes_are_held_against_each_other_more_closely():
    report = check_gradients(split_rule(2 * (1 + 4e-9), 2.0), VECTOR)
    assert all(row.ok for row in report.rows) and report.verdict == "WRONG", report
    assert "forward and reverse mode: DIFFERENT" in str(report)


def test_what_has_no_slope_is_neither_right_nor_wrong():
    f = lambda p: jnp.sum(jnp.sqrt(p))  # noqa: E731
    report = check_gradients(f, np.array([0.0, 1.0]))
    assert report.verdict == "not checked" and not report.ok
    assert "NOT CHECKED" in str(report) and "WRONG" not in str(report)
    assert report.rows[0].unchecked >= 1 and report.worst.worst == "[0]", report
    cusp = sloped(lambda p: jnp.sum(jnp.sqrt(jnp.abs(p))), 1e9)
    assert check_gradients(cusp, np.zeros(1)).verdict == "not checked"


def test_a_kink_beside_the_point_is_stepped_under():
    report = check_gradients(lambda p: jnp.sum(jax.nn.relu(p - 2e-4)), VECTOR * 0)
    assert report.ok and report.rows[0].kinks == 0, report


@pytest.mark.parametrize(
    ("f", "params", "sentence"),
    [
        (jnp.sum, np.arange(3), "no numbers to differentiate by.*int"),
        (3, VECTOR, "f is 3: give a function"),
        (lambda p: 3, VECTOR, "returned no real or complex array"),
        (jnp.sum, np.array([1.0, np.nan]), r"params is nan at \[1\]"),
        (jnp.sin, np.array([1.0, 1e-310]), "params has the number 1e-310, near which"),
        (lambda p: jnp.log(-jnp.sum(p)), np.ones(2), "f is nan at these"),
        (lambda p: {"a": p, "b": 1 / p}, np.arange(2.0), r"f\['b'\]\[0\] is inf"),
        (lambda p: 1.0, "abc", "no numbers to differentiate by .got str"),
        (jnp.sum, {}, "no numbers"),
        (jnp.sum, np.ones(2, object), "params is a ndarray of dtype object, which"),
        (jnp.sum, np.array(["a"]), "params is a ndarray of dtype <U1, which JAX"),
        (
            jnp.sum,
            [np.array(["2020"], "M8[Y]")],
            r"params\[0\] is a ndarray of dtype d",
        ),
        (jnp.sum, np.ones(2, np.longdouble), "which JAX does not take: give a plain"),
        (jnp.sum, np.ones(2, ">f4"), "dtype >f4, which JAX does not take"),
        (jnp.sum, np.ma.masked_array([1.0, 2.0], [0, 1]), "is a MaskedArray of dtype"),
        (jnp.sum, {"a": np.zeros(0)}, "no numbers"),
        (lambda p: jnp.ones(4).at[np.zeros(2, int)].mul(2 * p), np.ones(2), "no d"),
    ],
)
def test_what_cannot_be_checked_is_said(f, params, sentence):
    with pytest.raises(UserError, match=sentence):
        check_gradients(f, params)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_a_traced_argument_is_refused(transform):
    def inside(p):
        return check_gradients(jnp.sum, p).worst.error + jnp.sum(p)

    with pytest.raises(UserError, match="params is traced by JAX: call check_gradient"):
        transform(inside)(VECTOR)


@pytest.mark.parametrize("params", [np.array([1.0, 1e300]), [1.0, 1e300]])
def test_a_number_beyond_float32_is_refused(params):
    with pytest.raises(UserError, match=r"params\[?1?\]? is inf"):
        check_gradients(lambda p: p[0] + p[1], params, dtype="float32")


@pytest.mark.parametrize("tolerance", [0, 1, 2.0, True, "small"])
def test_a_tolerance_that_allows_anything_is_refused(tolerance):
    with pytest.raises(UserError, match=r"tolerance is .*: give a number in \(0, 1\)"):
        check_gradients(jnp.sum, VECTOR, tolerance=tolerance)


def narrow_complex(p):
    return jnp.sum(jnp.abs(jnp.exp(1j * p.astype(jnp.complex64)))).astype(p.dtype)


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
    [
        narrow_complex,
        narrow_return,
        narrow_inside,
        narrow_loop,
        narrow_carry,
        narrow_data,
    ],
    ids=lambda f: f.__name__,
)
def test_less_than_float64_is_said(f):
    with pytest.raises(
        UserError, match=r"float64 all the way: .*(float(32|16)|complex64)"
    ):
        check_gradients(f, VECTOR)


def test_float32_that_does_not_move_with_params_is_fine():
    def f(p):
        data = jnp.linspace(0.0, 1.0, 6)  # float64: x64 is on
        return jnp.sum(jax.jit(lambda q, x: q * x.astype(jnp.float16))(p, data + 0.5))

    assert check_gradients(f, VECTOR).ok


def logged(p):
    """A loss and what is written to a log in float32."""
    return jnp.sum(p**2), {"log": p.astype(jnp.float32)}


def counted(p):
    """A loss and an integer, which is not differentiated."""
    return jnp.sum(p**2), jnp.sum(p.astype(jnp.float16) > 0)


@pytest.mark.parametrize(
    ("f", "has_aux"),
    [(logged, True), (jax.jit(logged), True), (counted, False)],
    ids=["auxiliary", "auxiliary of jit", "integer"],
)
def test_float32_that_nothing_checked_depends_on_is_fine(f, has_aux):
    assert check_gradients(f, VECTOR, has_aux=has_aux).ok


def test_float32_beside_an_auxiliary_output_of_float32_is_said():
    def f(p):
        loss, aux = jax.jit(logged)(p.astype(jnp.float32).astype(p.dtype))
        return loss, aux

    with pytest.raises(UserError, match="float64 all the way"):
        check_gradients(f, VECTOR, has_aux=True)
    with pytest.raises(UserError, match="float64 all the way"):
        check_gradients(jax.jit(logged), VECTOR)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"argnums": 1}, "argnums=1 with 1 arguments"),
        ({"argnums": ()}, "argnums="),
        ({"argnums": {0}}, "argnums is a set"),
        ({"argnums": {0: 1}}, "argnums is a dict"),
        ({"argnums": (i for i in [0])}, "argnums is a generator"),
        ({"argnums": np.array([0])}, "argnums is an array"),
        ({"argnums": (0, 0)}, r"argnums=\(0, 0\): give each position once"),
        ({"argnums": (0, -1)}, r"argnums=\(0, -1\): give each position once"),
        ({"modes": {"rev": 1}}, "modes={'rev': 1}"),
        ({"modes": ("rev", "rev")}, "modes="),
        ({"has_aux": "no"}, "has_aux is 'no': give True or False"),
        ({"culprits": None}, "culprits is None: give True or False"),
        ({"culprits": np.array([1, 0])}, "culprits is an array"),
        ({"dtype": None}, "dtype=None"),
        ({"modes": "rev"}, r"modes='rev': give a tuple of names: .*\(\"rev\",\)"),
        ({"modes": ("lin",)}, "modes="),
        ({"modes": [["rev"]]}, "modes="),
        ({"order": 0}, "order is 0"),
        ({"transformations": "vmap"}, "transformations='vmap'"),
        ({"transformations": ("pmap",)}, "transformations="),
        ({"transformations": [{}]}, "transformations="),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
        ({"dtype": "no"}, "dtype='no'"),
        ({"has_aux": True}, "has_aux=True"),
    ],
)
def test_what_cannot_be_asked_is_said(options, sentence):
    with pytest.raises(UserError, match=sentence):
        check_gradients(jnp.sum, VECTOR, **options)


def test_the_arguments_are_those_of_grad():
    def f(weights, n, data, key):
        noise = jax.random.normal(key, (6,), data.dtype)
        out = jnp.sum(weights["w"] ** n * data + 0 * noise)
        return out, {"kept": weights["steps"]}

    weights = {"w": VECTOR, "steps": np.int32(7), "none": None}
    args = weights, 2, VECTOR[::-1], jax.random.key(0)
    report = check_gradients(f, *args, argnums=(0, -2), has_aux=True)
    assert report.ok, report
    assert [row.path for row in report.rows] == ["args[0]['w']", "args[2]"]


def test_what_is_not_differentiated_comes_as_jax_hands_it_over():
    def f(p, data, rate):
        assert isinstance(data, jax.Array) and isinstance(rate, float)
        scaled = jax.jit(lambda p, rate: rate * p, static_argnums=1)(p, rate)
        return jnp.sum(scaled * data.at[0].set(2.0)) + data[jnp.argmax(p)]

    report = check_gradients(f, VECTOR, VECTOR[::-1], 0.9, argnums=np.int64(0))
    assert report.ok, report


def test_an_error_of_the_function_is_its_own():
    def f(_):
        raise TypeError("no promotion to float32 for me")

    with pytest.raises(TypeError, match="for me"):
        check_gradients(f, VECTOR)


def test_every_output_is_looked_at():
    def f(p):
        wrong = p[2] * jax.lax.stop_gradient(p[3])
        return {"a": jnp.sin(p), "b": (jnp.outer(p, p), wrong)}

    report = check_gradients(f, VECTOR)
    assert report.verdict == "WRONG" and "f['b'][1]" in report.worst.worst, report
    large = check_gradients(jnp.sin, np.linspace(0, 1, 50))
    assert large.ok, large


class Unregistered:
    """A result that JAX does not know as a pytree."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (Unregistered, "a Unregistered"),
        (lambda _: "loss", "'loss'"),
        (lambda _: cross_entropy, "a function"),
        (lambda _: np.array(["loss"]), r"an array <U4\[1\]"),
    ],
    ids=["an object", "a text", "a function", "an array of texts"],
)
def test_an_output_that_cannot_be_looked_at_is_refused(made, name):
    def f(p):
        return {"loss": jnp.sum(p**2), "other": (made(p), 3, None, True)}

    with pytest.raises(UserError, match=rf"f\['other'\]\[0\] is {name}.*has_aux"):
        check_gradients(f, VECTOR)
    report = check_gradients(lambda p: (jnp.sum(p), f(p)), VECTOR, has_aux=True)
    assert report.ok, report


@pytest.mark.parametrize("wrong", [False, True])
def test_complex_numbers_follow_the_conventions_of_jax(wrong):
    @jax.custom_vjp
    def f(z):
        return jnp.sum(z.real**2 + z.imag**2)

    turn = (lambda z: z) if wrong else jnp.conj
    f.defvjp(lambda z: (f(z), z), lambda z, g: (2 * g * turn(z),))
    z = VECTOR[:3] + 1j * VECTOR[3:]
    report = check_gradients(lambda z: f(z * z), z.astype(np.complex64))
    assert report.verdict == ("WRONG" if wrong else "right"), report


def looping(p):
    step = lambda c: (c[0] + 1, jnp.sin(c[1]))  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0] < 3, step, (0, p))[1]


@jax.custom_vjp
def rule_of_reverse(p):
    return jnp.sum(p**3)


rule_of_reverse.defvjp(lambda p: (jnp.sum(p**3), p), lambda p, g: (3 * g * p**2,))


def test_a_mode_that_is_not_there_is_noted():
    report = check_gradients(rule_of_reverse, VECTOR, order=2)
    assert report.ok and "forward mode is not available" in report.notes[0], report
    assert [row.path for row in report.rows] == ["params", "d/d(params)"], report
    with pytest.raises(UserError, match=r"no derivative to check.*forward mode"):
        check_gradients(rule_of_reverse, VECTOR, modes=("fwd",))
    report = check_gradients(looping, VECTOR)
    assert report.ok and "reverse mode is not available" in report.notes[0], report


def transposed_callback(x):
    """Its tangent is computed by a callback, which has no transpose."""
    f = jax.custom_jvp(jnp.sin)

    @f.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return f(x), jax.pure_callback(lambda x, t: np.cos(x) * t, shape, x, t)

    return f(x)


def rule_without_words(x):
    f = jax.custom_vjp(jnp.sin)

    def backward(*_):
        raise NotImplementedError

    f.defvjp(lambda x: (jnp.sin(x), x), backward)
    return f(x)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (rule_without_words, "reverse mode is not available .*: NotImplementedError"),
        (lambda p: jnp.linalg.svd(p.reshape(2, 3)), "not implemented for full matr"),
        (lambda p: jax.lax.linalg.eig(p[:4].reshape(2, 2)), "enable_eigvec_derivs"),
    ],
    ids=["a rule", "svd", "eig"],
)
def test_a_derivative_that_nobody_has_written_is_named(f, words):
    with pytest.raises(UserError, match=f"no derivative to check: .*{words}"):
        check_gradients(f, VECTOR)


def test_a_callback_without_a_transpose_is_checked_in_forward_mode():
    report = check_gradients(transposed_callback, 0.5)
    assert report.ok and report.rows[0].mode == "fwd", report
    assert "reverse mode is not available" in report.notes[0], report


def test_second_derivatives_are_checked_where_they_are_asked_for():
    f = planted(lambda p: jnp.sum(jnp.sin(p)), jax.lax.stop_gradient)
    assert check_gradients(f, VECTOR).ok
    report = check_gradients(f, VECTOR, order=2)
    assert [row.ok for row in report.rows] == [True, False], report
    assert report.rows[1].path == "d/d(params)" and "over rev" in report.rows[1].mode
    right = check_gradients(lambda p: jnp.sum(jnp.sin(p) * p[::-1]), VECTOR, order=2)
    assert right.ok, right


def test_a_second_order_that_raises_leaves_the_first():
    slope = jax.custom_jvp(jnp.cos)

    @slope.defjvp
    def _(primals, tangents):
        raise ValueError("once only")

    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda p, t: (jnp.sin(p[0]), slope(p[0]) * t[0]))
    report = check_gradients(f, 0.5, order=2)
    assert report.ok and "not checked: once only" in str(report), report


def test_float32_says_what_it_could_not_see():
    def f(p):
        return jnp.sum(jnp.tanh(p.astype(jnp.float32)))

    right = check_gradients(f, VECTOR, dtype="float32")
    assert right.ok and "could not be detected" in right.notes[-1], right
    assert 1e-5 < right.rows[0].resolution < 0.1, right
    wrong = planted(f, lambda g: 1.02 * g)
    assert check_gradients(wrong, VECTOR, dtype="float32").verdict == "WRONG"


@pytest.mark.parametrize(
    "setting",
    [
        {"jax_debug_nans": True},
        {"jax_disable_jit": True},
        {"jax_enable_x64": True},
        {"jax_numpy_rank_promotion": "raise"},
        {"jax_numpy_dtype_promotion": "strict"},
        {"jax_transfer_guard": "disallow"},
    ],
    ids=lambda setting: next(iter(setting)),
)
@pytest.mark.filterwarnings("error")
def test_the_settings_of_a_strict_suite_are_no_hindrance(setting):
    (name, value), *_ = setting.items()
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        report = check_gradients(lambda p: jnp.sum(jnp.sqrt(p)), np.array([1e-4, 1.0]))
        outside = check_gradients(outside_squares, VECTOR)
    finally:
        jax.config.update(name, before)
    assert report.ok and outside.ok, f"{report} {outside}"


@pytest.mark.parametrize("kind", ["raise", "warn"])
@pytest.mark.filterwarnings("error")
def test_errors_of_numpy_are_not_those_of_the_function(kind):
    with np.errstate(all=kind):
        report = check_gradients(lambda p: jnp.sum(p**2), np.array([1e-200, 1.0]))
        wild = check_gradients(lambda p: jnp.sum(jnp.exp(-p)), np.array([700.0, 1.0]))
        inside = np.geterr()["over"]
    assert report.ok and wild.ok and inside == kind, f"{report} {wild}"


def test_the_slope_between_the_jumps_of_rounding_is_no_evidence():
    report = check_gradients(lambda x: (1 - jnp.cos(x)) / x**2, np.array([1e-4, 1e-2]))
    assert report.verdict != "WRONG", report


@jax.custom_vjp
def outside_squares(p):
    """By NumPy; it has no rule for vmap."""
    out = jax.ShapeDtypeStruct((), p.dtype)
    return jax.pure_callback(lambda p: np.asarray(np.sum(np.asarray(p) ** 2)), out, p)


outside_squares.defvjp(lambda p: (outside_squares(p), p), lambda p, g: (g * (p + p),))


def test_a_callback_that_vmap_does_not_know_is_noted():
    report = check_gradients(outside_squares, VECTOR)
    assert report.ok and any("vmap was not compared" in n for n in report.notes), report
    names = {c.name for c in report.comparisons}
    assert names >= {"repeat", "jit", "checkpoint"} and "vmap" not in names


def test_a_rule_gets_arrays_of_jax():
    @jax.custom_vjp
    def first(p):
        return p.at[1:].set(0)

    first.defvjp(lambda p: (first(p), None), lambda _, g: (g.at[1:].set(0),))
    assert check_gradients(first, VECTOR).ok


def test_a_rule_that_checkpoint_does_not_know_is_noted():
    def f(p):
        order = jnp.flip(jnp.arange(p.size))  # an array of the trace

        @jax.custom_vjp
        def flipped(p):
            return p[order]

        flipped.defvjp(lambda p: (flipped(p), None), lambda _, g: (g[order],))
        return flipped(p)

    report = check_gradients(f, VECTOR)
    assert report.ok and "checkpoint was not compared" in str(report.notes), report


def test_badly_scaled_arrays_are_checked_at_every_scale():
    wrong = planted(
        lambda p: jnp.sum(jnp.log(p)), lambda g: g * jnp.array([1.0, 1.001])
    )
    for place in (np.array([1.0, 1e-9]), np.array([1e-9, 1.0])):
        report = check_gradients(wrong, place)
        assert report.verdict == "WRONG" and report.worst.worst != "[0]", report


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


OVER_NUMPY = {
    "matmul": lambda p, x, i: jnp.outer(p, p) @ x,
    "add": lambda p, x, i: p**2 + x,
    "where": lambda p, x, i: jnp.where(i > 2, p**2, x),
    "interp": lambda p, x, i: jnp.interp(p, np.arange(6.0) - 2, x),
    "convolve": lambda p, x, i: jnp.convolve(p, x),
    "index": lambda p, x, i: p[i] ** 2,
    "gradient inside": lambda p, x, i: jax.grad(lambda y: jnp.sum(p * y**2))(x),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER_NUMPY)
def test_a_numpy_array_in_a_closure_is_converted_as_before(name):
    """JAX caches its conversion, for either value of jax_enable_x64."""
    x, i = VECTOR[::-1].copy(), np.arange(6)[::-1].copy()
    p = jnp.asarray(VECTOR + 0.1, jnp.float32)

    def f(p):
        return jnp.sum(OVER_NUMPY[name](p, x, i))

    for dtype in ("float64", "float32", "float64"):
        report = check_gradients(f, p, dtype=dtype, transformations=())
        assert report.ok, report
    found, (x, i) = (f(p), jax.grad(f)(p)), (x.copy(), i.copy())
    assert found[1].dtype == np.float32
    np.testing.assert_array_equal(found[1], jax.grad(f)(p))
    np.testing.assert_array_equal(found[0], f(p))


def same(x):
    """x, with a rule of its own, which is right."""
    return with_rule(lambda m, x: x * 1.0, lambda m, g, x: (g,))(x)


def one_of(z):
    return -jax.nn.log_softmax(z)[0]


LOGITS = np.array([[45.0, 1.0, 0.0], [0.0, 42.0, 3.0], [2.0, 1.0, 60.0]])
CONFIDENT = {
    "log softmax": (jax.nn.log_softmax, np.array([0.0, 30.0])),
    "one example": (one_of, np.array([40.0, 0.0])),
    "batch": (lambda z: cross_entropy(z, np.arange(3)), LOGITS),
    "loop": (lambda z: jnp.mean(jax.lax.map(one_of, z)), LOGITS[:1]),
    "above the maximum": (lambda z: jax.nn.logsumexp(z) - jnp.max(z), LOGITS[0]),
    "binary": (
        lambda z: jnp.sum(jnp.log1p(jnp.exp(-jnp.abs(z))) + jnp.maximum(z, 0) - z),
        np.array([45.0, 50.0]),
    ),
}


@pytest.mark.parametrize("name", CONFIDENT)
def test_the_gradient_of_a_confident_softmax_is_right(name):
    """It is 1 - 1 up to rounding, in which the two modes differ."""
    f, place = CONFIDENT[name]
    report = check_gradients(f, place)
    assert report.verdict == "right", report


def test_modes_that_differ_in_a_small_gradient_are_found():
    square = split_rule(2.0, 2.000002)
    f = lambda x: one_of(jnp.stack([square(x[:1]), square(x[1:])]))  # noqa: E731
    report = check_gradients(f, np.array([3.0, 0.1]), culprits=False)
    assert "forward and reverse mode: DIFFERENT" in str(report), report


BOTTOMS = {
    "smoothed": (lambda p: jnp.sqrt(p[0] ** 2 + 1e-10) + p[2], [0.0, 0.0, 1.0]),
    "norm": (lambda p: jnp.sqrt(p[0] ** 2 + p[1] ** 2) + p[2], [0.0, 1e-5, 1.0]),
    "complex": (jnp.abs, [1 + 1j, -1 + 1e-3j, 1e-5j]),
    "beside a constant": (
        lambda p: jnp.sqrt(p[0] ** 2 + 1e-8) + p[1] + 1e6,
        [0.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", BOTTOMS)
def test_a_narrow_bottom_beside_a_large_entry_is_right(name):
    """Both slopes are exactly 0, and differences look like those of a kink at first."""
    f, place = BOTTOMS[name]
    report = check_gradients(f, np.array(place), transformations=())
    assert report.verdict == "right", report


def test_a_wrong_slope_at_a_narrow_bottom_is_found():
    f, place = BOTTOMS["smoothed"]
    for wrong in (
        planted(f, lambda g: g.at[0].set(1e-5)),
        planted(lambda p: f(p) + 0.01 * p[0], lambda g: g.at[0].set(0.0)),
    ):
        report = check_gradients(wrong, np.array(place), culprits=False)
        assert report.verdict == "WRONG", report


STAIRS = {
    "pseudo-Huber": (lambda p: jnp.sum(jnp.sqrt(1 + p**2) - 1), 1e-6),
    "pseudo-Huber, smaller": (lambda p: jnp.sum(jnp.sqrt(1 + p**2) - 1), 1e-8),
    "1 - cos": (lambda p: jnp.sum(1 - jnp.cos(p)), 1e-7),
    "log cosh": (lambda p: jnp.sum(jnp.log(jnp.cosh(p))), 1e-5),
    "x - sin x": (lambda p: jnp.sum(p - jnp.sin(p)), 1e-5),
}


@pytest.mark.parametrize("name", STAIRS)
def test_what_is_rounded_on_the_way_accuses_nobody(name):
    f, size = STAIRS[name]
    assert check_gradients(f, size * VECTOR, culprits=False).verdict != "WRONG"


def test_a_wrong_slope_on_stairs_is_found():
    f = planted(STAIRS["1 - cos"][0], lambda g: 1.01 * g)
    assert check_gradients(f, 1e-6 * VECTOR, culprits=False).verdict == "WRONG"
    constant = planted(lambda p: jnp.sum(0 * p) + 1, lambda g: g + 1e-6)
    assert check_gradients(constant, VECTOR, culprits=False).verdict == "WRONG"
    edge = planted(  # it ends before a step shows that it is constant
        lambda p: jnp.sum(jnp.where(p < 1.00001, 0.0, jnp.nan)), lambda g: g + 1e-6
    )
    assert check_gradients(edge, np.ones(1), culprits=False).verdict == "WRONG"


EDGES = {  # the value, the wrong slope at the edge, the edge
    "arcsin": (jnp.arcsin, 0.0, 1.0),
    "line, then nan": (lambda p: jnp.where(p >= 0, 3 * p, jnp.nan), 0.0, 0.0),
    "line, then nan, 1e-12": (lambda p: jnp.where(p <= 1, p, jnp.nan), 1e-12, 1.0),
    "line, then inf": (lambda p: jnp.where(p >= 0, 3 * p, jnp.inf), 0.0, 0.0),
    "circle": (lambda p: jnp.sqrt(1 - p * p), 0.0, 1.0),
    "x log x": (lambda p: jnp.where(p == 0, 0.0, p * jnp.log(p)), 0.0, 0.0),
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("beside", [False, True])
def test_a_small_slope_at_the_edge_of_a_domain_is_not_called_right(name, beside):
    value, slope, edge = EDGES[name]
    f = jax.custom_jvp(value)

    @f.defjvp
    def _(p, t):
        right = jax.jvp(value, p, (jnp.ones_like(p[0]),))[1]
        return value(*p), jnp.where(p[0] == edge, slope, right) * t[0]

    place = np.array([edge, 0.5]) if beside else np.array(edge)
    report = check_gradients(f, place, transformations=(), culprits=False)
    assert report.verdict == "not checked", report


def half_inside(p):
    return jnp.sum(jnp.sin(p.astype(jnp.bfloat16)).astype(p.dtype))


def in_float32_outside(p):
    f = jax.custom_jvp(
        lambda x: jax.pure_callback(
            lambda v: np.sin(np.float32(v)).astype(v.dtype),
            x,
            x,
            vmap_method="expand_dims",
        )
    )
    f.defjvp(lambda p, t: (f(*p), jnp.cos(p[0]) * t[0]))
    return jnp.sum(f(p))


@pytest.mark.parametrize(
    ("f", "place", "dtype"),
    [
        (half_inside, VECTOR, "float32"),
        (STAIRS["1 - cos"][0], np.array([1e-2, 2e-4]), "float32"),
        (STAIRS["pseudo-Huber"][0], np.array([1e-3, 2e-3]), "float32"),
        (
            lambda p: jnp.sum(jnp.sin(jax.lax.reduce_precision(p, 8, 7))),
            VECTOR[:3],
            "float64",
        ),
        (in_float32_outside, VECTOR[:3], "float64"),
    ],
    ids=["bfloat16", "1 - cos", "pseudo-Huber", "reduce_precision", "callback"],
)
def test_fewer_digits_inside_accuse_nobody(f, place, dtype):
    report = check_gradients(f, place, dtype=dtype, culprits=False)
    assert report.verdict != "WRONG", report


def logistic_map(x):
    for _ in range(40):
        x = 3.9 * x * (1 - x)
    return x


@pytest.mark.parametrize(
    ("f", "place"),
    [
        (jnp.sin, np.float64(1e8)),
        (jnp.sin, np.float64(1e18)),
        (lambda x: jnp.sin(1e9 * x), np.float64(1.0)),
        (logistic_map, np.array([0.3, 0.31])),
    ],
    ids=["1e8", "1e18", "steep", "chaos"],
)
def test_waves_that_are_faster_than_the_steps_accuse_nobody(f, place):
    assert check_gradients(f, place, culprits=False).verdict != "WRONG"


@pytest.mark.parametrize(
    "f",
    [
        lambda p: jnp.sum(jnp.log(jnp.exp(p))),
        lambda p: jnp.sum(jax.nn.softmax(p)),
        lambda p: jnp.sum((p / jnp.linalg.norm(p)) ** 2),
        lambda p: jnp.sum(p * jnp.exp(p) / jnp.exp(p)),
        lambda p: jnp.sum(jax.nn.sigmoid(p) + jax.nn.sigmoid(-p)),
    ],
    ids=["log exp", "softmax", "normalised", "quotient", "sigmoids"],
)
def test_a_hessian_that_cancels_is_symmetric(f):
    report = check_gradients(f, VECTOR, order=2, culprits=False)
    assert report.verdict == "right", report


def test_roundings_of_what_cancels_are_the_same_on_all_roads():
    matrix = np.random.default_rng(8).standard_normal((10, 10))

    def difference(p):
        y = matrix @ same(p)
        return jax.nn.logsumexp(y) - jax.nn.logsumexp(y + 1e-9)

    place = np.random.default_rng(1).standard_normal(10)
    offset = lambda p: jnp.sum((same(p) @ same(p) + 1e8) - 1e8)  # noqa: E731
    for f in (offset, difference):
        report = check_gradients(f, place, culprits=False)
        assert len(report.comparisons) >= 4
        assert all(c.ok for c in report.comparisons), report


@pytest.mark.parametrize(
    ("f", "verdict"),
    [
        (jnp.linalg.norm, "WRONG"),
        (lambda p: jnp.sum(jnp.sqrt(p**2)), "WRONG"),
        (lambda p: jnp.sum(jnp.where(p > 0, p * jnp.log(p), 0.0)), "not checked"),
    ],
    ids=["norm", "root of a square", "masked logarithm"],
)
def test_a_gradient_that_is_nan_is_named(f, verdict):
    report = check_gradients(f, np.zeros(2))
    assert report.verdict == verdict, report
    assert str(report).startswith("autodiff is nan at params ["), report
    assert report.culprits, report


def test_another_program_at_each_trace_is_named():
    rng, calls = np.random.default_rng(0), []

    def dropout(w):
        return jnp.sum(w**2 * (rng.random(w.shape) > 0.5))

    def counter(w):
        calls.append(0)
        return jnp.sum(w**2) * len(calls)

    for f in (dropout, counter):
        report = check_gradients(f, np.ones(20), culprits=False)
        assert report.verdict == "WRONG", report
        assert str(report).startswith("f is not deterministic: two calls"), report


def test_values_with_convolutions_as_products_are_the_values_of_f():
    with jax.enable_x64(True):
        fn = lift(conv, (CONV,), 0, np.float64)
        assert "conv_general_dilated" in str(jax.make_jaxpr(fn.value)(fn.at))
        assert "conv_general_dilated" not in str(jax.make_jaxpr(fn.numbers)(fn.at))
        # two sums of at most 64 terms, in another order
        bound = {"rtol": 2 * 64 * np.finfo(float).eps}
        np.testing.assert_allclose(fn.numbers(fn.at), fn.value(fn.at), **bound)


@pytest.mark.parametrize(("constant", "at"), [(3.0, 2.5), (100.0, 0.9), (3e3, 1.9)])
def test_an_error_beside_a_constant_is_found(constant, at):
    """The constant rounds f, so that a few values of f form a regular staircase."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda x, t: (jnp.sin(x[0]), -jnp.cos(x[0]) * t[0]))
    report = check_gradients(lambda x: sine(x) + constant, at, culprits=False)
    assert report.verdict == "WRONG"


def test_a_kink_beside_a_saturated_unit_is_right():
    """Autodiff is 0 at the kink, so the norm of the gradient is that of the other."""
    report = check_gradients(
        lambda z: jnp.sum(jnp.tanh(8 * jax.nn.relu(z))), np.array([0.0, 1.0])
    )
    assert report.verdict == "right" and report.rows[0].kinks


def test_a_function_for_which_jacrev_raises_is_right_and_a_note_says_so():
    @jax.custom_batching.custom_vmap
    def product(x, g):
        return g * jnp.cos(x)

    @product.def_vmap
    def _(axis_size, in_batched, x, g):
        if not in_batched[0]:
            raise ValueError("a batch of points is needed")
        return g * jnp.cos(x), True

    wave = jax.custom_vjp(jnp.sin)
    wave.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (product(x, g),))
    report = check_gradients(lambda x: jnp.sum(wave(x)), jnp.array([0.3, 1.2]))
    assert report.ok, report
    assert "jax.jacrev does not work: a batch of points is needed" in str(report)
