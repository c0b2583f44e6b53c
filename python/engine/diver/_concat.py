"""Several sets as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, SupportsFloat, SupportsIndex

from diver import _engine, _options
from diver._datasets import as_source
from diver.source import Source


def concat(
    sets: Iterable[Any],
    *,
    weights: Iterable[SupportsFloat] | None = None,
    classes: Iterable[Iterable[SupportsIndex]] | None = None,
) -> Source:
    """Several sets as one: the samples of the first, then those of the second, and so on.

    Samples stay as their sets store them. So a refined image is found in the cache whether its set is streamed alone or
    with others, as long as its class is the same class of the refiner in both. All images must have the same size and
    channels. Sets may differ in:

    - values: pixels in one set, normalised in another. Batches are normalised with the constants of the first set;
      values that are stored with other constants are turned into pixels and normalised anew. A ZCA-whitened set can be
      combined with whitened sets only;
    - labels: classes in one set, probabilities in another. Then all labels are probabilities, 0 for classes that the
      sample's set lacks. A set of logits can be combined only with sets of logits for the same classes.

    Args:
        sets: What :func:`diver.open` gives, or paths for it; or what :func:`diver.from_dataset` takes.
        weights: The share of each set in an epoch of :class:`diver.DataLoader`: one number above 0 for each set, of
            which only the proportions count. Every sample comes at least once in an epoch: with two sets of 100 images
            and ``weights=[2, 1]``, an epoch has 300 images, and those of the first set come twice. If the samples of a
            set cannot come equally often, the ones that come once more change with the epoch. By default each sample
            comes once. ``len(source)``, ``source[i]`` and torch's own loader do not know of weights.
        classes: For each set, a list that gives each of its classes a label in the combined set, as in
            ``[[0, 1, 2], [2, 3]]``. By default classes are matched by ImageNet's classes if all sets say which they
            are; else by name; else by number, if no set names its classes and all have equally many. The first set's
            classes come first, then those that the second adds, and so on.

    Raises:
        OptionError: the sets cannot be combined, it is unclear which of their classes are the same, a class is a
            different class of the refiner in two sets, or an argument is out of range.
        DiverError: a set cannot be opened, as of :func:`diver.open`.

    >>> import diver
    >>> shapes = diver.concat(["examples/shapes/dm_ipc1", "examples/shapes/dc_ipc1"], weights=[2, 1])
    >>> len(shapes), shapes.num_classes
    (20, 10)
    >>> with diver.DataLoader(shapes, batch_size=10, shuffle=True) as loader:
    ...     sum(len(batch.indices) for batch in loader)
    30
    """
    if isinstance(sets, (str, bytes, os.PathLike, Source, Mapping, AbstractSet)):
        _options.wrong_type("sets", sets, "a list of sets")
    opened = [as_source(f"sets[{number}]", given) for number, given in enumerate(_listed("sets", sets))]
    shares = None
    if weights is not None:
        shares = [
            _options.number(f"weights[{number}]", weight)
            for number, weight in enumerate(_listed("weights", weights))
        ]
    labels = None
    if classes is not None:
        labels = [
            _options.integers(f"classes[{number}]", of_set)
            for number, of_set in enumerate(_listed("classes", classes))
        ]
    return _made(opened, shares, labels)


def _made(sets: list[Source], weights: list[float] | None, classes: list[list[int]] | None) -> Source:
    engine = _engine.concat([source._engine for source in sets], weights, classes)
    return Source(engine, (_made, (sets, weights, classes)))


def _listed(name: str, values: Iterable[Any]) -> Sequence[Any]:
    if isinstance(values, (str, bytes, Mapping, AbstractSet)):
        _options.wrong_type(name, values, "a list with one item for each set")
    try:
        return list(values)
    except TypeError:
        _options.wrong_type(name, values, "a list with one item for each set")
