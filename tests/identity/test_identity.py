"""Equal things have one description, others another, in this process and the next."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from dlworkshop import losses, models
from dlworkshop.identity import checksum, code, describe, difference, digest, opaque
from dlworkshop.models.model import Model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path):
    """Source text -> its module, as a script of the user's would be imported."""
    count = iter(range(99))

    def load(text, name="mine", folder=None):
        folder = folder or tmp_path / str(next(count))
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


LOSS = """
    import functools
    from typing import NamedTuple
    import jax.numpy as jnp
    import numpy as np
    from flax import linen as nn

    SCALE = 2.0
    TABLE = np.arange(20)

    def helper(x):
        return x * SCALE

    def loss(outputs, target, *, sharpness=1.0):
        '''A loss.'''
        def inner(x):
            return helper(x) ** 2
        return inner(outputs - target) * sharpness + TABLE[0]

    square = lambda x: x**2
    scaled = functools.partial(loss, sharpness=2.0)

    class Settings(NamedTuple):
        width: int = 4

    SETTINGS = Settings()

    class Net(nn.Module):
        width: int = 3

        @nn.compact
        def __call__(self, x, *, key=None):
            return nn.Dense(self.width)(x) * SCALE + SETTINGS.width

    class Callable:
        def __init__(self):
            self.factor = 2
        def __call__(self, x):
            return self.times(x)
        def times(self, x):
            return x * self.factor

    def make(power):
        return lambda x: x**power

    net, thing, cubed = Net(), Callable(), make(3)
"""
NAMES = ["loss", "square", "scaled", "net", "thing", "cubed"]


@pytest.mark.parametrize(
    "old, new, changed",
    [
        ("** 2", "** 4", "loss scaled"),
        ("x * SCALE", "x / SCALE", "loss scaled"),
        ("SCALE = 2.0", "SCALE = 3.0", "loss scaled net"),
        ("np.arange(20)", "np.arange(20) + 1", "loss scaled"),
        ("sharpness=1.0", "sharpness=1.5", "loss scaled"),
        ("x**2", "x**3", "square"),
        ("lambda x: x**2", "np.square", "square"),
        ("sharpness=2.0", "sharpness=2.5", "scaled"),
        ("width: int = 4", "width: int = 5", "net"),
        ("width: int = 3", "width: int = 4", "net"),
        ("nn.Dense(self.width)", "nn.Dense(self.width, use_bias=False)", "net"),
        (
            "from flax import linen as nn",
            "from flax import linen as nn; np = jnp",
            "loss scaled",
        ),
        ("self.factor = 2", "self.factor = 2.0", "thing"),
        ("x * self.factor", "x + self.factor", "thing"),
        ("make(3)", "make(4)", "cubed"),
        ("x**power", "power**x", "cubed"),
    ],
)
def test_what_changes_what_is_computed_changes_the_digest(load, old, new, changed):
    assert old in LOSS
    one, other = load(LOSS), load(LOSS.replace(old, new))
    found = {n for n in NAMES if digest(getattr(one, n)) != digest(getattr(other, n))}
    assert found == set(changed.split())


@pytest.mark.parametrize(
    "old, new",
    [
        ("'''A loss.'''", "# another comment"),
        ("x**2", "(\n        x  **  2  # squared\n    )"),
        ("def helper(x):", "# moved\n\n\n    def helper(x: float) -> float:"),
        ("power):", "power):\n        '''Power.'''"),
        ("NamedTuple):", "NamedTuple):\n        '''Four.'''"),
        ("import functools", "import functools, os, sys\n    OTHER = open(os.devnull)"),
        ("return self.times(x)", "return self.times(x)  # here"),
    ],
)
def test_comments_and_layout_do_not_matter(load, old, new):
    assert old in LOSS
    one, other = load(LOSS), load(LOSS.replace(old, new), "elsewhere")
    for name in NAMES:
        assert describe(getattr(one, name)) == describe(getattr(other, name)), name


