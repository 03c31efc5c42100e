"""The common parts of all pages: templates, the format of numbers, and the replacement of a file."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from bloodcell_jax.names import full_class_name, visible
from bloodcell_jax.whole_files import replacing


class Script(NamedTuple):
    """A script of a page, and the digest by which the page's policy lets it run and no other."""

    text: Markup
    digest: Markup


def render(template: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
    """Return a page made from a template of this folder. All `values` are escaped.

    Args:
      template: its name.
      scripts: names of the scripts that the page has besides the one of all pages.
      **values: what the template shows.
    """
    # ChainableUndefined: the page shows a dash for a value that the run has not recorded, at any depth.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bloodcell_jax.report", ""),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": lambda value, digits=4: _number(value, f",.{digits}f"),
        "percent": lambda value, digits=2: _number(value, f".{digits}%").replace("%", "\u00a0%"),
        "from_to": lambda ends, digits=2: f"{100 * ends[0]:.{digits}f}–{100 * ends[1]:.{digits}f}\u00a0%",
        "duration": duration_text,
        "full_class_name": full_class_name,
        "class_list": lambda names: ", ".join(map(full_class_name, names)),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    return environment.get_template(template).render(values, scripts=[_script(name) for name in ("page.js", *scripts)])


def jpeg_address(jpeg: bytes) -> str:
    """Return the address by which a page holds an image in itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def png_address(png: bytes) -> str:
    """Return the address by which a page holds an image in itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _script(name: str) -> Script:
    text = resources.files("bloodcell_jax.report").joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), Markup(f"sha256-{digest}"))


def _shown(value: object) -> object:
    """Return what a template shows: marks that turn the direction of writing, and the like, are escaped in names."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, keep="\n\u00a0")
    return value


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "–"


def duration_text(seconds: object) -> str:
    """Return a duration in words; a dash if it is not known."""
    if not isinstance(seconds, int | float):
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def write_page(path: Path, html: str) -> None:
    """Write a page in one step: a reader sees the old page or the new one, never a part.

    Raises:
      MachineError: the page cannot be written.
    """
    # Ids are file names. A name that is not UTF-8 is read as lone surrogates, which cannot be encoded.
    content = html.encode("utf-8", errors="replace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
