"""A wrong derivative is traced to the equation, the file and the line it comes from."""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dlworkshop.verify import check_gradients, gradients
from tests.verify.planted import bent

V = np.array([0.3, -1.2, 2.0])
LAYERS = 0.6 * np.random.default_rng(0).standard_normal((12, 3, 3))


@jax.custom_vjp
def crooked(x):
    return jnp.sin(x)


crooked.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (1.01 * g * jnp.cos(x),))


def plain(x):
    return jnp.sum(crooked(jnp.exp(x)) ** 2)


def deep(x):
    for i, layer in enumerate(LAYERS):
        x = jnp.tanh(layer @ x) if i != 7 else crooked(layer @ x)
    return jnp.sum(x**2)


def jitted(x):
    inner = jax.jit(lambda x: jnp.tanh(crooked(x)))
    return jnp.sum(jax.jit(lambda x: inner(2 * x))(x))


def scanned(x):
    def step(carry, _):
        return jnp.tanh(crooked(carry)), None

    return jnp.sum(lax.scan(step, x, None, 6)[0])


def branching(x):
    return jnp.sum(lax.cond(x[0] > 0, crooked, jnp.sin, x))


def again(x):
    return jnp.sum(jax.checkpoint(lambda x: crooked(jnp.exp(x)))(x))


def looping(x):
    def step(carry):
        return carry[0] + 1, bent(carry[1])

    return jnp.sum(lax.while_loop(lambda carry: carry[0] < 3, step, (0, x))[1])


@pytest.mark.parametrize(
    "f",
    [plain, deep, jitted, scanned, branching, again, looping],
    ids=lambda f: f.__name__,
)
def test_the_rule_and_its_line_are_named(f):
    report = check_gradients(f, V, transformations=())
    assert not report.ok
    first = report.culprits[0]
    rule = "bent" if f is looping else "crooked"
    assert first.name.endswith(f"of {rule}"), report
    lines, start = inspect.getsourcelines(f)
    line = start + next(i for i, text in enumerate(lines) if rule in text)
    assert f"test_culprits.py:{line} (" in first.where, report
    assert f"culprit: {first}" in str(report)
    assert "slope" in first.finding and "by differences" in first.finding
    assert len(report.culprits) == 1, report


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e200, 1e300, 1e-300])
def test_the_size_of_the_values_does_not_matter(size):
    report = check_gradients(lambda x: size * crooked(x), V, transformations=())
    assert [c.name for c in report.culprits] == ["custom_vjp of crooked"], report


@eqx.filter_custom_vjp
def wrapped(x, factor):
    return factor * jnp.sin(x)


@wrapped.def_fwd
def _(perturbed, x, factor):
    return factor * jnp.sin(x), None


@wrapped.def_bwd
def _(residuals, g, perturbed, x, factor):
    return g * jnp.cos(x)


def test_in_a_wrapper_of_a_library_the_function_inside_is_named():
    def f(x):
        return jnp.sum(wrapped(jnp.exp(x), 3.0) ** 2)

    report = check_gradients(f, V, transformations=())
    assert [c.name for c in report.culprits] == ["custom_vjp of wrapped"], report
    line = inspect.getsourcelines(f)[1] + 1
    assert f"test_culprits.py:{line} (" in report.culprits[0].where, report


def test_a_network_takes_one_check_beside_its_own(monkeypatch):
    checks = []
    check = gradients.check
    counted = lambda *args, **how: checks.append(0) or check(*args, **how)  # noqa: E731
    monkeypatch.setattr(gradients, "check", counted)
    report = check_gradients(deep, V, transformations=())
    assert [c.name for c in report.culprits] == ["custom_vjp of crooked"], report
    assert len(checks) == 2  # of the network, and of the one suspect


def test_at_a_kink_a_point_beside_it_is_looked_at():
    def f(x):
        return jnp.sum(crooked(jax.nn.relu(x[:2]) + x[2]))

    report = check_gradients(f, np.array([0.0, 0.0, 1.0]), transformations=())
    assert report.verdict == "WRONG", report
    assert [c.name for c in report.culprits] == ["custom_vjp of crooked"], report


def test_several_are_named_in_their_order():
    report = check_gradients(lambda x: jnp.sum(bent(jnp.exp(crooked(x)))), V)
    assert [c.name.split()[-1] for c in report.culprits] == ["crooked", "bent"]


def a_little_off(x):
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda p, t: (f(*p), (1 + 7e-9) * jnp.cos(p[0]) * t[0]))
    return f(x)


