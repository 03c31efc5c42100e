"""timm without torchvision, which it imports for its data sets alone."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def torchvision_stand_in() -> Iterator[None]:
    """Let modules be imported that import torchvision, where it is absent, and use nothing of it."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    stand_in = _Torchvision()
    sys.meta_path.append(stand_in)
    try:
        yield
    finally:
        sys.meta_path.remove(stand_in)
        # Others that ask for torchvision must not find this one.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]


class _Empty(type):
    """A class whose attributes are classes like it."""

    def __getattr__(cls, name):
        return _empty_class(name)


def _empty_class(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Empty(name, (), {})


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision: every name in it is an empty class."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = _empty_class
        return module

    def exec_module(self, module):
        pass
