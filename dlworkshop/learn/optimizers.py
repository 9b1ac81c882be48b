"""Optimizers that optax lacks: constructors, `(learning_rate, **numbers) -> optimizer`.

Any constructor of optax can be used as it is: `optax.adam`, `functools.partial(
optax.sgd, nesterov=True)`. It is called inside the step with traced numbers, by
keyword, so that one program serves every learning rate, alone or in a population. The
optimizers here distinguish kernels from other parameters, for weight decay or as
matrices.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from dlworkshop.data.leaves import at_least_float32, keeps_kind
from dlworkshop.errors import UserError, check_function, repr_of
from dlworkshop.learn.hparams import name_of
from dlworkshop.types import PyTree

__all__ = [
    "adamw",
    "clip_by_global_norm",
    "clipped",
    "is_kernel",
    "kernels",
    "muon",
    "nesterov",
    "sgd",
]

# What the libraries call their parameters: kernel, bias, scale and embedding in Linen
# and NNX; w, b, scale, offset and embeddings in Haiku; weight and bias in Equinox, of
# which `models.from_equinox` renames those that are no kernels. A vector for each token
# or position is a parameter of one's own.
KERNELS = ("kernel", "w")
OTHERS = ("bias", "b", "scale", "offset")
TABLES = re.compile(r"emb(ed|_|$)|token|^(cls|pos)(_|$)|^position", re.IGNORECASE)
BOXES = ("value", "raw_value")  # in which NNX keeps an array, innermost


def names(path: tuple) -> list[str]:
    """The words of a path into a tree, the innermost last, without list indices.

    >>> from jax.tree_util import DictKey, GetAttrKey, SequenceKey
    >>> names((GetAttrKey("layers"), SequenceKey(0), DictKey("kernel")))
    ['layers', 'kernel']
    >>> names((DictKey("value"), DictKey("kernel")))  # a layer of attention
    ['value', 'kernel']
    """
    parts = (getattr(key, "key", getattr(key, "name", None)) for key in path)
    words = [part for part in parts if isinstance(part, str)]
    return words[:-1] if words[-1:] and words[-1] in BOXES else words


def is_kernel(path: tuple, leaf: Any) -> bool:
    """Whether a parameter is a kernel: by its name, else by a rank of 2 or more.

    The rank alone is misleading: a bias has rank 3 in a convolution of Equinox and 2 in
    an attention layer of Linen, and an embedding is a table of vectors. So names such
    as `token_embed`, `pos`, `position`, `cls` and `mask_token` are no kernels, either.
    Another opinion is a `mask` of the optimizer.

    >>> from jax.tree_util import DictKey
    >>> table = jnp.ones((5, 2))
    >>> [is_kernel((DictKey(name),), table) for name in ("weight", "pos_embedding")]
    [True, False]
    """
    *_, name = ["", *names(path)]
    if name in KERNELS:
        return True
    return leaf.ndim > 1 and name not in OTHERS and TABLES.search(name) is None


def kernels(params: PyTree) -> PyTree:
    """A mask for weight decay: True for kernels.

    >>> kernels({"kernel": jnp.ones((2, 3)), "bias": jnp.ones((3, 1, 1))})
    {'bias': False, 'kernel': True}
    """
    return jax.tree_util.tree_map_with_path(is_kernel, params)


def sgd(
    learning_rate, momentum=None, weight_decay=None, nesterov=False, mask=kernels
) -> optax.GradientTransformationExtraArgs:
    """`optax.sgd` with weight decay: m = momentum m + g, params -= learning_rate m.

    `weight_decay` times the kernels is added to the gradient g (an L2 penalty).
    Source: Sutskever et al. (2013), section 2.
    """
    descend = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    if weight_decay is None:
        return descend
    return optax.chain(optax.add_decayed_weights(weight_decay, mask), descend)


def nesterov(
    learning_rate, momentum=0.9, weight_decay=None, mask=kernels
) -> optax.GradientTransformationExtraArgs:
    """SGD with Nesterov's momentum; `weight_decay` as in `sgd`.

    Source: Sutskever et al. (2013), eq. 3 and 4, in the form of Dozat (2016).
    """
    return sgd(learning_rate, momentum, weight_decay, nesterov=True, mask=mask)


def adamw(
    learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4, mask=kernels
) -> optax.GradientTransformationExtraArgs:
    """`optax.adamw` with weight decay on kernels only.

    Source: Loshchilov & Hutter (2019), Decoupled weight decay regularization, alg. 2.
    """
    return optax.adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask
    )


def muon(
    learning_rate,
    beta=0.95,
    eps=1e-8,
    weight_decay=0.0,
    adam_b1=0.9,
    adam_b2=0.999,
    mask=kernels,
) -> optax.GradientTransformationExtraArgs:
    """`optax.contrib.muon` on kernels of any rank; Adam on the other parameters.

    Muon makes the momentum of a matrix orthogonal. A convolution's kernel [h, w, C, F]
    counts as the matrix [h*w*C, F], or [F, C*h*w] where it is Equinox's `weight`.

    Args:
        learning_rate: per update, of both optimizers.
        beta: momentum of Muon, in [0, 1).
        eps: of both optimizers.
        weight_decay: per update, on kernels.
        adam_b1, adam_b2: of Adam.
        mask: params -> tree of bools, True for kernels.

    Source: Jordan et al. (2024), Muon.
    """

    def dimensions(params):
        return jax.tree_util.tree_map_with_path(as_matrix, mask(params), params)

    return optax.with_extra_args_support(
        optax.contrib.muon(
            learning_rate,
            beta=beta,
            eps=eps,
            weight_decay=weight_decay,
            adam_b1=adam_b1,
            adam_b2=adam_b2,
            muon_weight_dimension_numbers=dimensions,
        )
    )


def as_matrix(path: tuple, chosen: bool, leaf: Any) -> MuonDimensionNumbers | None:
    """Input and output axes of a kernel; None for other parameters."""
    if not chosen or leaf.ndim < 2:
        return None
    axes = tuple(range(leaf.ndim))
    *outer, name = ["", *names(path)]
    if name == "weight":  # outputs come first
        return MuonDimensionNumbers(axes[1:], axes[:1])
    if outer and outer[-1] in ("query", "key", "value"):  # of attention: [D, head, D']
        return MuonDimensionNumbers(axes[:1], axes[1:])
    return MuonDimensionNumbers(axes[:-1], axes[-1:])


def clip_by_global_norm(max_norm) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` for gradients of any floating type.

    The norm is computed in float32 at least. Optax's version rejects bfloat16 gradients
    if `max_norm` is a traced float32.

    Source: Pascanu, Mikolov & Bengio (2013), algorithm 1.

    >>> grads = {"w": jnp.array([3.0, 4.0])}
    >>> updates, _ = clip_by_global_norm(1.0).update(grads, optax.EmptyState())
    >>> [round(float(update), 4) for update in updates["w"]]
    [0.6, 0.8]
    """

    def update(updates, params=None):
        del params  # only gradients are used
        norm = optax.tree.norm(jax.tree.map(at_least_float32, updates))
        scale = jnp.minimum(1, max_norm / jnp.maximum(norm, 1e-30))
        return jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), updates)

    return optax.stateless(update)


