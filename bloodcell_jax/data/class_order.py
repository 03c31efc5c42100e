"""The order of the classes of a source that stores a label as a number and knows the name of each."""

import logging

import numpy as np

from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)


def in_given_order(
    labels: np.ndarray, stored: tuple[str, ...], given: tuple[str, ...], source: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels and class names as `data.class_names` says.

    The source's own names in another order bring the labels into that order, as they do for class folders and
    manifests. Names that the source does not have rename its classes, in its order.

    Args:
      labels: int [n], indices into `stored`.
      stored: the source's own names.
      given: `data.class_names`; empty: the source's own.
      source: the whole source, for messages.

    Raises:
      DataError: there are more or fewer names than classes, or a name of another class renames one.
    """
    if not given:
        return labels, stored
    if len(given) != len(stored):
        raise DataError(
            f"{source}: has the {len(stored)} classes {', '.join(stored)}; data.class_names has {len(given)}"
        )
    place = {name.casefold(): i for i, name in enumerate(given)}
    own = [place.get(name.casefold()) for name in stored]
    if len(place) == len(given) and None not in own:
        return np.asarray(own, labels.dtype)[labels], given
    pairs = ", ".join(f"{name} is {new}" for name, new in zip(stored, given, strict=True))
    if any(new not in (None, i) for i, new in enumerate(own)):
        raise DataError(
            f"{source}: data.class_names has some of its own names at the places of other classes ({pairs}). Give its "
            f"names alone, in any order ({', '.join(stored)}), or new names alone, in this order"
        )
    logger.info("%s: data.class_names renames its classes: %s", source, pairs)
    return labels, given