@pytest.mark.slow
def test_two_processes_with_other_hash_seeds_agree(load, tmp_path):
    text = (
        LOSS
        + "    words = {'a', 'b', 'c', 'd'}\n    f = lambda x: x in {'a', 'b', 'c'}\n"
    )
    load(text, folder=tmp_path / "here")
    code = """
import sys, mine
from dlworkshop.identity import digest
exec("def g(x): return x in {'a', 'b', 'c', 'd'}", there := {})
print([digest(getattr(mine, name)) for name in sys.argv[1:]], digest(there["g"]))
"""

    def run(seed):
        path = os.pathsep.join([str(tmp_path / "here"), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-c", code, *NAMES, "words", "f"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("1") == run("2")


def test_without_source_bytecode_tells(load):
    def run(text):
        there = {}
        exec(text, there)
        return there["f"]

    one, same, other = (run(f"f = lambda x: x {sign} 1 in {{1, 2}}") for sign in "++-")
    assert "bytecode" in describe(one)["code"]
    assert digest(one) == digest(same) != digest(other)


def test_a_file_that_was_changed_since_is_not_what_runs(load, tmp_path):
    before = load(LOSS)
    known = digest(before.square), digest(before.loss)
    path = Path(before.__file__)
    path.write_text(path.read_text().replace("x**2", "x**5"))
    assert "bytecode" in describe(before.square)["code"]
    assert digest(before.square) != digest(load(path.read_text()).square)
    # only lines moved: the source is still what runs
    path.write_text("# one more line\n" + textwrap.dedent(LOSS))
    assert (digest(before.square), digest(before.loss)) == known


def test_two_lambdas_in_one_line_are_two():
    f, g = (lambda x: x + 1), (lambda x: x + 2)
    h = lambda x: x + 1  # noqa: E731
    assert digest(f) != digest(g) and digest(f) == digest(h)
    assert "source" in describe(f)["code"]


def test_only_the_flags_that_are_read_count(load):
    text = """
        import types
        args = types.SimpleNamespace(width=4, workdir="here")
        def model(x):
            return x * args.width
        def main(flags):
            return lambda x: x * flags.width
        inner = main(args)
    """
    one, moved = load(text), load(text.replace("here", "there"))
    other = load(text.replace("4", "5"))
    for name in ("model", "inner"):
        one_, moved_, other_ = (getattr(m, name) for m in (one, moved, other))
        assert digest(one_) == digest(moved_) != digest(other_)


def test_the_users_modules_are_followed(load, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = """
        import {0}
        def f(x):
            return {0}.double(x)
        def g(x):
            from {0} import double
            return double(x)
        def h(x):
            import {0} as other
            module.append(other)
            return other.double(x)
        module = []
        h(1)
        module.clear()
    """
    helper = "def double(x):\n    return {} * x\nUNUSED = {}\n"
    found = []
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for factor, unused in ((2, 1), (2, 2), (3, 1)):
        (tmp_path / "helper_of_mine.py").write_text(helper.format(factor, unused))
        sys.modules.pop("helper_of_mine", None)
        importlib.invalidate_caches()
        module = load(text.format("helper_of_mine"))
        found.append([digest(getattr(module, name)) for name in "fgh"])
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))
    assert found[0][:2] == found[1][:2]  # only a whole module counts as a whole


@pytest.mark.parametrize(
    "body",
    [
        "import near as n; return n.f(x)",
        "import near; return (lambda y: near.f(y))(x)",
        "from near import f as g; return g(x)",
        "import near; return near.far.g(x)",
        "import near as n; return getattr(n, 'f')(x)",
        "from near import far as k; return vars(k)['FACTOR'] * x",
    ],
)
def test_imports_in_a_function_are_followed(load, tmp_path, monkeypatch, body):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "near.py").write_text("import far\ndef f(x):\n    return far.g(x)\n")

    def described(factor):  # in a new process
        for name in ("near", "far"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        text = f"FACTOR = {factor}\ndef g(x):\n    return FACTOR * x\n"
        (tmp_path / "far.py").write_text(text)
        importlib.invalidate_caches()
        return describe(load(f"def loss(x):\n    {body}").loss)

    before = described(2)
    assert before == described(2) and not opaque(before)
    (sentence,) = difference(before, described(3))
    assert sentence.endswith("FACTOR was 2 and is now 3")
    module = load(f"def loss(x):\n    {body}")
    known = digest(module.loss)
    sys.modules["far"].FACTOR = 4
    assert digest(module.loss) != known


def test_a_library_is_not_imported_to_describe_a_function(load, monkeypatch):
    module = load("def f(x):\n    from mailbox import mbox as m\n    return m(x)")
    monkeypatch.delitem(sys.modules, "mailbox", raising=False)
    before = describe(module.f)
    assert "mailbox" not in sys.modules
    importlib.import_module("mailbox")
    assert describe(module.f) == before
    missing = load("def f(x):\n    import no_such_thing as n\n    return n.g(x)")
    assert not opaque(describe(missing.f))


@pytest.mark.parametrize(
    "read",
    [
        "os.environ['A']",
        "os.getenv('A')",
        "open('a').read()",
        "np.load('a.npy')",
        "Path('a').read_text()",
        "globals()['A']",
        "eval('A')",
        "importlib.import_module('a').b",
        "sys.modules['a'].b",
        "(lambda: os.environ)()",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "def f(x): return x + {0}",
        "def g(): return {0}\ndef f(x): return x + g()",
        "class C:\n    def __call__(self, x): return x + {0}\nf = C()",
        "class C:\n    def g(self, x): return x + {0}\nf = C().g",
        "def f(x):\n    import os, numpy as np\n    return x + {0}",
    ],
)
def test_what_a_function_reads_without_naming_it_is_opaque(load, read, text):
    top = "import importlib, os, sys\nimport numpy as np\nfrom pathlib import Path\n"
    known = describe({"loss": load(top + text.format(read)).f})
    assert opaque(known)
    assert all("cannot be compared" in each for each in difference(known, known))


def test_methods_and_neighbours_that_read_files_do_not_count(load):
    module = load("""
        import numpy as np
        def read(path):
            return open(path).read()
        class Net:
            width = 3
            @classmethod
            def restored(cls, path):
                return cls(read(path))
            def __call__(self, x):
                return self.width * x
        net = Net()
    """)
    user = load("def f(x):\n    return getattr(other, 'net')(x)")
    user.other = module
    assert not opaque(describe([module.net, module.Net, user.f, module.net]))
    assert opaque(describe([user.f, module.read])) == ["1.open"]


def test_defaults_count_by_value(load):
    text = """
        POWER, SHIFT = 2, 1
        def f(x, power=POWER, *, shift=SHIFT):
            return x**power + shift
    """
    found = [
        load(text.replace("2, 1", numbers)) for numbers in ("2, 1", "3, 1", "2, 4")
    ]
    assert len({digest(module.f) for module in found}) == 3


def test_functions_that_call_each_other_end(load):
    text = """
        def even(n):
            return n == 0 or odd(n - 1)
        def odd(n):
            return n != 0 and even(n - 1)
        class Node:
            def copy(self):
                return Node()
        node = Node()
        node.me = node
    """
    one, other = load(text), load(text.replace("n != 0", "n > 0"))
    assert digest(one.even) != digest(other.even)
    assert digest(one.even) == digest(load(text).even)
    assert digest(one.node) == digest(load(text).node)


def test_what_is_shared_is_not_written_twice():
    functions = [lambda x: x]
    for _ in range(40):
        last = functions[-1]
        functions.append(lambda x, f=last, g=last: f(x) + g(x))
    assert len(json.dumps(describe(functions[-1]))) < 40_000


@pytest.mark.parametrize(
    "one, other",
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("1", 1),
        (None, "None"),
        (1.0, float("nan")),
        (b"a", "a"),
        ({"a": 1}, {"b": 1}),
        ({1: 2}, {"1": 2}),
        ({"@opaque": "x"}, {"@opaque": "y"}),
        ([1, [2]], [1, 2]),
        ({1, 2}, {1, 3}),
        ({1, 2}, [1, 2]),
        (np.arange(3), np.arange(3.0)),
        (np.arange(3), [0, 1, 2]),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(99), np.ones(99)),
        (np.float32(1), 1.0),
        (np.array(["a", {}], object), np.array(["a", []], object)),
        (jnp.asarray(1.0), jnp.float32(1.0)),  # of weak type
        (jax.random.key(0), jax.random.key(1)),
        (jnp.float32, jnp.bfloat16),
        (np.dtype("int8"), np.dtype("int16")),
        (nn.relu, nn.gelu),
        (np.tanh, jnp.tanh),
        (optax.sgd(0.1), optax.sgd(0.2)),
        (optax.adam(0.1), optax.adamw(0.1)),
        (optax.adam(0.1), optax.chain(optax.clip(1.0), optax.adam(0.1))),
        (functools.partial(optax.sgd, nesterov=True), optax.sgd),
        (functools.partial(nn.leaky_relu, negative_slope=0.1), nn.leaky_relu),
        (nn.Dense(3), nn.Dense(4)),
        (nn.Sequential([nn.Dense(3), nn.relu]), nn.Sequential([nn.Dense(3), nn.tanh])),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))),
        (nnx.Dropout(0.1), nnx.Dropout(0.2)),
        (models.mlp((4,)), models.mlp((5,))),
        (models.cnn((4,)), models.cnn((4,), pooling=models.max_pool)),
        (models.vgg16(), models.vgg16(preprocessing="torch")),
        (models.Augment(shift=1), models.Augment(shift=2)),
        (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)),
        (jax.vmap(lambda x: x + 1), jax.vmap(lambda x: x + 2)),
        (jax.vmap(jnp.sum, in_axes=0), jax.vmap(jnp.sum, in_axes=1)),
        (functools.cache(lambda x: x), functools.cache(lambda x: -x)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (Path("a"), Path("b")),
        (range(3), range(4)),
        (slice(1), slice(2)),
        ("a".upper, "b".upper),
    ],
)
def test_others_have_another_digest(one, other):
    assert digest(one) != digest(other)
    assert difference(describe(one), describe(other))
    for thing in (one, other):
        assert not opaque(describe(thing))
        assert describe(thing) == describe(thing)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": 1, "b": np.zeros(99)},
        lambda: optax.chain(optax.clip(1.0), optax.adamw(optax.constant_schedule(0.1))),
        lambda: optax.contrib.muon(0.1),
        lambda: optax.inject_hyperparams(optax.adam)(0.1),
        lambda: models.cnn((4,)),
        lambda: models.stateful(models.augmented(models.mlp((3,)), models.Augment())),
        lambda: nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu),
        lambda: jax.tree.structure({"a": (1, 2)}),
        lambda: jax.grad(jax.checkpoint(lambda x: x**2)),
    ],
)
def test_made_twice_it_is_the_same(make):
    assert describe(make()) == describe(make())
    assert not opaque(describe(make()))


