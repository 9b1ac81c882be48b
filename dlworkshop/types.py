"""Shared types: NamedTuples with the shapes, dtypes and units of their fields.

Axes keep their letters everywhere: P member, B example in a batch, N examples of a
split, H W C image, D feature, K class, T step.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from dlworkshop.errors import check_whole

Array = Any  # of JAX or NumPy; only what both support is used
PyTree = Any
HParams = Mapping[str, Array]  # name -> [] of one member, [P] of a population


class Batch(NamedTuple):
    """Examples: a batch of B, or a whole split of N.

    An example is any pytree: an image [H, W, C], a vector [D], tokens [T], or a dict of
    those. Stored arrays may be uint8; in a step they become floats in [0, 1].
    """

    inputs: PyTree  # leaves [B, ...]
    targets: PyTree = None  # leaves [B, ...]; int32 [B] in [0, K) for classes
    weights: Array | None = None  # [B] >= 0, the weight of each example in the loss

    @property
    def num_examples(self) -> int:
        """The number of examples: B of a batch, N of a split.

        >>> Batch({"x": jax.numpy.ones((5, 2))}).num_examples
        5
        """
        return len(jax.tree.leaves(self.inputs)[0])

    def rows(self, index: Any) -> "Batch":
        """The examples at `index`: a slice, or an array of indices [...].

        >>> Batch(jax.numpy.arange(4), jax.numpy.arange(4)).rows(slice(2)).targets.shape
        (2,)
        """
        return jax.tree.map(lambda leaf: leaf[index], self)


class Dataset(NamedTuple):
    """Three splits as random-access arrays, which may be on disk."""

    train: Batch
    validation: Batch  # for all choices
    test: Batch  # read once, at the end
    classes: tuple[str, ...] = ()  # [K] names; () if the targets are not classes
    name: str = "data"
    fingerprint: str = ""  # of the content; "" if it has not been computed
    preprocessing: Mapping[str, Any] | None = None  # JSON: from file or row to example
    card: Mapping[str, Any] | None = None  # JSON: description of the data for reports
    # [N] int for train and validation; examples of one group stay in one fold
    groups: tuple[Array, Array] | None = None
    # name of an input array of train ("" for a single one) -> its column names [D]
    columns: Mapping[str, list[str]] | None = None

    def each_split(self, change: Callable[[Batch], Batch], **more: Any) -> "Dataset":
        """Apply `change` to all three splits, and replace `more` fields.

        >>> split = Batch(jax.numpy.arange(4.0), jax.numpy.zeros(4, int))
        >>> double = lambda split: split._replace(inputs=2 * split.inputs)
        >>> dataset = Dataset(split, split, split, ("a",)).each_split(double, name="2x")
        >>> dataset.test.inputs.tolist(), dataset.name
        ([0.0, 2.0, 4.0, 6.0], '2x')
        """
        train, validation, test = map(change, self[:3])
        return self._replace(train=train, validation=validation, test=test, **more)

    def first(self, num_examples: int) -> "Dataset":
        """The first `num_examples` of each split, with a fingerprint of their own.

        >>> split = Batch(jax.numpy.ones((4, 2)), jax.numpy.zeros(4, int))
        >>> some = Dataset(split, split, split, ("a",), fingerprint="abc").first(3)
        >>> some.validation.inputs.shape, some.fingerprint
        ((3, 2), 'abc, the first 3')
        """
        check_whole("num_examples", num_examples)
        known, groups = self.fingerprint, self.groups
        if groups is not None:
            groups = groups[0][:num_examples], groups[1][:num_examples]
        return self.each_split(
            lambda split: split.rows(slice(num_examples)),
            fingerprint=known and f"{known}, the first {num_examples}",
            groups=groups,
            columns=self.columns,
        )


_CONTENT = {"train", "validation", "test", "classes", "groups"}
_replace_fields = Dataset._replace


def _replace(self: Dataset, /, **changes: Any) -> Dataset:
    """Replace fields; new content resets the fingerprint, a new `train` the columns.

    >>> split = Batch(jax.numpy.arange(4.0), jax.numpy.zeros(4, int))
    >>> dataset = Dataset(split, split, split, fingerprint="abc")
    >>> dataset._replace(name="b").fingerprint, dataset._replace(test=()).fingerprint
    ('abc', '')
    """
    if _CONTENT & changes.keys():
        changes.setdefault("fingerprint", "")
    if "train" in changes:
        changes.setdefault("columns", None)
    return _replace_fields(self, **changes)


Dataset._replace = _replace  # type: ignore[assignment, method-assign] # typing allows it here only


class Start(NamedTuple):
    """The initial state of members: of one for all, or of each member [P, ...]."""

    params: PyTree
    state: PyTree = ()  # of a `StatefulModel`
    opt_state: PyTree = None  # None: initialised by the optimizer


class NotLoaded(NamedTuple):
    """In place of an optimizer's state that a run does not have."""


class TrainState(NamedTuple):
    """One model under training; stacked to [P, ...] for a population."""

    step: Array  # [] int32, updates done
    params: PyTree
    state: PyTree  # of the model besides its parameters, such as running statistics
    opt_state: PyTree
    key: jax.Array  # [] typed key of the seed; randomness is fold_in(key, ...)


class Claim(NamedTuple):
    """A falsifiable statement, a measurement, and the verdict.

    The claim holds if `value relation bound` is true according to `test`. The
    constructors are in `verify.claims`.
    """

    statement: str
    value: float  # the result of all n measurements
    spread: tuple[float, float]  # of the n measurements, as described by `test`
    n: int  # seeds, repeats, or numbers compared
    relation: str  # "<=", ">=", "<", ">" or "="
    bound: float  # chosen before the measurement
    why: str  # the reason for the bound
    test: str  # how the verdict was reached
    p: float | None  # p-value of a statistical test
    verdict: str  # "holds" or "fails"
