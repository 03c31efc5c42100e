"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) and TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158).

Both apply layers of operations from `search_spaces`. In a layer each image gets one operation and a level of its own.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bloodcell_jax.augment import search_spaces
from bloodcell_jax.augment.assignment import PARTS, Assignment, Group, apply_groups, assign, block_numbers, slot_keys
from bloodcell_jax.augment.declaration import operation, without_effect
from bloodcell_jax.augment.geometry import FILLS
from bloodcell_jax.augment.options import Number, Text, Word
from bloodcell_jax.augment.search_spaces import Space
from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class LayerPlan:
    """The choices of a layer.

    Attributes:
      space: the operations to choose from.
      probability: probability that an image gets any operation in a layer.
      draw_level: function key -> level of one image, 0 to 1.
      layers: number of layers.
    """

    space: Space
    probability: float
    draw_level: Callable[[jax.Array], jax.Array]
    layers: int


_TIMM_FIELD = re.compile(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d+)?|inf)")


def parse_timm(text: str) -> LayerPlan:
    """Return the plan of a timm string, such as `rand-m9-mstd0.5-inc1`.

    Args:
      text: `rand`, then fields joined by `-`. A field is a name and a number. These are the fields with their defaults:
        `m` (10) is the magnitude, `n` (2) the number of layers, and `p` (0.5) the probability of each operation. `mstd`
        (0) is the standard deviation of the magnitude. If it is above 100, the magnitude is uniform from 0 to m. `mmax`
        (10) is the largest magnitude. `inc` (0) is 1 if operations change more at higher magnitudes.

    Raises:
      UsageError: a field is unknown, has no number, or has a number out of its range.
    """
    name, *fields = text.split("-")
    if name != "rand":
        raise UsageError(f"timm={text}: the first field is {name!r} and not 'rand'; write, say, rand-m9-mstd0.5-inc1")
    values = {"m": 10.0, "n": 2.0, "p": 0.5, "mstd": 0.0, "mmax": 10.0, "inc": 0.0}
    for field in fields:
        match = _TIMM_FIELD.fullmatch(field)
        if not match:
            known = ", ".join(values)
            raise UsageError(f"timm={text}: unknown field {field!r}; known are {known}, each followed by a number")
        values[match[1]] = float(match[2])
    largest, magnitude, deviation = values["mmax"], values["m"], values["mstd"]
    if not (values["n"] == int(values["n"]) and 1 <= values["n"] <= 10 and values["p"] <= 1 and 0 < largest <= 10):
        raise UsageError(f"timm={text}: n must be 1 to 10, p at most 1 and mmax above 0 and at most 10")
    if values["inc"] not in (0, 1) or magnitude > largest:
        raise UsageError(f"timm={text}: inc must be 0 or 1, and m at most mmax, which is {largest:g}")

    def draw_level(key: jax.Array) -> jax.Array:
        if deviation > 100:
            drawn = magnitude * jax.random.uniform(key)
        else:
            drawn = magnitude + deviation * jax.random.normal(key)
        return jnp.clip(drawn, 0, largest) / 10

    return LayerPlan(search_spaces.timm(increasing=values["inc"] == 1), values["p"], draw_level, int(values["n"]))


@operation(
    check=without_effect({"timm": ("n", "m", "preset"), "preset=kerascv": ("n", "m")}),
    n=Number(1, 10, whole=True),
    m=Number(0, 30),
    preset=Word(("paper", "kerascv")),
    timm=Text(parse_timm, example="rand-m9-mstd0.5-inc1"),
    fill=Word(FILLS),
)
def randaugment(
    key: jax.Array,
    block_key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    *,
    block: int,
    n: float = 2.0,
    m: float = 9.0,
    preset: str = "paper",
    timm: str = "",
    fill: str = "reflect",
) -> jax.Array:
    """Apply to each image `n` of 14 operations, drawn for it alone, at magnitude `m` of 30 (RandAugment).

    Args:
      key: random key of this step and this operation. Each image folds its slot in.
      block_key: another such key. Each block folds its number in.
      slots: int32 [k], whole blocks of consecutive slots of the global batch.
      images: [k, h, w, 3].
      block: slots in a block.
      n: number of layers.
      m: magnitude of preset `paper`, 0 to 30.
      preset: `paper`, or `kerascv` for its 10 operations, which are far harsher. `kerascv` has 3 layers, applies an
        operation with probability 10/11, draws magnitudes from N(0.5, 0.15), and does not use n and m.
      timm: a string for timm's 15 operations, see `parse_timm`. It overrides n, m and preset.
      fill: content outside the image, see `warp`.

    Raises:
      UsageError: `parse_timm` raises it.
    """
    plan = _plan(n=n, m=m, preset=preset, timm=timm)
    return apply_layers(plan, key, block_key, slots, images, block=block, fill=fill)