def test_where_only_several_together_are_wrong_they_are_named():
    f = lambda x: jnp.sum(2 * a_little_off(a_little_off(x)))  # noqa: E731
    (found,) = check_gradients(f, V, transformations=()).culprits
    assert found.name == "equations custom_jvp_call to custom_jvp_call", found


def one_step_of_scan(x):
    def step(carry, i):
        return lax.cond(i == 37, crooked, jnp.sin, carry), None

    return jnp.sum(lax.scan(step, x, jnp.arange(100), reverse=True)[0])


def one_step_of_while(x):
    def step(carry):
        return carry[0] + 1, lax.cond(carry[0] == 40, bent, jnp.sin, carry[1])

    return jnp.sum(lax.while_loop(lambda carry: carry[0] < 50, step, (0, x))[1])


@pytest.mark.parametrize(
    ("f", "rule"), [(one_step_of_scan, "crooked"), (one_step_of_while, "bent")]
)
def test_in_a_long_loop_the_wrong_step_is_found(f, rule):
    (found,) = check_gradients(f, V, transformations=()).culprits
    assert found.name.endswith(f"of {rule}"), found


@jax.custom_vjp
def right_once(x):
    return jnp.sin(x)


right_once.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(lax.stop_gradient(x)),)
)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_the_rule_of_a_wrong_second_derivative_is_named(wrap):
    f = wrap(right_once)
    report = check_gradients(lambda x: jnp.sum(f(jnp.exp(x))), V, order=2)
    names = [c.name for c in report.culprits]
    assert names == ["stop_gradient in the rule of right_once"], report


def attention(x):
    scores = jnp.where(np.tril(np.ones((3, 3), bool)), crooked(x[:, None] * x), -np.inf)
    return jnp.sum((jax.nn.softmax(scores) @ x) ** 2)


def switched(x):
    def one(i, x):
        return lax.switch(i, [jnp.sin, crooked], x)

    return jnp.sum(jax.vmap(one)(jnp.array([0, 1, 1]), x))


def test_a_rule_in_a_shard_map_over_one_device_is_named():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), "d")
    spec = jax.sharding.PartitionSpec("d")
    one = lambda x: jnp.sum(crooked(2 * x), keepdims=True)  # noqa: E731
    how = {"mesh": mesh, "in_specs": spec, "out_specs": spec, "check_vma": False}
    report = check_gradients(jax.shard_map(one, **how), V)
    assert [c.name for c in report.culprits] == ["custom_vjp of crooked"], report


@pytest.mark.parametrize("f", [attention, switched], ids=lambda f: f.__name__)
def test_the_right_use_of_stop_gradient_beside_it_is_not_named(f):
    """That of a softmax, whose masked scores are -inf; that of a switch under vmap."""
    report = check_gradients(f, V)
    assert [c.name for c in report.culprits] == ["custom_vjp of crooked"], report


def counted_paths(rule):
    """The recursion of a loss over alignments, which starts from log 0."""

    def f(x):
        def step(a, row):
            beside = jnp.concatenate([jnp.full(1, -jnp.inf), a[:-1]])
            return jnp.logaddexp(a, beside) + rule(row), None

        return lax.scan(step, jnp.array([0.0, -jnp.inf, -jnp.inf]), x)[0][-1]

    return f


X = np.linspace(-1, 1, 15).reshape(5, 3)


@pytest.mark.filterwarnings("error")
def test_values_of_minus_inf_do_not_stop_the_search():
    report = check_gradients(counted_paths(crooked), X, modes=("rev",))
    assert report.culprits[0].name == "custom_vjp of crooked", report


def test_nan_in_forward_mode_alone_is_said():
    report = check_gradients(counted_paths(jnp.sin), X)
    assert report.verdict == "not checked", report
    assert "forward mode is nan at params" in str(report), report
    assert "modes=('rev',)" in str(report) and "no slope" not in str(report), report
    assert "value" not in str(report.culprits), report


