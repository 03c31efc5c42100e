"""The table of operations: every name that a policy or a mix may contain, and the help that lists them.

A new operation is a function under `@operation` in one of `MODULES`. A new file of operations is one line there.
"""

import textwrap

from bloodcell_jax.augment import (
    augmix,
    color,
    compression,
    enhance,
    filters,
    geometry,
    levels,
    masks,
    microscope,
    mixing,
    randaugment,
)
from bloodcell_jax.augment.declaration import Kind, Operation, declared_in
from bloodcell_jax.augment.options import Number, format_value

# Help, documents and error messages list operations in this order, and those of a module in the order of its lines.
MODULES = (
    geometry,
    color,
    filters,
    compression,
    masks,
    microscope,
    levels,
    enhance,
    randaugment,
    augmix,
    mixing,
)

# Names of earlier versions, which stay valid in policies and as attributes of `bloodcell_jax.augment`.
ALIASES = {
    "colour_degeneration": "color_degeneration",
    "colour_jitter": "color_jitter",
    "enhance_colour": "enhance_color",
}

# The option that every operation takes.
PROBABILITY = Number(0, 1)

HELP_WIDTH = 110

_GRAMMAR = """\
A policy is name[:option=value,...], joined by |, applied from left to right: d4|hue:delta=0.02,p=0.5
A mix has the same form. If | joins several mixes, each image goes through one of them.
Each image draws its value from a range a..b. Options have the defaults below.
Every operation also takes p, a number from 0 to 1, the share of the images that go through it.
The default of p is 1 in a policy, and an equal part in a mix."""


def _of_kind(kind: Kind) -> dict[str, Operation]:
    declared = [each for module in MODULES for each in declared_in(module)]
    return {each.name: each for each in declared if each.kind == kind}


IMAGE_OPERATIONS = _of_kind("image")
BATCH_OPERATIONS = _of_kind("batch")
OPERATIONS = IMAGE_OPERATIONS | BATCH_OPERATIONS
MIXES = _of_kind("mix")

_SECTIONS = {
    "Operations on single images": IMAGE_OPERATIONS,
    "Operations that choose for each image": BATCH_OPERATIONS,
    "Mixes": MIXES,
}


def help_text() -> str:
    """Return the help of all operations and mixes, in lines of at most HELP_WIDTH characters."""
    sections = [
        "\n".join([f"{title}:", *map(_plain_text, operations.values())]) for title, operations in _SECTIONS.items()
    ]
    return "\n\n".join([_GRAMMAR, *sections])


def markdown_tables() -> str:
    """Return the tables of all operations and mixes, as docs/augmentation.md shows them."""
    head = "| name | what it does | options |\n|---|---|---|"
    sections = [
        "\n".join([f"### {title}\n\n{head}", *map(_markdown_row, operations.values())])
        for title, operations in _SECTIONS.items()
    ]
    return "\n\n".join(sections)


def _plain_text(operation: Operation) -> str:
    lines = textwrap.wrap(operation.help, HELP_WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    options = _options(operation)
    width = max(map(len, options), default=0)
    lines += [f"      {default:{width}}  {legal}" for default, legal in options.items()]
    return "\n".join([f"  {operation.name}", *lines])


def _markdown_row(operation: Operation) -> str:
    options = "<br>".join(f"`{default}`: {legal}" for default, legal in _options(operation).items())
    return f"| `{operation.name}` | {operation.help} | {options} |"


def _options(operation: Operation) -> dict[str, str]:
    """Return the legal values of each option, by `name=default`."""
    return {
        f"{name}={format_value(value)}": operation.options[name].legal for name, value in operation.defaults.items()
    }
