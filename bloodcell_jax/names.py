"""Names that come from outside, such as those of files and classes: on a terminal, on a page, in a spreadsheet."""

import difflib
import os
import re
import shlex
from collections.abc import Iterable

# A spreadsheet runs a cell that begins with one of these, and an Asian one also their full-width forms. A semicolon
# begins a cell as well: where the comma divides decimals, spreadsheets cut a CSV there.
_FORMULA = re.compile(r"(^'*|;'*)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")

# Short names of classes in published data sets of blood cells (Acevedo et al. 2020).
_FULL_NAMES = {"ig": "immature granulocyte"}


def full_class_name(name: str) -> str:
    """Return the name of a class for readers: a short one that is known stands behind the full one."""
    full = _FULL_NAMES.get(name.lower())
    return f"{full} ({name})" if full else name


def visible(text: str, keep: str = "") -> str:
    r"""Return a text in which control characters and what has no ink are escaped, as in `\x1b`.

    Among these are new lines, sequences that steer a terminal, marks that turn the direction of writing, and bytes
    that are no UTF-8 (which Python reads as lone surrogates).

    Args:
      text: any text.
      keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def spreadsheet_cell(name: str) -> str:
    """Return a name as the cell of a CSV: in one visible line, with an apostrophe before what would be a formula.

    Visible names stay distinct: one that begins with apostrophes and then a formula gets one more.
    """
    return _FORMULA.sub(r"\1'", visible(name))


def names_by_cell(names: Iterable[str]) -> dict[str, str]:
    """Return each name by its cell of a CSV, whether that was written by `spreadsheet_cell` or as it is."""
    names = list(names)
    return {name: name for name in names} | {spreadsheet_cell(name): name for name in names}


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question that offers the known name most like another one, as a shell reads it; empty: none is like it.

    Args:
      prefix: stands before each name on a command line, such as `--`.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {shell_word(prefix + close[0])}?" if close else ""


def shell_word(word: str) -> str:
    """Return a word as a shell reads it; what has no ink or is no UTF-8 stands there as the codes of its bytes."""
    if word.isprintable():
        return shlex.quote(word)
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    codes = (c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in quoted)
    return f"$'{''.join(codes)}'"