def test_a_search_that_fails_leaves_the_verdict(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such equation")

    monkeypatch.setattr("dlworkshop.verify.culprit.culprits_of", fails)
    report = check_gradients(plain, V)
    assert report.verdict == "WRONG" and "no such equation" in str(report)


def test_stop_gradient_is_a_culprit():
    report = check_gradients(lambda x: jnp.sum(x * lax.stop_gradient(x)), V)
    assert [c.name for c in report.culprits] == ["stop_gradient"], report
    assert "on purpose" in str(report)


def test_a_masked_division_is_named():
    f = lambda x: jnp.sum(jnp.where(x > 0, jnp.sin(x) / x, 1.0))  # noqa: E731
    report = check_gradients(f, np.array([0.0, 1.0]))
    assert report.verdict == "WRONG" and np.isnan(report.worst.autodiff)
    assert report.culprits[0].name == "div", report


def test_an_equation_without_a_line_of_its_own_is_named():
    report = check_gradients(jnp.sqrt, np.array([0.0, 1.0]))
    assert "culprit: sqrt: its derivative is inf at entry [0]" in str(report), report


def test_a_rule_that_breaks_under_vmap_is_named():
    @jax.custom_batching.custom_vmap
    def normed(x):
        return jax.nn.softmax(x)

    @normed.def_vmap
    def _(axis_size, in_batched, x):
        return jax.nn.softmax(x, 0), True

    @jax.custom_vjp
    def soft(x):
        return normed(x)

    soft.defvjp(
        lambda x: (normed(x), x), lambda x, g: (jax.vjp(jax.nn.softmax, x)[1](g)[0],)
    )
    report = check_gradients(lambda x: jnp.sum(soft(jnp.sin(x)) ** 2), V)
    assert all(row.ok for row in report.rows) and not report.ok
    assert "vmap: DIFFERENT" in str(report), report
    assert report.culprits[0].name.endswith("of soft"), report


@jax.custom_vjp
def forgets(x):
    return jnp.sum(jnp.sin(x))


forgets.defvjp(lambda x: (forgets(x), x), lambda x, g: (jnp.cos(x),))


@jax.custom_vjp
def guided(x):
    return jax.nn.relu(x)


guided.defvjp(lambda x: (guided(x), x), lambda x, g: (jnp.maximum(g, 0) * (x > 0),))


@jax.custom_vjp
def clips(x):
    return x


clips.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -1, 1),))


@jax.custom_vjp
def keeps_the_largest(x):
    return jnp.sin(x)


def _largest(x, g):
    return (jnp.where(jnp.abs(g) < jnp.max(jnp.abs(g)), 0, g) * jnp.cos(x),)


keeps_the_largest.defvjp(lambda x: (jnp.sin(x), x), _largest)


@pytest.mark.parametrize(
    "f", [keeps_the_largest, lambda x: tuple(keeps_the_largest(x))]
)
def test_a_rule_that_is_right_for_each_cotangent_alone_is_wrong(f):
    report = check_gradients(f, V)
    assert not report.ok and "not linear in its cotangent" in str(report), report
    named = [c.name for c in report.culprits]
    assert named == ["custom_vjp of keeps_the_largest"], report


@jax.custom_vjp
def drops(x):
    return jnp.sin(x)


drops.defvjp(
    lambda x: (jnp.sin(x), x),
    lambda x, g: (jnp.where(jnp.abs(g) > 1e-2, g, 0) * jnp.cos(x),),
)


@pytest.mark.parametrize(
    ("rule", "f"),
    [
        ("drops", lambda x: jnp.sum(drops(x))),
        ("forgets", lambda x: jnp.log(5 + forgets(x)) + jnp.sum(x**2)),
        ("guided", lambda x: -jnp.sum(guided(x))),
        ("clips", lambda x: jnp.sum(3 * clips(x) ** 2)),
    ],
)
def test_a_rule_that_is_not_linear_in_its_cotangent_is_named(rule, f):
    report = check_gradients(f, V)
    assert [c.name for c in report.culprits] == [f"custom_vjp of {rule}"], report
    assert "not linear in its cotangent" in str(report), report


def rounded(dtype):
    """The identity, with a rule that rounds its cotangent to `dtype`."""
    rule = jax.custom_vjp(lambda x: x)
    to = lambda _, g: (g.astype(dtype).astype(g.dtype),)  # noqa: E731
    rule.defvjp(lambda x: (x, None), to)
    return rule


@pytest.mark.parametrize(
    "f",
    [
        rounded(jnp.bfloat16),
        lambda x: jnp.tanh(rounded(jnp.bfloat16)(x)),
        lambda x: jnp.mean(jnp.tanh(rounded(jnp.float32)(x))),
    ],
)
def test_a_rule_that_rounds_its_cotangent_is_named(f):
    report = check_gradients(f, jnp.linspace(0.1, 1, 6))
    assert [c.name for c in report.culprits] == ["custom_vjp of <lambda>"], report


