"""Every constructor of optax, built inside the step from traced numbers.

A population that differs in all of an optimizer's numbers is compared with lone runs
whose optimizer was built once, from Python's numbers.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from dlworkshop import data, fit, losses, models
from dlworkshop.errors import UserError
from dlworkshop.learn.optimizers import clipped, same_dtypes, with_extra_args
from dlworkshop.learn.population import opt_state_sound

STEPS = 4
RATES = ("learning_rate", "max_learning_rate")
SHARES = (1.0, 0.97, 0.94)  # of the default: what the members' other numbers are


def constructors():
    """Name -> function, of what takes a learning rate and is no part of another."""
    return {
        f"{module.__name__}.{name}": make
        for module in (optax, optax.contrib)
        for name, make in sorted(vars(module).items())
        if inspect.isfunction(make)
        and not name.startswith(("_", "scale_by_"))
        and set(RATES) & set(inspect.signature(make).parameters)
    }


# What cannot be used as it is: name -> (why, what its error says).
IMPOSSIBLE = {
    "optax.lbfgs": ("its line search evaluates the loss", "value_fn"),
    "optax.contrib.sophia": ("it estimates a Hessian of the loss", "obj_fn"),
    "optax.contrib.dpsgd": ("it needs each example's gradient", "batch dimension"),
    "optax.contrib.schedule_free": ("it wraps another optimizer", "base_optimizer"),
}
# With bfloat16 parameters, where other numbers than the rate are traced float32.
NOT_IN_BFLOAT16 = {
    "optax.novograd": "the two branches of its cond have different types",
}
REQUIRED = {"optax.contrib.dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.1}}
# What most people use; the others are built in the same way.
COMMON = {"sgd", "adam", "adamw", "adagrad", "rmsprop", "lion", "lamb", "adafactor"}
COMMON |= {"contrib.muon", "contrib.schedule_free_adamw", "polyak_sgd", "noisy_sgd"}
ALL = constructors()
WORKING = sorted(set(ALL) - set(IMPOSSIBLE))
SOME_SLOW = pytest.mark.parametrize(
    "name",
    [
        name
        if name.removeprefix("optax.") in COMMON
        else pytest.param(name, marks=pytest.mark.slow)
        for name in WORKING
    ],
)


def numbers_of(name):
    """Keyword -> values of three members, for all of a constructor's numbers."""
    parameters = inspect.signature(ALL[name]).parameters
    numbers = {
        p.name: [p.default * share for share in SHARES]
        for p in parameters.values()
        if isinstance(p.default, float)
    }
    (rate,) = set(RATES) & set(parameters)
    return numbers | {rate: [0.01, 0.03, 0.1]}


def fixed_of(name, key=0):
    """What a constructor is given beside its numbers."""
    parameters = inspect.signature(ALL[name]).parameters
    keys = {each: key for each in ("key", "seed") if each in parameters}
    if len(keys) == 2:  # optax's older name for it
        del keys["seed"]
    return keys | REQUIRED.get(name, {})


def loss(params):
    kernel, bias = (params[name].astype(jnp.float32) for name in ("kernel", "bias"))
    hidden = jnp.tanh(jnp.linspace(-1.0, 1.0, 4) @ kernel + bias)  # [3]
    return jnp.sum((hidden - 0.5) ** 2) + 0.1 * jnp.sum(kernel**2)


def start(dtype=jnp.float32):
    kernel = np.random.default_rng(0).normal(size=(4, 3))
    return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.full(3, 0.3, dtype)}


def train(build, params, keep=same_dtypes):
    """A few updates, as a step does them: `build()` is called inside of it."""

    def step(carry, _):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params)
        tx = with_extra_args(build())
        updates, new = tx.update(grads, opt_state, params, value=value, grad=grads)
        return (optax.apply_updates(params, updates), keep(new, opt_state)), value

    (params, _), _ = jax.lax.scan(step, (params, build().init(params)), length=STEPS)
    return params


def population(name, numbers, dtype=jnp.float32, keep=same_dtypes):
    def member(numbers):
        build = lambda: ALL[name](**numbers, **fixed_of(name))  # noqa: E731
        return train(build, start(dtype), keep)

    as_arrays = {key: jnp.array(each, jnp.float32) for key, each in numbers.items()}
    return jax.jit(jax.vmap(member))(as_arrays)


