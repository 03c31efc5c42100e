"""The parameters behind the question mark of a request: known ones alone, each of its type."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from starlette.requests import Request

from bloodcell_jax.serve.limits import Refusal

_FLAGS = {"true": True, "false": False}


class Query(NamedTuple):
    """The parameters of a request by name."""

    values: dict[str, str]

    def flag(self, name: str) -> bool:
        """Return a flag; it is false unless it is given."""
        return _FLAGS[self.values.get(name, "false")]

    def text(self, name: str) -> str | None:
        """Return a text; None: it is not given."""
        return self.values.get(name)


def query_of(request: Request, *, flags: Sequence[str], texts: Sequence[str] = ()) -> Query:
    """Return the parameters of a request.

    Args:
      request: from a client.
      flags: names of those that are true or false.
      texts: names of others.

    Raises:
      Refusal: one is unknown, is given twice, or is a flag of another value.
    """
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in (*flags, *texts):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: no such parameter; there are {', '.join((*flags, *texts))}")
        if name in values:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: given twice")
        if name in flags and value not in _FLAGS:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}={value}: give true or false")
        values[name] = value
    return Query(values)