def test_a_rule_that_clips_behind_a_large_mean_is_named():
    def loss(w):
        x = clips(jnp.outer(jnp.arange(4096.0) / 4096, w))
        return jnp.mean(jnp.tanh(x) ** 2)

    report = check_gradients(loss, jnp.ones(6))
    assert [c.name for c in report.culprits] == ["custom_vjp of clips"], report


@jax.custom_vjp
def halves_beside_zeros(x):
    return jnp.tanh(x)


halves_beside_zeros.defvjp(
    lambda x: (jnp.tanh(x), x),
    lambda x, g: (jnp.where(jnp.any(g == 0), 0.5, 1) * g * (1 - jnp.tanh(x) ** 2),),
)


def test_a_rule_that_is_right_for_cotangents_without_zeros_is_named():
    report = check_gradients(lambda x: 2 * halves_beside_zeros(x), V)
    named = [c.name for c in report.culprits]
    assert named == ["custom_vjp of halves_beside_zeros"], report


@jax.custom_vjp
def halves_beside_what_nobody_reads(x):
    return jnp.sin(x), jnp.cos(x)


def _halved(x, cotangents):
    left, right = cotangents
    alone = isinstance(right, jax.custom_derivatives.SymbolicZero)
    back = left * jnp.cos(x) * (0.5 if alone else 1)
    return (back if alone else back - right * jnp.sin(x),)


halves_beside_what_nobody_reads.defvjp(
    lambda x: ((jnp.sin(x.value), jnp.cos(x.value)), x.value),
    _halved,
    symbolic_zeros=True,
)


def test_a_rule_that_is_wrong_if_a_result_is_not_read_is_named():
    report = check_gradients(lambda x: 2 * halves_beside_what_nobody_reads(x)[0], V)
    named = [c.name for c in report.culprits]
    assert named == ["custom_vjp of halves_beside_what_nobody_reads"], report


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def kernel(factor, x):
    return in_blocks(lambda x: x**2, x)


kernel.defvjp(
    lambda factor, x: (kernel(factor, x), x),
    lambda factor, x, g: (in_blocks(lambda x, g: factor * x * g, x, g),),
)


def in_blocks(f, *given):
    """A kernel of Pallas, by blocks of two."""

    def each(*refs):
        refs[-1][...] = f(*(ref[...] for ref in refs[:-1]))

    spec = pl.BlockSpec((2,), lambda i: (i,))
    return pl.pallas_call(
        each,
        out_shape=jax.ShapeDtypeStruct(given[0].shape, given[0].dtype),
        grid=(2,),
        in_specs=[spec] * len(given),
        out_specs=spec,
        interpret=True,
    )(*given)


def test_a_kernel_in_blocks_is_checked_and_its_wrong_rule_is_named():
    assert check_gradients(lambda x: jnp.sum(in_blocks(jnp.sin, x)), V).ok
    report = check_gradients(functools.partial(kernel, 1.99), V)
    assert [c.name for c in report.culprits] == ["custom_vjp of kernel"], report


@jax.custom_vjp
def doubled_beside_its_gradient(x):
    return jnp.sin(x)


doubled_beside_its_gradient.defvjp(
    lambda x: (2 * jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),)
)


@jax.custom_jvp
def shifted_beside_its_tangent(x):
    return jnp.sin(x)


shifted_beside_its_tangent.defjvp(
    lambda x, t: (jnp.sin(x[0]) + 1e-6, t[0] * jnp.cos(x[0]))
)


@pytest.mark.parametrize(
    ("rule", "modes"),
    [
        (doubled_beside_its_gradient, ("fwd", "rev")),
        (shifted_beside_its_tangent, ("fwd", "rev")),
        (shifted_beside_its_tangent, ("fwd",)),
    ],
)
def test_a_rule_with_another_value_than_its_function_is_named(rule, modes):
    report = check_gradients(lambda x: jnp.sum(rule(x)), V, modes=modes)
    assert "value_and_grad: DIFFERENT" in str(report), report
    (found,) = report.culprits
    assert found.name.endswith(f" of {rule.__name__}"), report


@jax.custom_batching.custom_vmap
def times(x, g):
    return x * g


@times.def_vmap
def _(n, is_mapped, x, g):
    made = x * g if is_mapped[0] else jnp.broadcast_to(x * g.sum(0), g.shape)
    return made, True


@jax.custom_vjp
def mixes_its_cotangents(x):
    return jnp.sin(x)


mixes_its_cotangents.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, g: (times(jnp.cos(x), g),)
)


def test_a_rule_that_is_wrong_in_jacrev_is_named():
    report = check_gradients(lambda x: 2 * mixes_its_cotangents(x), V)
    assert "vmap: DIFFERENT" in str(report), report
    named = [c.name for c in report.culprits]
    assert named == ["custom_vjp of mixes_its_cotangents"], report


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