@operation(fill=Word(FILLS))
def trivialaugment(
    key: jax.Array,
    block_key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    *,
    block: int,
    fill: str = "reflect",
) -> jax.Array:
    """Apply to each image one of 14 operations, drawn for it alone, at one of 31 magnitudes (TrivialAugmentWide).

    The arguments are those of `randaugment`.
    """

    def draw_level(key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, 31) / 30

    plan = LayerPlan(search_spaces.trivial_wide(), 1.0, draw_level, layers=1)
    return apply_layers(plan, key, block_key, slots, images, block=block, fill=fill)


def apply_layers(
    plan: LayerPlan,
    key: jax.Array,
    block_key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    *,
    block: int,
    fill: str,
) -> jax.Array:
    """Apply the layers of a plan one after the other."""

    def layer(images: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        keys = slot_keys(jax.random.fold_in(key, number), slots)
        numbers = block_numbers(slots, block)
        assignment = assign_operation(plan, jax.random.fold_in(block_key, number), numbers, block)
        return apply_operations(plan, assignment, keys, images, fill=fill), None

    # The loop is not unrolled, because each layer has half a dozen kernels to compile.
    return jax.lax.scan(layer, images, jnp.arange(plan.layers))[0]


def assign_operation(plan: LayerPlan, block_key: jax.Array, numbers: jax.Array, block: int) -> Assignment:
    """Draw the operation of each slot of some blocks in one layer. The last choice is no operation."""
    count = len(plan.space)
    if plan.probability == 1:
        return assign(block_key, numbers, block, (1,) * count + (0,))
    parts = round(plan.probability * PARTS)
    return assign(block_key, numbers, block, (parts,) * count + (count * (PARTS - parts),))


def apply_operations(
    plan: LayerPlan, assignment: Assignment, keys: jax.Array, images: jax.Array, *, fill: str
) -> jax.Array:
    """Apply to each image [n, h, w, 3] its assigned operation, at a level drawn from its key [n]."""
    level_keys, sign_keys = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
    level = jax.vmap(plan.draw_level)(level_keys)
    sign = jax.vmap(lambda key: jax.random.rademacher(key, (), jnp.float32))(sign_keys)

    def group(kind: type, first: int, last: int) -> Group:
        def apply(images: jax.Array, details: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            choice, level, sign = details
            # A row of padding has an operation of another group. It takes any of this group, and is dropped later.
            own = jnp.clip(choice - first, 0, last - first)
            parameters = search_spaces.parameters_of(plan.space[first : last + 1], own, level, sign)
            kernel = functools.partial(search_spaces.KERNELS[kind], fill=fill)
            return jax.vmap(kernel)(images, parameters)

        return Group(first, last, apply)

    runs = search_spaces.kernel_runs(plan.space)
    groups = [group(*run) for run in runs if run[0] is not search_spaces.Identity]
    return apply_groups(assignment, groups, images, (assignment.choice, level, sign))


def _plan(*, n: float, m: float, preset: str, timm: str) -> LayerPlan:
    if timm:
        return parse_timm(timm)
    if preset == "kerascv":

        def draw_level(key: jax.Array) -> jax.Array:
            return jnp.clip(0.5 + 0.15 * jax.random.normal(key), 0, 1)

        return LayerPlan(search_spaces.keras_cv(), 10 / 11, draw_level, layers=3)
    return LayerPlan(search_spaces.paper(), 1.0, lambda key: jnp.float32(m / 30), layers=int(n))
