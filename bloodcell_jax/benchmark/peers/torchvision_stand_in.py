"""A stand-in for torchvision, which timm imports only for its datasets."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def torchvision_stand_in() -> Iterator[None]:
    """Allow imports of modules that import torchvision but do not use it, even if torchvision is not installed."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    stand_in = _Torchvision()
    sys.meta_path.append(stand_in)
    try:
        yield
    finally:
        sys.meta_path.remove(stand_in)
        # Other modules that look for torchvision must not find the stand-in.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]


class _Empty(type):
    """The type of empty classes. Each attribute of such a class is another empty class."""

    def __getattr__(cls, name: str) -> "_Empty":
        return _empty_class(name)


def _empty_class(name: str) -> _Empty:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Empty(name, (), {})


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads a module torchvision in which every name is an empty class."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _empty_class
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass
