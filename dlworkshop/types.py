"""Shared types: NamedTuples with the shapes, dtypes and units of their fields.

Axes keep their letters everywhere: P member, B example in a batch, N examples of a
split, H W C image, D feature, K class, T step.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from dlworkshop.errors import check_whole

Array = Any  # of jax or of NumPy: what is used here, both have
PyTree = Any
HParams = Mapping[str, Array]  # name -> [] of one member, [P] of a population


class Batch(NamedTuple):
    """Examples: a batch of B or a whole split of N.

    An example is any pytree: an image [H, W, C], a vector [D], tokens [T], a dict of
    those. Arrays at rest may be uint8: in a step they are floats in [0, 1].
    """

    inputs: PyTree  # leaves [B, ...]
    targets: PyTree = None  # leaves [B, ...]; int32 [B] in [0, K) for classes
    weights: Array | None = None  # [B] >= 0: the share of each example in the loss

    @property
    def num_examples(self) -> int:
        """B, or N of a split.

        >>> Batch({"x": jax.numpy.ones((5, 2))}).num_examples
        5
        """
        return len(jax.tree.leaves(self.inputs)[0])

    def rows(self, index: Any) -> "Batch":
        """The examples that `index` names: a slice, or an array of indices [...].

        >>> Batch(jax.numpy.arange(4), jax.numpy.arange(4)).rows(slice(2)).targets.shape
        (2,)
        """
        return jax.tree.map(lambda leaf: leaf[index], self)


class Dataset(NamedTuple):
    """Three splits as random-access arrays, which may be on disk."""

    train: Batch
    validation: Batch  # cut off `train`; choices are made here
    test: Batch  # read once, at the end
    classes: tuple[str, ...] = ()  # [K] names; () where the targets are no classes
    name: str = "data"
    fingerprint: str = ""  # of the content, where it is known; "" is computed
    preprocessing: Mapping[str, Any] | None = None  # JSON: file or row -> example
    card: Mapping[str, Any] | None = None  # JSON: what the report says of the data
    # [N] int of train and of validation: what has the same number is in one fold
    groups: tuple[Array, Array] | None = None
    # array of the inputs of train, "" where there is one -> names of its columns [D]
    columns: Mapping[str, list[str]] | None = None

    def each_split(self, change: Callable[[Batch], Batch], **more: Any) -> "Dataset":
        """The same with `change` done to all three splits, and `more` fields replaced.

        >>> split = Batch(jax.numpy.arange(4.0), jax.numpy.zeros(4, int))
        >>> double = lambda split: split._replace(inputs=2 * split.inputs)
        >>> dataset = Dataset(split, split, split, ("a",)).each_split(double, name="2x")
        >>> dataset.test.inputs.tolist(), dataset.name
        ([0.0, 2.0, 4.0, 6.0], '2x')
        """
        train, validation, test = map(change, self[:3])
        return self._replace(train=train, validation=validation, test=test, **more)

    def first(self, num_examples: int) -> "Dataset":
        """The first so many examples of each split, as other content than the whole.

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
    """Other fields; other content has no known fingerprint, nor columns in train.

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
    """What members begin with, of one model or of each member [P, ...]."""

    params: PyTree
    state: PyTree = ()  # of a `StatefulModel`
    opt_state: PyTree = None  # None: as the optimizer begins with these parameters


class TrainState(NamedTuple):
    """One model under training; stacked to [P, ...] for a population."""

    step: Array  # [] int32, updates done
    params: PyTree
    state: PyTree  # what the model keeps beside its parameters, as running statistics
    opt_state: PyTree
    key: jax.Array  # [] typed key of the seed; randomness is fold_in(key, ...)


class Claim(NamedTuple):
    """A falsifiable statement, what was measured, and the verdict.

    It holds where `value relation bound` does, as far as its `test` can tell. The
    constructors are in `verify.claims`.
    """

    statement: str
    value: float  # what was measured, of all n together
    spread: tuple[float, float]  # of the n measurements; `test` says which
    n: int  # seeds, repeats, or numbers compared
    relation: str  # "<=", ">=", "<", ">" or "="
    bound: float  # argued before anything was measured
    why: str  # that argument
    test: str  # how the verdict was reached
    p: float | None  # of the test, where it is a statistical one
    verdict: str  # "holds" or "fails"
