"""The declaration of an operation: a decorator on its function, and the only place that names it.

    @operation(cheap=True, delta=Magnitude(0.5))
    def hue(key, image, *, delta=0.02): ...

The decorator holds the legal values of the options. The name, the defaults and the line of help come from the function
itself, and its positional arguments say what kind of operation it is. `operations.py` collects the declarations.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

from bloodcell_jax.augment.options import Option, Value

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = Literal["image", "batch", "mix"]
# Takes the options that a policy gives, and returns what is wrong with them together, or None.
Check = Callable[[Mapping[str, Value]], str | None]

_KINDS: dict[tuple[str, ...], Kind] = {
    ("image",): "image",
    ("key", "image"): "image",
    # Such a function also takes the keyword `block`, the number of slots in a block. It is no option of a policy.
    ("key", "block_key", "slots", "images"): "batch",
    ("key", "image", "other"): "mix",
}
# The attribute of a function that holds its declaration.
_DECLARATION = "_operation"


@dataclass(frozen=True)
class Operation:
    """A declared operation.

    Attributes:
      name: the function's name.
      kind: `image` changes one image, `batch` changes whole blocks of images, `mix` mixes an image with another.
      function: the function.
      options: the legal values of each option. Every operation of a policy takes `p` besides.
      defaults: the default of each option.
      help: the first line of the function's docstring.
      cheap: the operation costs no more on the device than sorting out the images that go through it.
      random: the function takes a key.
      check: of options that are legal one by one; None: all go together.
    """

    name: str
    kind: Kind
    function: Callable[..., Any]
    options: dict[str, Option]
    defaults: dict[str, Value]
    help: str
    cheap: bool
    random: bool
    check: Check | None = None


def operation(*, cheap: bool = False, check: Check | None = None, **options: Option) -> Callable[[Function], Function]:
    """Declare a function as an operation, and return the function itself.

    Args:
      cheap: the operation costs no more on the device than sorting out the images that go through it.
      check: says what is wrong with options that are legal one by one.
      options: the legal values of each keyword argument.
    """

    def declare(function: Function) -> Function:
        setattr(function, _DECLARATION, _describe(function, cheap, check, options))
        return function

    return declare


def without_effect(ignored_by: Mapping[str, tuple[str, ...]]) -> Check:
    """Return a check that refuses options which an option, such as `preset=kerascv` or `timm`, makes meaningless."""

    def check(given: Mapping[str, Value]) -> str | None:
        for chosen, ignored in ignored_by.items():
            key, _, value = chosen.partition("=")
            idle = [name for name in ignored if name in given]
            if key in given and value in ("", given[key]) and idle:
                return f"{', '.join(idle)} {'do' if len(idle) > 1 else 'does'} nothing beside {chosen}; leave it out"
        return None

    return check


def declared_in(module: ModuleType) -> list[Operation]:
    """Return the operations that a module declares, in the order of its lines."""
    found = [getattr(member, _DECLARATION, None) for member in vars(module).values()]
    # A module may also import operations of other modules.
    return [each for each in found if isinstance(each, Operation) and each.function.__module__ == module.__name__]


def _describe(function: Callable[..., Any], cheap: bool, check: Check | None, options: dict[str, Option]) -> Operation:
    """Return the declaration of a function.

    Raises:
      TypeError: the function takes other arguments than an operation, or other options than are declared.
    """
    parameters = inspect.signature(function).parameters
    defaults = {
        name: parameter.default for name, parameter in parameters.items() if parameter.kind.name == "KEYWORD_ONLY"
    }
    arguments = tuple(name for name in parameters if name not in defaults)
    defaults.pop("block", None)
    name = function.__name__
    if arguments not in _KINDS:
        raise TypeError(f"{name}: its arguments {arguments} are not those of an operation; take one of {list(_KINDS)}")
    if defaults.keys() != options.keys():
        raise TypeError(f"{name}: its options are {list(defaults)}, but {list(options)} are declared; make them equal")
    first_line = (inspect.getdoc(function) or "").partition("\n")[0]
    return Operation(name, _KINDS[arguments], function, options, defaults, first_line, cheap, "key" in arguments, check)
