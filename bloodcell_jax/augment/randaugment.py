"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) and TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158).

Both carry out layers of `search_spaces`: in each, every image gets one operation of its own, at a level of its own.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bloodcell_jax.augment import search_spaces
from bloodcell_jax.augment.assignment import PARTS, Assignment, Group, apply_groups, assign, block_numbers, slot_keys
from bloodcell_jax.augment.search_spaces import Space
from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class LayerPlan:
    """What a layer chooses from.

    Attributes:
      space: its operations.
      probability: that an image gets any operation in a layer.
      draw_level: key -> level of one image, 0 to 1.
      layers: how many are carried out.
    """

    space: Space
    probability: float
    draw_level: Callable[[jax.Array], jax.Array]
    layers: int


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
    """Take every image through `n` operations, each drawn for it alone.

    Args:
      key: of the step and use; each image folds its slot in.
      block_key: of the step and use; each block folds its number in.
      slots: int32 [k], whole blocks of consecutive global slots.
      images: [k, h, w, 3].
      block: slots in a block.
      n: layers.
      m: magnitude, 0 to 30, of preset `paper`.
      preset: `paper`, or `kerascv`: its 10 operations at magnitudes N(0.5, 0.15), 3 layers, a layer in 10 of 11 (n and
        m are not used).
      timm: such as `rand-m9-mstd0.5-inc1`; wins over all others.
      fill: what lies outside the image, see `warp`.
    """
    plan = _plan(n=n, m=m, preset=preset, timm=timm)
    return apply_layers(plan, key, block_key, slots, images, block=block, fill=fill)


def trivialaugment(
    key: jax.Array,
    block_key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    *,
    block: int,
    fill: str = "reflect",
) -> jax.Array:
    """Take every image through one operation at one of 31 magnitudes (TrivialAugmentWide); see `randaugment`."""

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
    """Carry the layers of a plan out, one after the other."""

    def layer(images: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        keys = slot_keys(jax.random.fold_in(key, number), slots)
        numbers = block_numbers(slots, block)
        assignment = assign_operation(plan, jax.random.fold_in(block_key, number), numbers, block)
        return apply_operations(plan, assignment, keys, images, fill=fill), None

    # A loop, not unrolled: each layer has half a dozen kernels to compile.
    return jax.lax.scan(layer, images, jnp.arange(plan.layers))[0]


def assign_operation(plan: LayerPlan, block_key: jax.Array, numbers: jax.Array, block: int) -> Assignment:
    """Draw the operation of each slot of some blocks in one layer; the last choice is none at all."""
    count = len(plan.space)
    if plan.probability == 1:
        return assign(block_key, numbers, block, (1,) * count + (0,))
    parts = round(plan.probability * PARTS)
    return assign(block_key, numbers, block, (parts,) * count + (count * (PARTS - parts),))


def apply_operations(
    plan: LayerPlan, assignment: Assignment, keys: jax.Array, images: jax.Array, *, fill: str
) -> jax.Array:
    """Take each image [n, h, w, 3] through the operation it was assigned, at a level drawn from its key [n]."""
    level_keys, sign_keys = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
    level = jax.vmap(plan.draw_level)(level_keys)
    sign = jax.vmap(lambda key: jax.random.rademacher(key, (), jnp.float32))(sign_keys)

    def group(kind: type, first: int, last: int) -> Group:
        def apply(images: jax.Array, details: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            choice, level, sign = details
            # A padded row has an operation of another group: it takes any of this one's, and is dropped.
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


_TIMM_FIELD = re.compile(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d+)?|inf)")


def parse_timm(text: str) -> LayerPlan:
    """Return the plan of timm's string, such as `rand-m9-mstd0.5-inc1`.

    Args:
      text: `rand`, then fields joined by `-`: `m` magnitude (10), `n` layers (2), `p` chance of each operation (0.5),
        `mstd` standard deviation of the magnitude (0; above 100 the magnitude is uniform from 0 to m), `mmax` largest
        magnitude (10), `inc` 1 for operations that change more at higher magnitudes (0).

    Raises:
      UsageError: a field is unknown or no number.
    """
    name, *fields = text.split("-")
    if name != "rand":
        raise UsageError(f"timm={text}: starts with {name!r}; write rand-m9-mstd0.5-inc1")
    values = {"m": 10.0, "n": 2.0, "p": 0.5, "mstd": 0.0, "mmax": 10.0, "inc": 0.0}
    for field in fields:
        match = _TIMM_FIELD.fullmatch(field)
        if not match:
            raise UsageError(f"timm={text}: {field!r} is no field; known are {', '.join(values)}, each with a number")
        values[match[1]] = float(match[2])
    largest, magnitude, deviation = values["mmax"], values["m"], values["mstd"]
    if not (values["n"] == int(values["n"]) and 1 <= values["n"] <= 10 and values["p"] <= 1 and 0 < largest <= 10):
        raise UsageError(f"timm={text}: n must be 1 to 10, p at most 1 and mmax above 0 and at most 10")

    def draw_level(key: jax.Array) -> jax.Array:
        if deviation > 100:
            drawn = magnitude * jax.random.uniform(key)
        else:
            drawn = magnitude + deviation * jax.random.normal(key)
        return jnp.clip(drawn, 0, largest) / 10

    return LayerPlan(search_spaces.timm(increasing=values["inc"] == 1), values["p"], draw_level, int(values["n"]))