def test_numpy_and_jax_arrays_of_one_content_are_the_same():
    array = np.arange(100, dtype=np.float32)
    for other in (jnp.asarray(array), array[::-1][::-1], array.astype(">f4")):
        assert describe(other)["sha256"] == describe(array)["sha256"]
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest((1, 2)) == digest([1, 2])


def test_what_cannot_be_looked_at_is_named(tmp_path):
    file = (tmp_path / "log").open("w")

    def loss(outputs, target):
        file.write("x")
        return outputs - target

    with file:
        known = describe({"loss": loss, "seeds": [(i for i in ())]})
    assert opaque(known) == ["seeds.0", "loss.file"]
    _, one = difference(known, known)
    assert one == "loss.file (a `io.TextIOWrapper`) cannot be compared"
    assert opaque(describe(models.cnn((4,)))) == []

    class Hostile:
        def __reduce_ex__(self, protocol):
            raise RuntimeError("no")

    assert opaque(describe([Hostile()])) == ["0"]

    @jax.jit
    def traced(x):
        assert opaque(describe({"x": x})) == ["x"]
        return x

    traced(1.0)


def test_differences_are_sentences(load):
    one, other = load(LOSS), load(LOSS.replace("** 2", "** 3").replace("2.0", "3.0"))

    def known(module, features):
        return describe(
            {
                "model": models.cnn(features),
                "loss": module.loss,
                "schedule": module.cubed if module is one else module.square,
                "optimizer": optax.sgd(0.1),
            }
        )

    then, now = known(one, (4,)), known(other, (8,))
    assert difference(then, json.loads(json.dumps(then))) == []
    assert difference(then, now) == [
        "model.config.features was [4] and is now [8]",
        "the code of loss `loss` changed",
        "loss.helper.SCALE was 2.0 and is now 3.0",
        "schedule was the function `make.<locals>.<lambda>` and is now the function "
        "`<lambda>`",
    ]
    arrays = describe({"a": np.zeros(99)}), describe({"a": np.ones(99)})
    assert difference(*arrays) == ["the numbers of a (an array float64[99]) changed"]
    assert difference({"a": 1}, {}) == ["a was 1 and is now null"]
    first, second = describe(lambda x: x), describe(lambda x: x)
    assert difference([first, first], [second, second]) == []
    double, triple = describe(lambda x: 2 * x), describe(lambda x: 3 * x)
    for old, new in (({"@set": [1]}, {"@set": [2]}), (double, triple)):
        assert len(difference({"f": old}, {"f": new})) == 1