def lone(name, numbers, member):
    tx = ALL[name](
        **{key: each[member] for key, each in numbers.items()}, **fixed_of(name)
    )
    return jax.jit(lambda: train(lambda: tx, start()))()


def test_they_are_all_looked_at():
    assert len(ALL) > 45
    assert {"optax.adam", "optax.contrib.muon", "optax.polyak_sgd"} < set(ALL)
    assert {*IMPOSSIBLE, *NOT_IN_BFLOAT16} < set(ALL)
    assert {f"optax.{name}" for name in COMMON} < set(WORKING)


@SOME_SLOW
def test_a_member_is_the_lone_run(name):
    numbers = numbers_of(name)
    together = population(name, numbers)
    alone = lone(name, numbers, member=1)
    for leaf in alone:
        # float32 numbers for Python's: 1 - b2 is off by 6e-8 / 1e-3 of itself, its root
        # by 3e-5, which is that share of a rate of 0.03 in each of four updates
        np.testing.assert_allclose(
            together[leaf][1], alone[leaf], rtol=0, atol=4e-6, err_msg=leaf
        )
        changes = [np.abs(alone[leaf] - start()[leaf]).max() for leaf in alone]
        assert max(changes) > 0  # it does something
    first, _, last = together["kernel"]
    assert not np.array_equal(first, last)


@SOME_SLOW
def test_a_state_without_overflow_is_not_quarantined(name):
    numbers = {key: each[0] for key, each in numbers_of(name).items()}
    tx, params = with_extra_args(ALL[name](**numbers, **fixed_of(name))), start()
    fresh = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, new = tx.update(grads, opt_state, params, value=value, grad=grads)
        return optax.apply_updates(params, updates), new

    opt_state = fresh
    for _ in range(STEPS):
        params, opt_state = step(params, opt_state)
        for on_cpu in (True, False):
            assert opt_state_sound(opt_state, fresh, on_cpu)


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_these_do_not_work_for_the_reason_given(name):
    _, says = IMPOSSIBLE[name]
    with pytest.raises((TypeError, ValueError), match=says):
        population(name, numbers_of(name))


@pytest.mark.parametrize("name", WORKING)
def test_bfloat16_parameters_take_traced_numbers(name):
    shapes = lambda keep: jax.eval_shape(  # noqa: E731
        lambda: population(name, numbers_of(name), jnp.bfloat16, keep)
    )
    if name in NOT_IN_BFLOAT16:
        with pytest.raises(TypeError, match="cond branches"):
            shapes(same_dtypes)
    else:
        assert {leaf.dtype.name for leaf in shapes(same_dtypes).values()} == {
            "bfloat16"
        }


def test_adam_in_bfloat16_needs_its_state_kept_in_its_type():
    numbers = numbers_of("optax.adam")
    with pytest.raises(TypeError, match="carry"):
        population("optax.adam", numbers, jnp.bfloat16, keep=lambda new, old: new)
    rate = {"learning_rate": numbers["learning_rate"]}
    population("optax.adam", rate, jnp.bfloat16, keep=lambda new, old: new)


def test_a_state_of_integers_does_not_cut_off_fractions():
    old = {"step": jnp.zeros((), jnp.int32), "mean": jnp.zeros(())}
    kept = same_dtypes({"step": 3, "mean": 2}, old)  # numbers of Python, too
    assert kept == {"step": 3, "mean": 2.0}
    assert kept["mean"].dtype == jnp.float32
    with pytest.raises(UserError, match=r"state\['step'\] begins as int32 and becomes"):
        same_dtypes({"step": jnp.array(0.3), "mean": 2}, old)


@pytest.mark.parametrize("key", [3, jax.random.key(3)], ids=["int", "typed"])
def test_a_key_may_be_an_int_or_typed_and_differ_between_members(key):
    def member(rate, key):
        return train(lambda: optax.noisy_sgd(rate, key=key), start())

    rates = jnp.full(3, 0.03)
    same = jax.jit(jax.vmap(member, (0, None)))(rates, key)["bias"]
    np.testing.assert_array_equal(same[0], same[1])
    keys = jnp.arange(3) if isinstance(key, int) else jax.random.split(key, 3)
    other = jax.jit(jax.vmap(member))(rates, keys)["bias"]
    assert not np.array_equal(other[0], other[1])


