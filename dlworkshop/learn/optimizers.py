"""Optimizers: functions `hparams -> optax.GradientTransformation`.

They are built inside the step from traced numbers, so that one program serves every
learning rate, alone or in a population. A function reads the hyper-parameters it
knows from `hparams`; None means the default given here.
"""

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from dlworkshop.types import HParams, PyTree


def _default(value, default):
    return default if value is None else value


def kernels(params: PyTree) -> PyTree:
    """True for kernels (rank 2 and more), False for biases: what weight decay acts on.

    >>> kernels({"kernel": jax.numpy.ones((2, 3)), "bias": jax.numpy.ones(3)})
    {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _descent(hparams: HParams, momentum, nesterov: bool):
    decay = hparams.weight_decay
    return optax.chain(
        optax.identity()
        if decay is None
        else optax.add_decayed_weights(decay, kernels),
        optax.identity()
        if momentum is None
        else optax.trace(decay=momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(hparams.learning_rate),
    )


def sgd(hparams: HParams) -> optax.GradientTransformation:
    """Stochastic gradient descent: m = momentum m + g, params -= learning_rate m.

    `momentum` is none by default; `weight_decay` adds its share of the kernels to the
    gradient (an L2 penalty). Source: Sutskever et al. (2013), section 2.
    """
    return _descent(hparams, hparams.momentum, nesterov=False)


def nesterov(hparams: HParams) -> optax.GradientTransformation:
    """Descent with Nesterov's momentum (0.9 by default).

    Source: Sutskever et al. (2013), eq. 3 and 4, in the form of Dozat (2016).
    """
    return _descent(hparams, _default(hparams.momentum, 0.9), nesterov=True)


def adam(hparams: HParams) -> optax.GradientTransformation:
    """Adam with b1 0.9, b2 0.999, eps 1e-8. Source: Kingma & Ba (2015), algorithm 1."""
    return optax.adam(
        hparams.learning_rate,
        b1=_default(hparams.b1, 0.9),
        b2=_default(hparams.b2, 0.999),
        eps=_default(hparams.eps, 1e-8),
    )


def adamw(hparams: HParams) -> optax.GradientTransformation:
    """Adam with weight decay apart from the gradient: 1e-4 by default, on kernels.

    Source: Loshchilov & Hutter (2019), Decoupled weight decay regularization, alg. 2.
    """
    return optax.adamw(
        hparams.learning_rate,
        b1=_default(hparams.b1, 0.9),
        b2=_default(hparams.b2, 0.999),
        eps=_default(hparams.eps, 1e-8),
        weight_decay=_default(hparams.weight_decay, 1e-4),
        mask=kernels,
    )


def muon(hparams: HParams) -> optax.GradientTransformation:
    """Muon: orthogonalised momentum (0.95 by default) on kernels, Adam on biases.

    A convolution's kernel [h, w, C, F] counts as the matrix [h*w*C, F]. `b1`, `b2` and
    `eps` are Adam's. Source: Jordan et al. (2024), Muon.
    """

    def dimensions(params):
        return jax.tree.map(
            lambda leaf: (
                MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
                if leaf.ndim > 1
                else None
            ),
            params,
        )

    return optax.contrib.muon(
        hparams.learning_rate,
        beta=_default(hparams.momentum, 0.95),
        weight_decay=_default(hparams.weight_decay, 0.0),
        weight_decay_mask=kernels,
        adam_b1=_default(hparams.b1, 0.9),
        adam_b2=_default(hparams.b2, 0.999),
        eps=_default(hparams.eps, 1e-8),
        muon_weight_dimension_numbers=dimensions,
    )