def test_a_newer_library_is_no_difference_to_a_run_but_one_to_a_cache():
    then = describe(optax.sgd)
    now = {**then, "package": "optax 99"}
    assert difference(then, now) == [] and checksum(then) != checksum(now)


def test_nor_is_it_where_something_is_referred_to_again(monkeypatch):
    model = {"model": models.logistic(num_classes=3), "loss": losses.cross_entropy}
    then = describe(model)
    real = code.package
    monkeypatch.setattr(
        code, "package", lambda *module: (found := real(*module)) and f"{found}.99"
    )
    now = describe(model)
    assert difference(then, now) == [] and checksum(then) != checksum(now)


def test_source_and_bytecode_cannot_be_compared(load):
    then = describe({"loss": load(LOSS).loss})
    now = json.loads(json.dumps(then))
    now["loss"]["code"] = "bytecode of Python 3.11 0123"
    (sentence,) = difference(then, now)
    assert "so it cannot be compared" in sentence


def test_a_model_of_lambdas_is_told_by_its_code():
    def model(f):
        return Model(lambda key, x: 1.0, lambda p, x, *, key=None: f(x) * p)

    assert digest(model(jnp.sin)) != digest(model(jnp.cos))
    assert digest(model(lambda x: x)) != digest(model(lambda x: -x))


def test_it_is_quick():
    def run():
        thing = {"model": models.cnn((32, 64)), "optimizer": optax.adamw(1e-3)}
        begun = time.process_time()
        describe(thing)
        return time.process_time() - begun

    run()  # looks up versions, and reads files
    assert min(run() for _ in range(5)) < 0.05


@pytest.mark.slow
def test_the_first_one_is_quick_too():
    code = """
import time, optax
from dlworkshop import models
from dlworkshop.identity import describe
thing = {"model": models.cnn((32, 64)), "optimizer": optax.adamw(1e-3)}
begun = time.process_time()
describe(thing)
print(time.process_time() - begun)
"""
    command = [sys.executable, "-c", code]
    for _ in range(2):  # once is enough
        done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
        if float(done.stdout) < 0.05:
            return
    pytest.fail(f"{done.stdout} s")