def test_a_raw_key_is_taken_for_many_seeds():
    with pytest.raises(TypeError, match="scalar seed"):
        optax.noisy_sgd(0.1, key=jax.random.PRNGKey(0)).init(start())


def wrapped():
    """Constructors of one's own, of what optax wraps around an optimizer."""
    return {
        "lbfgs without a line search": lambda learning_rate: optax.lbfgs(
            learning_rate, linesearch=None
        ),
        "schedule_free": lambda learning_rate: optax.contrib.schedule_free(
            optax.sgd(learning_rate), learning_rate
        ),
        "mechanize": lambda learning_rate: optax.contrib.mechanize(
            optax.sgd(learning_rate)
        ),
        "sam": lambda learning_rate: optax.contrib.sam(
            optax.sgd(learning_rate), optax.sgd(0.01)
        ),
        "sam, clipped": lambda learning_rate: clipped(optax.contrib.sam)(
            optax.sgd(learning_rate), optax.sgd(0.01), clip_norm=1.0
        ),
        "MultiSteps": lambda learning_rate: optax.MultiSteps(
            optax.adam(learning_rate), 2
        ).gradient_transformation(),
    }


@pytest.mark.parametrize("name", wrapped())
def test_what_wraps_an_optimizer_works_as_a_constructor_of_ones_own(name):
    make, rates = wrapped()[name], [0.01, 0.03, 0.1]

    def member(rate):
        return train(lambda: make(learning_rate=rate), start())

    together = jax.jit(jax.vmap(member))(jnp.array(rates))
    tx = make(learning_rate=rates[1])
    alone = jax.jit(lambda: train(lambda: tx, start()))()
    for leaf in alone:
        np.testing.assert_allclose(
            together[leaf][1], alone[leaf], rtol=0, atol=4e-6, err_msg=leaf
        )
    assert not np.array_equal(together["bias"][0], together["bias"][2])


def line_search(step):
    """A step that takes the updates of L-BFGS with its line search."""
    del step  # whose loss is that of one point
    tx = optax.lbfgs()

    def train_step(train, batch, hparams):
        def loss(params):
            outputs = models.predict(LINE, params, batch.inputs)
            return jax.vmap(losses.squared_error)(outputs, batch.targets).mean()

        value, grads = jax.value_and_grad(loss)(train.params)
        more = {"value": value, "grad": grads, "value_fn": loss}
        updates, opt_state = tx.update(grads, train.opt_state, train.params, **more)
        params = optax.apply_updates(train.params, updates)
        new = train._replace(step=train.step + 1, params=params, opt_state=opt_state)
        return new, {"loss": value}

    return train_step


LINE = models.Model(
    lambda key, x: {"w": jnp.zeros(x.shape), "b": jnp.zeros(())},
    lambda params, x, *, key=None: x @ params["w"] + params["b"],
)


@pytest.mark.usefixtures("unreported")
def test_a_line_search_is_taken_by_a_step_of_ones_own():
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    dataset = data.from_arrays(x, x @ np.arange(3, dtype=np.float32) + 1)
    asked = {"loss": losses.squared_error, "hparams": {}, "batch_size": 70}
    with pytest.raises(UserError, match="or take the updates yourself in a make_step"):
        fit(LINE, dataset, optax.lbfgs, **asked)
    run = fit(LINE, dataset, optax.lbfgs, make_step=line_search, num_epochs=9, **asked)
    np.testing.assert_allclose(run.params["w"], [[0, 1, 2]], atol=1e-4)
    np.testing.assert_allclose(run.params["b"], [1], atol=1e-4)


def test_a_step_of_ones_own_that_takes_no_line_search_says_so():
    dataset = data.from_arrays(np.eye(30, dtype=np.float32), np.ones(30, np.float32))
    asked = {"loss": losses.squared_error, "hparams": {}, "batch_size": 8}
    with pytest.raises(UserError, match="lbfgs has a line search, which needs"):
        fit(LINE, dataset, optax.lbfgs, make_step=lambda step: step, **asked)