sine.defjvp(lambda x, t: (sine(x[0]), 1.01 * t[0] * jnp.cos(x[0])))


@jax.custom_jvp
def calls_sine(x):
    return sine(x) + 1


calls_sine.defjvp(lambda x, t: (calls_sine(x[0]), jax.jvp(sine, x, t)[1]))


@jax.custom_jvp
def wrong_beside_tanh(x):
    return jnp.tanh(x) + 1


wrong_beside_tanh.defjvp(
    lambda x, t: (wrong_beside_tanh(x[0]), 1.01 * jax.jvp(jnp.tanh, x, t)[1])
)


@pytest.mark.parametrize(
    ("f", "name"), [(calls_sine, "sine"), (wrong_beside_tanh, "wrong_beside_tanh")]
)
def test_a_rule_that_another_rule_calls_is_named(f, name):
    report = check_gradients(lambda x: jnp.sum(f(x)), V)
    assert [c.name for c in report.culprits] == [f"custom_jvp of {name}"], report


def in_while(x):
    """Two sines, in a loop without reverse mode."""
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, sine(s[1])), (0, x))


def in_scan(x):
    """As many as 26, the way `odeint` has them."""
    return lax.scan(lambda x, _: (in_while(x)[1], None), x, None, 13)


@pytest.mark.parametrize(("loop", "place", "num"), [(in_while, 1, 2), (in_scan, 0, 26)])
def test_a_rule_in_a_loop_that_another_rule_differentiates_is_named(loop, place, num):
    def unrolled(x):
        for _ in range(num):
            x = sine(x)
        return x

    repeated = jax.custom_vjp(lambda x: loop(x)[place])
    repeated.defvjp(
        lambda x: (loop(x)[place], x), lambda x, g: jax.vjp(unrolled, x)[1](g)
    )
    report = check_gradients(lambda x: jnp.sum(repeated(x)), V)
    assert [c.name for c in report.culprits] == ["custom_jvp of sine"], report


@pytest.mark.parametrize("f", [jnp.tanh, lambda x: 1 * jnp.tanh(x)])
def test_a_rule_that_a_user_gives_to_a_function_of_jax_is_compared(f):
    mapped = jax.custom_batching.custom_vmap(f)
    mapped.def_vmap(lambda n, is_mapped, x: (2 * jnp.tanh(x), True))
    report = check_gradients(lambda x: jnp.sum(mapped(x)), V)
    assert "vmap: DIFFERENT" in str(report), report


def test_a_primitive_that_breaks_under_vmap_is_named():
    sine = Primitive("my_sine")
    sine.def_impl(lambda x: 1 * jnp.sin(x))
    sine.def_abstract_eval(lambda x: x)
    mlir.register_lowering(sine, mlir.lower_fun(jnp.sin, False))
    ad.defjvp(sine, lambda t, x: t * jnp.cos(x))
    batching.primitive_batchers[sine] = lambda x, d: (sine.bind(2 * x[0]), d[0])
    report = check_gradients(lambda x: jnp.sum(sine.bind(x)), V)
    assert [c.name for c in report.culprits] == ["my_sine"], report


def test_where_kinks_meet_no_equation_is_named_and_the_report_says_so():
    # x, as a difference of two ReLUs, each of which may have the slope 0 at 0
    report = check_gradients(
        lambda x: jnp.sum(jax.nn.relu(x) - jax.nn.relu(-x)), jnp.zeros(3)
    )
    assert not report.ok and report.culprits == ()
    assert "no single equation is wrong by itself" in str(report), report


def test_none_are_looked_for_where_all_is_right():
    report = check_gradients(lambda x: jnp.sum(jnp.sin(x)), V)
    assert report.ok and report.culprits == ()


def test_nan_under_vmap_alone_is_no_agreement():
    @jax.custom_batching.custom_vmap
    def sine(x):
        return jnp.sin(x)

    @sine.def_vmap
    def _(axis_size, in_batched, x):
        return jnp.full_like(x, jnp.nan), True

    wave = jax.custom_vjp(sine)
    wave.defvjp(lambda x: (sine(x), x), lambda x, g: (g * jnp.cos(x),))
    report = check_gradients(lambda x: jnp.sum(wave(x)), V, transformations=("vmap",))
    assert "vmap: DIFFERENT" in str(report), report
    assert "no single equation is wrong by itself" not in str(report), report