def clipped(make: Callable) -> Callable:
    """The constructor `make` with an additional keyword `clip_norm`.

    Args:
        make: a constructor of optax, of this module, or your own.

    Returns:
        A constructor: gradients whose global norm is above `clip_norm` are scaled down
        to it before they reach the optimizer.

    Raises:
        UserError: if it has this keyword already.

    >>> inspect.signature(clipped(optax.sign_sgd)).parameters.keys()
    odict_keys(['learning_rate', 'clip_norm'])
    """
    check_function("the optimizer to be clipped", make)
    signature = inspect.signature(make)
    if "clip_norm" in signature.parameters:
        raise UserError("this optimizer takes clip_norm already: use it as it is")

    @functools.wraps(make)
    def constructor(*args, clip_norm, **numbers):
        tx = with_extra_args(make(*args, **numbers))
        return optax.chain(clip_by_global_norm(clip_norm), tx)

    more = inspect.Parameter("clip_norm", inspect.Parameter.KEYWORD_ONLY)
    every = sorted([*signature.parameters.values(), more], key=lambda p: p.kind)
    constructor.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    constructor.__name__ = f"clipped_{name_of(make)}"
    return constructor


def with_extra_args(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`tx` with an update that accepts any keyword, and passes on those that it takes.

    Like `optax.with_extra_args_support`, but also for updates that take some keywords
    and reject others, such as that of `optax.contrib.sam`.

    >>> grads = {"w": jnp.ones(2)}
    >>> sgd = with_extra_args(optax.sgd(0.1))
    >>> updates, _ = sgd.update(grads, sgd.init(grads), grads, value=3.0)
    """
    if not callable(getattr(tx, "update", None)):
        raise UserError(
            f"the optimizer's constructor returns {repr_of(tx)}: return a gradient "
            "transformation, like the constructors of optax"
        )
    parameters = inspect.signature(tx.update).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return optax.with_extra_args_support(tx)
    taken = {p.name for p in parameters}

    def update(updates, state, params=None, **extra):
        more = {name: value for name, value in extra.items() if name in taken}
        return tx.update(updates, state, params, **more)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def same_dtypes(new: PyTree, old: PyTree) -> PyTree:
    """`new` cast to the dtypes of `old`.

    Optax keeps the moments of bfloat16 parameters in bfloat16 if its hyper-parameters
    are Python numbers. A traced float32 `b1` makes the moments float32, but the state
    of a loop cannot change its dtype.

    Raises:
        UserError: for floats that were integers, whose fractions would be lost.

    >>> new = {"mu": jnp.ones(2, jnp.float32), "count": jnp.array(3)}
    >>> old = {"mu": jnp.zeros(2, jnp.bfloat16), "count": jnp.array(2)}
    >>> same_dtypes(new, old)["mu"].dtype.name
    'bfloat16'
    """

    def leaf(path, now, before):
        if getattr(now, "dtype", None) == before.dtype:
            return now
        if not keeps_kind(now, before):
            raise UserError(
                f"the optimizer's state{jax.tree_util.keystr(path)} begins as "
                f"{before.dtype} and becomes {jnp.result_type(now)} in a step, whose "
                "fractions would be lost: begin with the dtype that it has later"
            )
        return jnp.asarray(now, before.dtype)

    return jax.tree.map_with_path(leaf, new, old)
