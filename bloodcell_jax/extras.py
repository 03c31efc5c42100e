"""Packages that only an extra of this library brings."""

import importlib.util

from bloodcell_jax.errors import UsageError


def check_extra(what: str, module: str, extra: str, *, package: str | None = None, otherwise: str = "") -> None:
    """Check that a module of an extra can be imported, without importing it.

    Args:
      what: the flag or name that needs it.
      module: the module.
      extra: the extra that brings it.
      package: the package that holds the module; None: it has the same name.
      otherwise: what to do instead of installing it.

    Raises:
      UsageError: it is not installed; says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        instead = f", or {otherwise}" if otherwise else ""
        raise UsageError(
            f"{what}: needs the package {package or module}, which is not installed; run pip install "
            f"'bloodcell_jax[{extra}]'{instead}"
        )
