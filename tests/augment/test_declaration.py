"""An operation is declared once: the decorator, the table, the earlier names, the help and the page."""

import inspect
from pathlib import Path

import pytest

from bloodcell_jax import augment
from bloodcell_jax.augment import parse_policy
from bloodcell_jax.augment.declaration import declared_in, operation
from bloodcell_jax.augment.operations import (
    ALIASES,
    BATCH_OPERATIONS,
    HELP_WIDTH,
    IMAGE_OPERATIONS,
    MIXES,
    MODULES,
    OPERATIONS,
    help_text,
    markdown_tables,
)
from bloodcell_jax.augment.options import Magnitude, Number, Text

TABLE = OPERATIONS | MIXES


def test_a_declared_function_stays_a_plain_function():
    def darken(key, image, *, delta=0.25):
        """Darken an image.

        More words.
        """
        return image - delta

    signature = inspect.signature(darken)
    assert operation(cheap=True, delta=Magnitude(1))(darken) is darken
    assert inspect.signature(darken) == signature
    assert darken(None, 1.0) == 0.75


def test_the_declaration_comes_from_the_function():
    hue = IMAGE_OPERATIONS["hue"]
    assert hue.function is augment.hue
    assert (hue.name, hue.kind, hue.cheap, hue.random) == ("hue", "image", True, True)
    assert (hue.options, hue.defaults) == ({"delta": Magnitude(0.5)}, {"delta": 0.02})
    assert hue.help == augment.hue.__doc__.split("\n")[0]
    assert (IMAGE_OPERATIONS["invert"].random, IMAGE_OPERATIONS["invert"].options) == (False, {})
    assert not IMAGE_OPERATIONS["affine"].cheap
    assert BATCH_OPERATIONS["augmix"].kind == "batch"
    assert "block" not in BATCH_OPERATIONS["augmix"].defaults
    assert MIXES["fmix"].kind == "mix"
    assert "FourierMix" in MIXES["fmix"].help


def test_a_declaration_that_does_not_fit_its_function_is_refused():
    with pytest.raises(TypeError, match=r"wrong_arguments.*'picture'"):

        @operation()
        def wrong_arguments(key, picture):
            """Do nothing."""

    with pytest.raises(TypeError, match=r"undeclared.*'delta'"):

        @operation()
        def undeclared(image, *, delta=0.1):
            """Do nothing."""

    with pytest.raises(TypeError, match=r"absent.*'delta'"):

        @operation(delta=Number(0, 1))
        def absent(image):
            """Do nothing."""


def test_the_table_has_every_declaration_in_the_order_of_the_modules():
    declared = [each for module in MODULES for each in declared_in(module)]
    assert len({each.name for each in declared}) == len(declared) == len(TABLE)
    assert list(TABLE) == [each.name for each in declared]
    assert list(IMAGE_OPERATIONS)[:4] == ["d4", "affine", "random_resized_crop", "brightness"]


def test_no_module_with_declarations_is_missing():
    listed = {Path(module.__file__).name for module in MODULES}
    sources = Path(augment.__file__).parent.glob("*.py")
    assert {source.name for source in sources if "\n@operation(" in source.read_text("utf-8")} == listed


@pytest.mark.parametrize("name", TABLE)
def test_the_defaults_are_legal(name):
    declared = TABLE[name]
    assert declared.help.endswith(".")
    for option, value in declared.defaults.items():
        legal = declared.options[option]
        assert legal.check(value) is None or (value == "" and isinstance(legal, Text)), option


@pytest.mark.parametrize("alias", ALIASES)
def test_an_earlier_name_is_the_same_function(alias):
    assert getattr(augment, alias) is getattr(augment, ALIASES[alias])
    assert alias not in augment.__all__


@pytest.mark.parametrize("text", ["colour_jitter:hue=0.1,p=0.5", "d4|colour_degeneration:factor=0.2..0.4|hue"])
def test_an_earlier_name_in_a_policy_is_the_same_operation(text):
    canonical = text.replace("colour", "color")
    policy = parse_policy(text)
    assert policy == parse_policy(canonical)
    assert str(policy) == canonical


def test_an_unknown_attribute_is_named():
    with pytest.raises(AttributeError, match="'colour'"):
        _ = augment.colour


def test_the_help_has_every_operation_with_its_options():
    text = help_text()
    assert max(map(len, text.splitlines())) <= HELP_WIDTH
    for name, declared in TABLE.items():
        _, found, rest = text.partition(f"\n  {name}\n")
        assert found, name
        assert rest.lstrip().startswith(declared.help[:60])
    for part in ("sigma=0.05  a number from 0 to 1 or a range a..b inside 0..1", "compat=none  one of none, kerascv"):
        assert part in text


def test_the_page_has_the_generated_tables():
    page = Path(__file__).parents[2].joinpath("docs", "augmentation.md").read_text("utf-8")
    between = page.partition("<!-- operations -->\n\n")[2].partition("\n\n<!-- end of operations -->")[0]
    command = "python docs/augmentation_sheet.py --page=docs/augmentation.md"
    assert between == markdown_tables(), f"`{command}` writes them"
    assert command in page
