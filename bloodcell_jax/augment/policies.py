"""Policies: strings that say which operations training pictures go through, and how they are carried out.

A policy is `name[:key=value,...]` joined by `|`, carried out from left to right, such as
`d4|brightness:delta=0.1..0.3|hue:delta=0.02,p=0.5`. Every operation also takes `p`, the probability with which a
picture goes through it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.colour import brightness, contrast, hue, saturation
from bloodcell_jax.augment.geometry import d4
from bloodcell_jax.errors import UsageError

Value = float | tuple[float, float] | str


@dataclass(frozen=True)
class Policy:
    """What `parse_policy` made of a string; `str` gives it back in canonical form.

    Attributes:
      operations: (name, ((option, value), ...)) of each operation in turn; a value is a number, a range or a word.
    """

    operations: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    def __str__(self) -> str:
        return "|".join(_format_operation(name, options) for name, options in self.operations) or "none"


@dataclass(frozen=True)
class Operation:
    """What a name in a policy stands for.

    Attributes:
      apply: `(key, position, slots, images, **options) -> images`. It may draw from the key folded with what does not
        depend on the device, such as slots, and with its position in the policy.
      defaults: of its options.
      limits: the largest magnitude of each option.
    """

    apply: Callable[..., jax.Array]
    defaults: dict[str, float]
    limits: dict[str, float]


def per_image(operation: Callable[..., jax.Array], **limits: float) -> Operation:
    """Lift an operation `(key, image, *, ...)` on one image to one on a batch, each image with its own key."""

    def apply(key, position, slots, images, **options):
        def apply_one(key, image):
            return operation(key, image, **options)

        return jax.vmap(apply_one)(image_keys(key, position, slots), images)

    parameters = inspect.signature(operation).parameters.values()
    defaults = {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}
    return Operation(apply, defaults, limits)


OPERATIONS = {
    "d4": per_image(d4),
    "brightness": per_image(brightness, delta=1.0),
    "contrast": per_image(contrast, delta=1.0),
    "saturation": per_image(saturation, delta=1.0),
    "hue": per_image(hue, delta=0.5),
}


def image_keys(key: jax.Array, position: int, slots: jax.Array) -> jax.Array:
    """Return the key of each image for the operation at a position of the policy: `key` with slot, then position."""
    return jax.vmap(lambda slot: jax.random.fold_in(jax.random.fold_in(key, slot), position))(slots)


def apply_policy(policy: Policy, key: jax.Array, slots: jax.Array, images: jax.Array) -> jax.Array:
    """Return the images after all operations of a policy; pure, for use under jit, pmap or shard_map.

    What happens to an image depends on `key` and its slot alone, so a batch may be cut over devices anyhow.

    Args:
      key: of this step, (seed, stream, step) folded in.
      slots: int32 [n], the places of the images in the global batch.
      images: float [n, h, w, 3] in [0, 1]; dtype and range are kept.
    """
    # No slot is -1, so what is drawn here is independent of what the operations draw.
    choice_key = jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF))
    for position, (name, options) in enumerate(policy.operations):
        options = dict(options)
        probability = options.pop("p", 1.0)
        changed = OPERATIONS[name].apply(key, position, slots, images, **options)
        if probability < 1:
            chosen = jax.vmap(lambda key, p=probability: jax.random.bernoulli(key, p))(
                image_keys(choice_key, position, slots)
            )
            changed = jnp.where(chosen[:, None, None, None], changed, images)
        images = changed
    return images


def parse_policy(text: str) -> Policy:
    """Return the policy that a string describes; `none` and the empty string are the one without operations.

    Raises:
      UsageError: an operation or option is unknown, given twice or empty, or a value is of the wrong kind or size.
    """
    if text.strip() in ("", "none"):
        return Policy()
    try:
        return Policy(tuple(_parse_operation(part.strip()) for part in text.split("|")))
    except UsageError as error:
        raise UsageError(f"policy {text!r}: {error}") from None


def _parse_operation(text: str) -> tuple[str, tuple[tuple[str, Value], ...]]:
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if not text:
        raise UsageError("an operation is missing before, between or after '|'; remove the '|'")
    if name not in OPERATIONS:
        raise UsageError(f"unknown operation {name!r}; known are {', '.join(OPERATIONS)}")
    options: dict[str, Value] = {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value):
            raise UsageError(f"{name}: {pair.strip()!r} is no option; write {name}:key=value, with {_signature(name)}")
        if key != "p" and key not in OPERATIONS[name].defaults:
            raise UsageError(f"{name}: unknown option {key!r}; it takes {_signature(name)}")
        if key in options:
            raise UsageError(f"{name}: {key} is given twice; keep one")
        options[key] = _parse_value(value)
        _check_value(name, key, options[key])
    return name, tuple(options.items())


def _parse_value(text: str) -> Value:
    """Return a number, a range `a..b` or, where it is neither, the word itself."""
    low, dots, high = text.partition("..")
    try:
        return (float(low), float(high)) if dots else float(text)
    except ValueError:
        return text


def _check_value(name: str, key: str, value: Value) -> None:
    shown = f"{name}: {key}={_format_value(value)}"
    if key == "p":
        if not (isinstance(value, float) and 0 <= value <= 1):
            raise UsageError(f"{shown} must be a probability from 0 to 1")
        return
    limit = OPERATIONS[name].limits[key]
    low, high = value if isinstance(value, tuple) else (0.0, value)
    if isinstance(value, tuple) and low > high:
        raise UsageError(f"{shown} runs downwards; write {_format_value((high, low))}")
    if isinstance(value, str) or not (-limit <= low <= high <= limit):
        bounds = f"a number from 0 to {limit:g} or a range a..b inside {-limit:g}..{limit:g}"
        raise UsageError(f"{shown} must be {bounds}")


def _signature(name: str) -> str:
    options = OPERATIONS[name].defaults | {"p": 1.0}
    return ", ".join(f"{key}={_format_value(value)}" for key, value in options.items())


def _format_operation(name: str, options: tuple[tuple[str, Value], ...]) -> str:
    pairs = ",".join(f"{key}={_format_value(value)}" for key, value in options)
    return f"{name}:{pairs}" if pairs else name


def _format_value(value: Value) -> str:
    if isinstance(value, tuple):
        return "..".join(_format_value(end) for end in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
