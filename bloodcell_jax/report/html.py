"""What every page has in common: its templates, how numbers are written, and how a file is replaced."""

import json
from pathlib import Path

import jinja2

from bloodcell_jax.workdir.files import replacing


def render(template: str, **values) -> str:
    """Return a page from a template of this folder; whatever `values` hold is escaped."""
    # ChainableUndefined: a value that a run has not recorded is shown as a dash, however deep it would lie.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bloodcell_jax.report", ""),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": lambda value, digits=4: _number(value, f",.{digits}f"),
        "percent": lambda value, digits=2: _number(value, f".{digits}%").replace("%", "\u00a0%"),
        "duration": _duration,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    return environment.get_template(template).render(values)


def _number(value, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "–"


def _duration(seconds) -> str:
    if not isinstance(seconds, int | float):
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def write_page(path: Path, html: str) -> None:
    """Write a page so that a reader sees the old or the new one, never a part.

    Raises:
      MachineError: it cannot be written.
    """
    # Ids are file names, and a name that is not UTF-8 reads as lone surrogates, which cannot be encoded.
    content = html.encode("utf-8", errors="replace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
